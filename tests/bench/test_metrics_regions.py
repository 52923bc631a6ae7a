"""Subjects found by a detector and a segmenter (tiny, random), and cut out."""

import json

import numpy as np
import pytest
import torch
from metric_cases import CHANNELS, MEAN, WORDS, Found, by_hand, noise, noise_cases, tiny_clip, unchanged_by_company
from PIL import Image
from transformers import (
    BertTokenizer,
    CLIPModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
    SwinConfig,
)

from ssr_encoder.bench.backbones import load_backbone
from ssr_encoder.bench.metrics import ExclusiveImage, GroundedRegions, MaskedSimilarity, cut_out, load_metrics
from ssr_encoder.bench.metrics.masked import patch_mask
from ssr_encoder.errors import SSRError
from ssr_encoder.mini.models import make_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def metrics_finders(tmp_path_factory):
    """Folders of an OWL-ViT v2 and a SAM, 64 px."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(WORDS, 16)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = tower | {"image_size": 64, "patch_size": 16}
    owl = tmp_path_factory.mktemp("owl")
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=32))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(owl)
    processor = Owlv2ImageProcessorPil(size={"height": 64, "width": 64}, **CHANNELS)
    Owlv2Processor(processor, tokenizer).save_pretrained(owl)
    sam = tmp_path_factory.mktemp("sam")
    small = {"hidden_size": 16, "image_size": 64, "patch_size": 8}
    config = SamConfig(
        vision_config=small
        | {"num_hidden_layers": 1, "num_attention_heads": 2, "output_channels": 16, "mlp_dim": 32, "num_pos_feats": 8}
        | {"global_attn_indexes": [0], "window_size": 4},
        prompt_encoder_config=small | {"image_embedding_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"iou_head_hidden_dim": 16},
    )
    SamModel(config).save_pretrained(sam)
    square = {"height": 64, "width": 64}
    quarter = {"height": 16, "width": 16}
    SamProcessor(
        SamImageProcessorPil(
            size={"longest_edge": 64}, pad_size=square, mask_size={"longest_edge": 16}, mask_pad_size=quarter
        )
    ).save_pretrained(sam)
    return {"detector": str(owl), "segmenter": str(sam)}


@pytest.fixture(scope="module")
def metrics_regions(metrics_finders):
    return GroundedRegions(*metrics_finders.values(), threshold=0.0)


def test_the_best_box(metrics_finders, metrics_regions):
    """By the model's own logits: the box with the largest one, on a picture that is padded to a square below."""
    model = Owlv2ForObjectDetection.from_pretrained(metrics_finders["detector"]).eval()
    picture = noise((80, 50), 2)
    inputs = metrics_regions.reader(text=[["a photo of a cat"]], images=picture, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    x, y, width, height = (outputs.pred_boxes[0, outputs.logits[0, :, 0].argmax()] * 80).tolist()
    expected = [max(x - width / 2, 0), max(y - height / 2, 0), min(x + width / 2, 80), min(y + height / 2, 50)]
    assert metrics_regions.box(picture, "cat") == pytest.approx(expected, abs=1e-3)


def test_the_best_box_of_grounding_dino(metrics_finders, tmp_path):
    """The same with a Grounding DINO: the box with the largest score of any of the text's tokens."""
    torch.manual_seed(0)
    swin = SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=7, out_indices=[2, 3, 4])
    words = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    small = {"layers": 2, "n_points": 2, "attention_heads": 2, "ffn_dim": 16}
    layers = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in small.items()}
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=words | {"model_type": "bert"}, d_model=32, num_queries=5, **layers
    )
    GroundingDinoForObjectDetection(config).save_pretrained(tmp_path)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "cat"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}, **CHANNELS)
    GroundingDinoProcessor(processor, tokenizer).save_pretrained(tmp_path)

    regions = GroundedRegions(str(tmp_path), metrics_finders["segmenter"], threshold=0.0)
    picture = noise((80, 50), 2)
    inputs = regions.reader(text="cat.", images=picture, return_tensors="pt")
    model = GroundingDinoForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        outputs = model(**inputs)
    x, y, width, height = outputs.pred_boxes[0, outputs.logits[0].amax(1).argmax()].tolist()
    corners = [(x - width / 2) * 80, (y - height / 2) * 50, (x + width / 2) * 80, (y + height / 2) * 50]
    expected = [min(max(value, 0), edge) for value, edge in zip(corners, (80, 50, 80, 50), strict=True)]
    assert regions.box(picture, "Cat") == pytest.approx(expected, abs=1e-3)


def test_regions(metrics_finders, metrics_regions):
    picture = noise((80, 50), 2)
    region = metrics_regions(picture, "cat")
    assert region.shape == (50, 80) and region.dtype == bool and region.any()
    about = metrics_regions.describe()
    assert "threshold" not in about and "above 0" in about["regions"] and json.dumps(about)
    strict = GroundedRegions(*metrics_finders.values(), threshold=1.0)
    assert strict(picture, "cat") is None


def test_masked_scores_of_the_real_suite(metrics_finders, tmp_path):
    """The whole chain: two pictures to one number; a subject that is not found counts as absent or as no score."""
    backbones = {"clip": tiny_clip(tmp_path), **metrics_finders}
    masked, exclusive = load_metrics(["masked_clip_i", "exclusive_clip_i"], suite="real", backbones=backbones)
    cases = noise_cases(7)
    for case in cases:
        case.others = ("fox", "dog")
    for metric in (masked, exclusive):
        metric.regions.threshold = 0.0
        unchanged_by_company(metric, cases)
        assert all(-1 <= value <= 1 for value in metric(cases)) and "regions_sha256" in metric.describe()
    same = [type(c)(c.reference, c.reference, c.prompt, c.class_name) for c in cases]
    assert masked(same) == pytest.approx([1.0] * 7, abs=1e-5)
    masked.regions.threshold = 1.0
    masked.regions._kept.clear()
    assert masked(cases) == [None] * 7
    cases[0].mask = np.zeros((40, 48), np.float32)
    cases[0].mask[8:30, 10:40] = 1
    assert masked(cases[:1]) == [0.0]


def test_cut_scores_by_hand(tmp_path):
    """Masked and exclusive scores of a region with a notch, cut in numpy and seen by transformers' own forward."""
    folder, cases = tiny_clip(tmp_path), noise_cases(3)
    model, backbone = CLIPModel.from_pretrained(folder).eval(), load_backbone(folder)
    region = np.zeros((40, 48), bool)
    region[8:30, 10:40] = True
    region[8:15, 10:20] = False

    def cut(picture):  # 22 rows, 30 columns: a square of 30 and a tenth on each side
        pixels, ground = np.array(picture), np.round(255 * np.array(MEAN)).astype(np.uint8)
        pixels[~region] = ground
        square = np.tile(ground, (36, 36, 1))
        square[7:29, 3:33] = pixels[8:30, 10:40]
        return Image.fromarray(square)

    def see(pictures):
        with torch.no_grad():
            found = model.get_image_features(pixel_values=torch.cat([by_hand(p) for p in pictures])).pooler_output
        return found / found.norm(dim=1, keepdim=True)

    references, results = (see([cut(getattr(c, which)) for c in cases]) for which in ("reference", "image"))
    masked = MaskedSimilarity(backbone, Found(region))(cases)
    assert masked == pytest.approx((references * results).sum(1).tolist(), abs=2e-3)
    assert max(masked) < 0.999, "the pictures differ"
    for case in cases:
        case.others = ("fox", "dog")
    whole = (see([c.image for c in cases]) * references).sum(1)
    assert ExclusiveImage(backbone, Found(region))(cases) == pytest.approx(whole.tolist(), abs=2e-3)


def test_cut_out():
    picture = Image.new("RGB", (40, 20), "red")
    region = np.zeros((20, 40), bool)
    region[5:15, 30:35] = True
    alone = np.asarray(cut_out(picture, region, (1, 2, 3)))
    assert alone.shape == (12, 12, 3), "10 and a margin of 1 on each side"
    assert (alone[1:11, 3:8] == (255, 0, 0)).all()
    assert (alone == (255, 0, 0)).all(-1).sum() == 50 and (alone[0] == (1, 2, 3)).all()


def test_patch_mask():
    region = np.zeros((32, 32), bool)
    region[0:8, 0:12] = True
    assert patch_mask(region, (4, 4)).nonzero().tolist() == [[0, 0], [0, 1]]
    region = np.zeros((32, 32), bool)
    region[9:11, 17:19] = True
    assert patch_mask(region, (4, 4)).nonzero().tolist() == [[1, 2]], "smaller than half a patch"


def test_what_cannot_be_loaded(metrics_finders, tmp_path):
    with pytest.raises(SSRError, match="cannot be loaded"):
        GroundedRegions(str(tmp_path), metrics_finders["segmenter"])
