"""The encoders behind one interface, against the libraries' own calls; tiny ones of the true architectures."""

import pytest
import torch
import torch.nn.functional as F

from ssr_encoder.aligner import SubjectConfig
from ssr_encoder.errors import SSRError
from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.encoders import OpenCLIP, load_encoder, scales


@pytest.fixture(autouse=True)
def _one(one_thread):
    pass


@pytest.fixture(scope="module")
def open_clip():
    return pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def tiny(open_clip):
    """ViT-L/14's architecture, 16 x 16 patches of 14 pixels, narrow and shallow."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 224, "layers": 3, "width": 32, "head_width": 16, "patch_size": 14},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    ).eval()
    return OpenCLIP("tiny", model.requires_grad_(False), open_clip.get_tokenizer("ViT-L-14"))


@torch.no_grad()
def test_open_clip_gives_the_outputs_of_its_blocks_and_its_embeddings(tiny):
    assert (tiny.size, tiny.grid, tiny.width, tiny.depth) == (224, 16, 32, 3)
    seen = []
    for block in tiny.model.visual.transformer.resblocks:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    pictures = torch.rand(2, 3, 224, 224)
    features, embeds = tiny.features(pictures, [3, 1])
    assert len(seen) == 3 and [f.shape for f in features] == [(2, 256, 32)] * 2
    assert torch.equal(features[0], seen[2][:, 1:]) and torch.equal(features[1], seen[0][:, 1:])
    config = SubjectConfig()  # OpenAI's mean and std
    pixels = (pictures - torch.tensor(config.image_mean)[:, None, None]) / torch.tensor(config.image_std)[:, None, None]
    assert torch.allclose(embeds, tiny.model.encode_image(pixels, normalize=True), atol=1e-6)
    texts = tiny.text_embeds(["a cat", "two dogs in the snow"])
    assert texts.shape == (2, 16) and torch.allclose(texts.norm(dim=1), torch.ones(2), atol=1e-5)
    assert tiny.last_layer is tiny.model.visual.transformer.resblocks[2]


@torch.no_grad()
def test_transformers_clip_and_dino(encoders):
    pictures = torch.rand(2, 3, 48, 48)
    clip = encoders["clip"]
    features, embeds = clip.features(pictures, [1, 3])
    seen = clip.vision(pictures * 2 - 1, output_hidden_states=True)
    assert torch.allclose(features[1], seen.last_hidden_state[:, 1:], atol=1e-5)
    assert torch.allclose(features[0], seen.hidden_states[1][:, 1:], atol=1e-5)
    assert torch.allclose(embeds, F.normalize(seen.pooler_output @ clip.visual_projection.t(), dim=1), atol=1e-6)
    dino = encoders["dino"]
    features, embeds = dino.features(pictures, [2])
    assert features[0].shape == (2, 64, 32) and embeds is None and not dino.reads_text
    with pytest.raises(SSRError, match="layers 1 to 2, not 3"):
        dino.features(pictures, [3])


@torch.no_grad()
def test_the_embedded_encoders():
    config = StudyConfig.load("mini")
    clip = load_encoder(config, "clip")
    assert (clip.size, clip.grid, clip.depth) == (128, 16, 6) and scales(config, clip.depth) == [1, 2, 4, 6]
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert clip.text_embeds(["a cat"]).shape == (1, 192)
    with pytest.raises(SSRError, match="setting B needs a DINO in /none"):
        load_encoder(StudyConfig.load("mini", ["dino=/none"]), "dino")


def test_full_scale_reads_the_subject_encoders_layers():
    assert scales(StudyConfig.load("paper"), 24) == [4, 8, 12, 16, 20, 24]
    assert scales(StudyConfig.load("paper", ["hidden_layers=[8, 24]"]), 24) == [8, 24]
