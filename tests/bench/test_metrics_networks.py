"""Networks of the true architectures with random weights, from folders: what they give, by other means."""

import json

import numpy as np
import open_clip
import pytest
import torch
from metric_cases import CHANNELS, MEAN, WORDS, Found, by_hand, noise, noise_cases, tiny_clip, unchanged_by_company
from open_clip.zero_shot_classifier import build_zero_shot_classifier
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import (
    AutoModel,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ssr_encoder.bench.backbones import load_backbone
from ssr_encoder.bench.metrics import (
    Case,
    ExclusiveText,
    MaSC,
    MaSCPrompt,
    MaskedSimilarity,
    ZeroShotTop1,
    class_embeddings,
    imagenet_classes,
    imagenet_templates,
    load_metrics,
)
from ssr_encoder.bench.metrics.masked import without_subject
from ssr_encoder.errors import SSRError
from ssr_encoder.mini.models import make_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def spread(model):
    for parameter in model.parameters():  # born so small that all pictures would be alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def metrics_clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="module")
def metrics_vits(tmp_path_factory):
    """The folders of a ViT (as DINO, with no pooler) and of a DINOv2, 32 px in patches of 8."""
    folders = {}
    torch.manual_seed(1)
    for name, model in {
        "dino": ViTModel(ViTConfig(**TOWER, image_size=32, patch_size=8), add_pooling_layer=False),
        "dinov2": Dinov2Model(Dinov2Config(**TOWER, mlp_ratio=2, image_size=32, patch_size=8)),
    }.items():
        folder = tmp_path_factory.mktemp(name)
        spread(model).save_pretrained(folder)
        ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3, **CHANNELS).save_pretrained(folder)
        folders[name] = str(folder)
    return folders


@pytest.fixture(scope="module")
def metrics_tiny(metrics_clip, metrics_vits):
    names = ["clip_t", "clip_i", "dino", "dinov2"]
    metrics = load_metrics(names, suite="real", backbones={"clip": metrics_clip, **metrics_vits})
    return dict(zip(names, metrics, strict=True))


def test_clip(metrics_clip, metrics_tiny):
    """Against transformers' own joint forward, with pictures prepared by hand."""
    model, cases = CLIPModel.from_pretrained(metrics_clip).eval(), noise_cases()
    tokenizer = metrics_tiny["clip_t"].backbone.tokenizer
    texts = tokenizer([c.prompt for c in cases], padding=True, return_tensors="pt")
    with torch.no_grad():
        made = model(pixel_values=torch.cat([by_hand(c.image) for c in cases]), **texts)
        shown = model(pixel_values=torch.cat([by_hand(c.reference) for c in cases]), **texts)
    text, image = (made.text_embeds * made.image_embeds).sum(1), (shown.image_embeds * made.image_embeds).sum(1)
    assert metrics_tiny["clip_t"](cases) == pytest.approx(text.tolist(), abs=2e-3)
    assert metrics_tiny["clip_i"](cases) == pytest.approx(image.tolist(), abs=2e-3)
    assert min(text) < 0 or min(image) < 0.9, "raw: not clamped, and the pictures differ"
    assert metrics_tiny["clip_t"].backbone is metrics_tiny["clip_i"].backbone


def test_class_tokens(metrics_vits, metrics_tiny):
    cases = noise_cases(size=(32, 32))
    for name, folder in metrics_vits.items():
        model = AutoModel.from_pretrained(folder).eval()
        with torch.no_grad():
            made, shown = (
                normalize(model(torch.cat([by_hand(getattr(c, which)) for c in cases])).last_hidden_state[:, 0])
                for which in ("image", "reference")
            )
        assert metrics_tiny[name](cases) == pytest.approx((made * shown).sum(1).tolist(), abs=1e-4)


def test_masked_dino(metrics_vits):
    """Against class tokens of cut-outs made in numpy: the region on the mean colour, in a square with a margin."""
    region = np.zeros((40, 48), bool)
    region[5:25, 20:30] = True
    model, cases = AutoModel.from_pretrained(metrics_vits["dino"]).eval(), noise_cases(3)
    ground = np.round(255 * np.array(MEAN)).astype(np.uint8)

    def see(picture):
        square = np.tile(ground, (24, 24, 1))
        square[2:22, 7:17] = np.array(picture)[5:25, 20:30]
        with torch.no_grad():
            return normalize(model(by_hand(Image.fromarray(square))).last_hidden_state[:, 0])

    expected = [float((see(c.image) * see(c.reference)).sum()) for c in cases]
    masked = MaskedSimilarity(load_backbone(metrics_vits["dino"]), Found(region), "masked_dino")
    assert masked(cases) == pytest.approx(expected, abs=2e-3)
    assert max(expected) < 0.999, "the pictures differ"


def test_patches(metrics_vits, metrics_clip):
    """Patch (row, column) is where it is in the picture: a picture that changes there changes it most."""
    before = noise((32, 32), 3)
    after = before.copy()
    after.paste((255, 0, 255), (16, 8, 24, 16))  # column 2, row 1
    for folder in (*metrics_vits.values(), metrics_clip):
        backbone = load_backbone(folder)
        change = (backbone.patches(before) - backbone.patches(after)).norm(dim=-1)
        assert change.shape == (4, 4) and divmod(int(change.argmax()), 4) == (1, 2)
        assert torch.allclose(backbone.patches(before).norm(dim=-1), torch.ones(4, 4), atol=1e-5)


def test_alone_and_together(metrics_tiny):
    clip, left = metrics_tiny["clip_t"].backbone, np.zeros((40, 48), bool)
    left[:, :20] = True
    cases = noise_cases()
    for case in cases:
        case.others = ("fox", "dog")
    by_class = ZeroShotTop1(clip, ["cat", "dog", "fox"], ["a {}", "the {}"], "test")
    for metric in (*metrics_tiny.values(), MaSC(clip, Found(left)), ExclusiveText(clip), by_class):
        unchanged_by_company(metric, cases)
        assert None not in metric(cases)


def test_descriptions(metrics_tiny, metrics_clip):
    about = metrics_tiny["clip_t"].describe()
    assert json.dumps(about) and str(MEAN) in about["preprocessing"] and "bicubic" in about["preprocessing"]
    assert "crop {'height': 32, 'width': 32}" in about["preprocessing"]
    assert metrics_clip not in json.dumps(about), "no paths"
    assert metrics_tiny["dino"].describe()["weights_sha256"] != metrics_tiny["dinov2"].describe()["weights_sha256"]
    assert metrics_tiny["dino"].backbone.fill == (102, 128, 153)


@pytest.fixture(scope="module")
def metrics_siglip2(tmp_path_factory):
    """SigLIP 2 NaFlex: pictures of any shape in at most 24 patches of 8 px."""
    folder, tokenizer = tmp_path_factory.mktemp("siglip2"), make_tokenizer(WORDS, 16)
    torch.manual_seed(2)
    text = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    vision = TOWER | {"patch_size": 8, "num_patches": 16}
    spread(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=24, **CHANNELS).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_naflex(metrics_siglip2):
    backbone = load_backbone(metrics_siglip2)
    wide = noise((48, 24), 1)
    assert backbone.patches(wide).shape == (3, 6, 32) and backbone.patches(noise((24, 48), 1)).shape == (6, 3, 32)
    assert backbone.image(wide).shape == backbone.text("a red fox").shape
    assert "24 patches" in backbone.describe()["preprocessing"]
    with torch.no_grad():
        inputs = backbone.processor(images=wide, return_tensors="pt")
        texts = backbone.tokenizer(["a red fox"], padding="max_length", max_length=16, return_tensors="pt").input_ids
        model = Siglip2Model.from_pretrained(metrics_siglip2).eval()
        out = model(input_ids=texts, **inputs)
    assert torch.allclose(backbone.image(wide), out.image_embeds[0], atol=1e-5)
    assert torch.allclose(backbone.text("a red fox"), out.text_embeds[0], atol=1e-5)


def test_masc_prompt_following(metrics_siglip2):
    """Nothing masked: the whole picture's score. What is masked does not count, beyond what the others saw of it."""
    backbone, wide = load_backbone(metrics_siglip2), noise((48, 24), 1)
    none, left = torch.zeros(3, 6, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)
    left[:, :3] = True
    assert torch.allclose(backbone.background(wide, none), backbone.image(wide), atol=1e-5)

    tokens = backbone.patches(wide)  # of unit length; the pooler by hand, on the right half alone, unnormalised
    inputs = backbone.processor(images=wide, return_tensors="pt")
    tower = backbone.model.vision_model
    with torch.no_grad():
        hidden = tower(**inputs).last_hidden_state[0, :18].unflatten(0, (3, 6))
        alone = tower.head(hidden[:, 3:].reshape(1, 9, -1))[0]
    assert torch.allclose(normalize(hidden, dim=-1), tokens, atol=1e-5)
    assert torch.allclose(backbone.background(wide, left), normalize(alone, dim=0), atol=1e-5)

    region = np.zeros((24, 48), bool)
    region[:, :24] = True
    for found, subject in ((region, left), (None, none)):
        metric = MaSCPrompt(backbone, Found(found))
        case = Case(wide, wide, "a photo of the Cat in the snow", "cat")
        expected = backbone.background(wide, subject) @ backbone.text("a photo of in the snow")
        assert metric([case]) == [pytest.approx(float(expected), abs=1e-6)]
        unchanged_by_company(metric, [Case(noise((48, 24), k), wide, "a cat", "cat") for k in range(7)])
    assert MaSCPrompt(backbone, Found(region | True))([case]) == [None]
    assert MaSCPrompt(backbone, Found(None)).describe()["definition"]


def test_prompts_without_their_subject():
    assert without_subject("a dog in the jungle", "dog") == "in the jungle"
    assert without_subject("a red dog and the hotdog, A Dog", "dog") == "a red and the hotdog,"


@pytest.fixture(scope="module")
def metrics_open_clip(tmp_path_factory):
    """A tiny architecture of open_clip, and "architecture/file" of random weights."""
    folder = tmp_path_factory.mktemp("open-clip")
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (folder / "ViT-tiny-8.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "ViT-tiny-8.json")
    torch.manual_seed(3)
    model = open_clip.create_model("ViT-tiny-8")
    save_file(model.state_dict(), folder / "weights.safetensors")
    return model.eval(), f"ViT-tiny-8/{folder / 'weights.safetensors'}"


def test_open_clip(metrics_open_clip):
    model, name = metrics_open_clip
    metrics = load_metrics(["clip_t", "clip_i"], suite="real", backbones={"clip": name})
    cases = noise_cases(3)
    pictures = [c.image for c in cases] + [c.reference for c in cases]
    pixels = torch.cat([by_hand(picture, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) for picture in pictures])
    with torch.no_grad():
        made, shown = model.encode_image(pixels, normalize=True).chunk(2)
        texts = model.encode_text(open_clip.tokenize([c.prompt for c in cases]), normalize=True)
    assert metrics[0](cases) == pytest.approx((made * texts).sum(1).tolist(), abs=2e-3)
    assert metrics[1](cases) == pytest.approx((made * shown).sum(1).tolist(), abs=2e-3)
    about = metrics[0].describe()
    assert about["backbone"] == "ViT-tiny-8/weights.safetensors" and "size" in about["preprocessing"]
    assert "open_clip_torch" in about["versions"]
    with pytest.raises(SSRError, match="backbone ViT-tiny-8/nothing cannot be loaded"):
        load_backbone("ViT-tiny-8/nothing")


def test_the_classifier_is_open_clip_s(metrics_open_clip):
    """80 templates, averaged as CLIP does it."""
    model, name = metrics_open_clip
    assert len(imagenet_templates()) == 80 and len(imagenet_classes()) == 1000
    names, backbone = imagenet_classes()[:3], load_backbone(name)
    ours = class_embeddings(backbone.text, names, imagenet_templates())
    theirs = build_zero_shot_classifier(model, open_clip.tokenize, names, imagenet_templates()).T
    assert torch.allclose(ours, theirs, atol=1e-5)
    metric = ZeroShotTop1(backbone, names, imagenet_templates(), "test")
    cases = noise_cases(4)
    for case in cases:
        case.class_name = names[0]
    with torch.no_grad():
        seen = torch.stack([backbone.image(case.image) for case in cases])
    assert metric(cases) == [float(k == 0) for k in (seen @ theirs.T).argmax(1)]
    assert load_metrics(["zero_shot_top1"], suite="real", backbones={"clip": name})[0].names == imagenet_classes()


def test_what_a_network_cannot(metrics_open_clip, metrics_vits):
    with pytest.raises(SSRError, match="gives no patches"):
        load_backbone(metrics_open_clip[1]).patches(noise())
    with pytest.raises(SSRError, match="reads no text"):
        load_backbone(metrics_vits["dino"]).text("a cat")
    with pytest.raises(SSRError, match="masc_pf needs a SigLIP 2"):
        MaSCPrompt(load_backbone(metrics_vits["dino"]), Found(None))
