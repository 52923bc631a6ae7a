"""The encoder: queries of every kind to subjects, parts loaded and saved, the hub."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionModel

from ssr_encoder import SSREncoder, SSRError, SubjectModel
from ssr_encoder.checkpoint import CONFIG, RELEASED, WEIGHTS, load_model
from ssr_encoder.loading import resolve

GRID, TOKENS = 8, 24  # patches a side of the vision encoder; K * L subject tokens


def square() -> Image.Image:
    image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    image.paste((220, 30, 30), (8, 8, 24, 24))
    image.paste((220, 30, 30), (40, 8, 56, 24))  # the same thing twice
    return image


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# -- queries
def test_a_text_query(encoder):
    subject = encoder.encode(square(), "cat")
    assert subject.tokens.shape == subject.unconditional_tokens.shape == (TOKENS, 32)
    assert subject.tokens.dtype == torch.float32 and subject.tokens.device.type == "cpu"
    assert subject.attention.shape == (GRID, GRID) and 0 < subject.attention.sum() <= 1
    assert (subject.query, subject.size, subject.fingerprint) == ("cat", (64, 64), encoder.fingerprint)
    assert torch.equal(encoder.encode(square(), "cat").tokens, subject.tokens)
    assert differ(encoder.encode(square(), "dog").tokens, subject.tokens) > 0.01
    assert differ(encoder.encode(square().rotate(90), "cat").tokens, subject.tokens) > 0.01


def test_a_text_query_by_hand(encoder, image_encoder, text_encoder, tokenizer):
    """From pixels and words to tokens and the map, without the encoder's own code."""
    config = encoder.config
    pixels = torch.from_numpy(np.asarray(square().resize((48, 48), Image.Resampling.BICUBIC, reducing_gap=3.0)) / 255)
    pixels = (pixels.float() - torch.tensor(config.image_mean)) / torch.tensor(config.image_std)
    ids = tokenizer("a cat", padding="max_length", max_length=12, return_tensors="pt").input_ids
    with torch.no_grad():
        states = image_encoder(pixels.permute(2, 0, 1)[None], output_hidden_states=True).hidden_states
        hidden = [states[i] for i in config.hidden_layers]
        tokens, _, attention = encoder.model.aligner(text_encoder(ids).last_hidden_state, hidden)
    subject = encoder.encode(square(), "a cat")
    torch.testing.assert_close(subject.tokens, tokens[0], atol=1e-5, rtol=1e-5)
    seen = attention[0, :, 1:3, 1:].mean((0, 1)).unflatten(0, (GRID, GRID))  # the two words' own tokens
    torch.testing.assert_close(subject.attention, seen, atol=1e-6, rtol=1e-5)


def test_unconditional_tokens(encoder):
    first, second = encoder.encode(square(), "cat"), encoder.encode(square().rotate(90), "dog")
    assert torch.equal(first.unconditional_tokens, second.unconditional_tokens)
    with torch.no_grad():
        hidden = encoder._hidden_states(torch.zeros(1, 3, 48, 48))
        tokens = encoder.model.aligner(encoder._query_embeds(""), hidden)[0][0]
    assert torch.equal(first.unconditional_tokens, tokens)


@pytest.mark.parametrize("query", [None, "cat"])
@pytest.mark.parametrize("kind", ["mask", "box", "point"])
def test_region_queries(encoder, kind, query):
    mask = np.zeros((64, 64), bool)
    mask[8:24, 8:24] = True
    region = {"mask": mask, "box": (8, 8, 24, 24), "point": (16, 16)}[kind]
    subject = encoder.encode(square(), query, **{kind: region})
    assert subject.query == (query or "")
    inside = torch.zeros(GRID, GRID, dtype=bool)
    inside[1:3, 1:3] = True  # patches of 8 pixels
    assert (subject.attention[~inside] == 0).all() and subject.attention[inside].sum() == pytest.approx(1, abs=1e-4)
    assert differ(subject.tokens, encoder.encode(square(), "cat").tokens) > 0.01
    if query:
        assert differ(subject.tokens, encoder.encode(square(), **{kind: region}).tokens) > 0.01


def test_two_subjects_of_one_class_are_separable(encoder):
    """By box, point or mask; the maps do not even touch."""
    masks = [np.zeros((64, 64)) for _ in range(2)]
    masks[0][8:24, 8:24], masks[1][8:24, 40:56] = 1, 1
    for pair in (
        [{"box": (8, 8, 24, 24)}, {"box": (40, 8, 56, 24)}],
        [{"point": (16, 16)}, {"point": (48, 16)}],
        [{"mask": mask} for mask in masks],
    ):
        one, two = (encoder.encode(square(), "cat", **region) for region in pair)
        assert differ(one.tokens, two.tokens) > 0.01
        assert not (one.attention * two.attention).any()


@pytest.mark.parametrize("value", [5.0, 1e30, float("nan")])
def test_patches_outside_have_no_influence(encoder, value):
    """Whatever the vision encoder says of them: the tokens stay the same to the last bit."""
    mask = np.zeros((64, 64))
    mask[8:24, 12:24] = 0.7  # also patches that are covered in part
    expected = encoder.encode(square(), "cat", mask=mask)
    outside = torch.ones(1 + GRID * GRID, dtype=bool)
    outside[1:].view(GRID, GRID)[1:3, 1:3] = False
    assert outside[0], "the class token is outside too"

    def disturb(_, __, output):
        for hidden in output.hidden_states:
            hidden[:, outside] = value
        return output

    hook = encoder.image_encoder.register_forward_hook(disturb)
    try:
        found = encoder.encode(square(), "cat", mask=mask)
        whole = encoder.encode(square(), "cat")
    finally:
        hook.remove()
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.attention, expected.attention)
    assert not torch.equal(whole.tokens, encoder.encode(square(), "cat").tokens)


@pytest.mark.parametrize("size", [(96, 48), (30, 90), (64, 8), (640, 63)])
def test_padding_is_not_read(encoder, size):
    image = square().resize(size)
    subject = encoder.encode(image, "cat")
    width, height = size
    rows, columns = (torch.arange(GRID) + 0.5 for _ in range(2))
    side = max(size)
    inside = ((rows / GRID * side - side / 2).abs() < height / 2 + side / GRID / 2)[:, None]
    inside = inside & ((columns / GRID * side - side / 2).abs() < width / 2 + side / GRID / 2)[None]
    assert (subject.attention[~inside] == 0).all() and subject.attention.sum() > 0
    assert subject.selection().shape == (height, width)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), width=st.integers(8, 90), height=st.integers(8, 90))
def test_any_box_or_point_on_any_picture(encoder, data, width, height):
    """A finite subject, read nowhere but around the region."""
    image = square().resize((width, height))
    x0, y0 = data.draw(st.floats(-5, width - 1e-5)), data.draw(st.floats(-5, height - 1e-5))
    x1 = data.draw(st.floats(max(x0, 0) + 1e-6, width + 5))
    y1 = data.draw(st.floats(max(y0, 0) + 1e-6, height + 5))
    x, y = max(x0, 0), max(y0, 0)
    side, disc = max(width, height), encoder.config.point_radius * max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    for region, (a, b, c, d) in (
        ({"box": (x0, y0, x1, y1)}, (x0, y0, x1, y1)),
        ({"point": (x, y)}, (x - disc, y - disc, x + disc, y + disc)),
    ):
        subject = encoder.encode(image, "cat", **region)
        assert subject.tokens.isfinite().all()
        assert subject.attention.sum() == pytest.approx(1, abs=1e-3)
        rows, columns = torch.nonzero(subject.attention, as_tuple=True)
        slack, patch = 1.5, side / GRID  # a pixel that two patches share counts for both
        assert (columns.min() + 1) * patch >= a + left - slack and columns.max() * patch <= c + left + slack
        assert (rows.min() + 1) * patch >= b + top - slack and rows.max() * patch <= d + top + slack


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({}, "query is empty"),
        ({"query": "  "}, "query is empty"),
        ({"query": 7}, "query is a int"),
        ({"query": "cat " * 10_000}, "10000 words.*name the subject in a word or two"),
        ({"query": "cat", "box": (0, 0, 9, 9), "point": (3, 3)}, "box and point were given"),
        ({"query": "cat", "mask": np.zeros((64, 64))}, "mask is empty"),
        ({"mask": np.ones((32, 64))}, "same size"),
        ({"mask": "nowhere.png"}, "does not exist"),
        ({"box": (0, 0, 9)}, "not 4 numbers"),
        ({"box": "left"}, "not 4 numbers"),
        ({"box": (0, 0, float("nan"), 9)}, "not 4 numbers"),
        ({"box": (9, 9, 9, 20)}, "is empty"),
        ({"box": (20, 9, 9, 20)}, "is empty"),
        ({"box": (64, 0, 80, 20)}, "outside the picture of 64 x 64"),
        ({"box": (-9, -9, 0, 0)}, "outside the picture"),
        ({"point": (64, 3)}, "not on the picture"),
        ({"point": (-0.1, 3)}, "not on the picture"),
        ({"point": (3, float("inf"))}, "not 2 numbers"),
        ({"point": 3}, "not 2 numbers"),
    ],
)
def test_bad_queries(encoder, arguments, match):
    with pytest.raises(SSRError, match=match) as error:
        encoder.encode(square(), **arguments)
    assert "\n" not in str(error.value)


def test_a_point_of_no_radius(encoder, subject_config):
    """Whatever the configuration says, something is read."""
    model = copy.deepcopy(encoder.model)
    model.config = dataclasses.replace(subject_config, point_radius=0.0)
    small = SSREncoder(model, encoder.text_encoder, encoder.tokenizer, encoder.image_encoder)
    for point in ((0, 0), (8, 8), (15.9, 15.9)):
        assert small.encode(square().resize((16, 16)), point=point).tokens.isfinite().all()


# -- conditioning
def test_conditioning(encoder, subjects):
    assert encoder.conditioning([]) == {} == encoder.conditioning([s.with_(scale=0) for s in subjects])
    pack = encoder.conditioning(subjects)["ip_adapter_image_embeds"]
    total = 2 * sum(encoder.config.layers.values())
    assert [tuple(p.shape) for p in pack] == [(2, 1, 2 * TOKENS, total)]
    assert encoder.conditioning(subjects, guidance=False)["ip_adapter_image_embeds"][0].shape[0] == 1
    layers = len(encoder.config.layers)
    mixed = encoder.conditioning([subjects[0], subjects[1].with_(scale=0.1)])["ip_adapter_image_embeds"][0]
    assert mixed.shape[-1] == total + layers
    timed = encoder.conditioning([subjects[0], subjects[1].with_(steps=(0, 0.5))])["ip_adapter_image_embeds"][0]
    assert timed.shape[-1] == total + layers + 2
    assert encoder.conditioning(subjects, dtype=torch.float16)["ip_adapter_image_embeds"][0].dtype == torch.float16
    default = encoder.conditioning([s.with_(scale=encoder.config.subject_scale) for s in subjects])
    assert torch.equal(default["ip_adapter_image_embeds"][0], pack[0])
    with pytest.raises(SSRError, match="size="):
        encoder.conditioning([subjects[0].with_(region=(0, 0, 0.5, 1))])
    regions = encoder.conditioning([subjects[0].with_(region=(0, 0, 0.5, 1)), subjects[1]], size=(32, 48))
    masks = regions["cross_attention_kwargs"]["ip_adapter_masks"][0]
    assert masks.shape == (1, 2, 32, 48) and masks[0, 1].all() and masks[0, 0].sum() == 32 * 24


def test_several_subjects_have_a_default_strength_of_their_own(encoder, subjects, subject_config):
    model = copy.copy(encoder.model)
    model.config = dataclasses.replace(subject_config, several_scale=1.7)
    other = SSREncoder(model, encoder.text_encoder, encoder.tokenizer, encoder.image_encoder)

    def pack(ssr, *given):
        return ssr.conditioning(given)["ip_adapter_image_embeds"][0]

    first, second = subjects
    assert torch.equal(pack(other, first, second), pack(encoder, first.with_(scale=1.7), second.with_(scale=1.7)))
    mixed = pack(encoder, first.with_(scale=1.7), second.with_(scale=0.1))
    assert torch.equal(pack(other, first, second.with_(scale=0.1)), mixed)
    assert not torch.equal(pack(other, first, second), pack(encoder, first, second))
    alone = pack(encoder, first)  # and one at 0 is as if it were left out
    assert torch.equal(pack(other, first), alone) and torch.equal(pack(other, first, second.with_(scale=0)), alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder, encoder, dtype):
    half = SSREncoder.from_pretrained(folder, device="cpu", dtype=dtype)
    assert half.dtype == half.text_encoder.dtype == half.image_encoder.dtype == dtype
    assert half.fingerprint == encoder.fingerprint, "it reads the subjects of the same weights in float32"
    full = encoder.encode(square(), "cat", box=(8, 8, 24, 24))
    found = half.encode(square(), "cat", box=(8, 8, 24, 24))
    assert found.tokens.dtype == torch.float32
    assert (found.tokens - full.tokens).abs().mean() < 0.1 * full.tokens.abs().mean()
    assert half.conditioning([full])["ip_adapter_image_embeds"][0].dtype == dtype


# -- loading and saving
def test_a_folder_with_its_base_beside_it(folder, encoder, subjects):
    loaded = SSREncoder.from_pretrained(folder, device="cpu")
    assert loaded.fingerprint == encoder.fingerprint
    assert torch.equal(loaded.encode(square(), "cat").tokens, encoder.encode(square(), "cat").tokens)
    loaded.pipe.set_progress_bar_config(disable=True)
    assert loaded.pipe.text_encoder is loaded.text_encoder
    pictures = loaded.generate("a cat", subjects, num_inference_steps=1, seed=0)
    assert len(pictures) == 1 and pictures[0].size == (64, 64)


def test_save_elsewhere_and_load_again(folder, subjects, tmp_path):
    loaded = SSREncoder.from_pretrained(folder, device="cpu")
    loaded.save_pretrained(tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [CONFIG, WEIGHTS]
    again = SSREncoder.from_pretrained(tmp_path / "copy", device="cpu")
    assert again.fingerprint == loaded.fingerprint, "subjects of the one are subjects of the other"
    again.pipe.set_progress_bar_config(disable=True)
    common = {"num_inference_steps": 1, "seed": 0, "output_type": "np"}
    assert np.array_equal(again.generate("a cat", subjects, **common), loaded.generate("a cat", subjects, **common))
    assert json.loads((folder / CONFIG).read_text())["base_model"] == ".", "the original is untouched"


def test_other_parts(folder, encoder, pipe, image_encoder, tmp_path, monkeypatch):
    assert SSREncoder.from_pretrained(folder, base=pipe, device="cpu").pipe is pipe
    encoder.remove(pipe)
    image_encoder.save_pretrained(tmp_path / "vision")
    monkeypatch.chdir(tmp_path)
    loaded = SSREncoder.from_pretrained(folder, base=folder, image_encoder="./vision", device="cpu")
    assert torch.equal(loaded.encode(square(), "cat").tokens, encoder.encode(square(), "cat").tokens)


def test_parts_that_do_not_belong_together(folder, encoder, subject_config, image_encoder, tmp_path):
    parts = (encoder.text_encoder, encoder.tokenizer, encoder.image_encoder)
    for changes, match in (
        ({"query_dim": 40}, "text encoder is 32 wide, this subject encoder was trained with 40"),
        ({"image_dim": 40}, "image encoder is 48 wide"),
        ({"hidden_layers": [1, 9]}, "too few layers"),
    ):
        with pytest.raises(SSRError, match=match):
            SSREncoder(SubjectModel(dataclasses.replace(subject_config, **changes)), *parts)
    narrow = copy.deepcopy(image_encoder.config)
    narrow.hidden_size, narrow.num_attention_heads = 16, 2
    CLIPVisionModel(narrow).save_pretrained(tmp_path / "narrow")
    with pytest.raises(SSRError, match="image encoder is 16 wide"):
        SSREncoder.from_pretrained(folder, image_encoder=tmp_path / "narrow", device="cpu")


def test_parts_that_are_not_there(folder, tmp_path):
    for arguments, match in (
        ({"base": tmp_path / "none"}, "cannot load text_encoder of"),
        ({"image_encoder": tmp_path / "none"}, "cannot load .*none"),
        ({"base": tmp_path / "none.safetensors"}, "does not exist"),
    ):
        with pytest.raises(SSRError, match=match) as error:
            SSREncoder.from_pretrained(folder, device="cpu", **arguments)
        assert "\n" not in str(error.value)
    save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(SSRError, match="base checkpoint .*cut.safetensors cannot be loaded"):
        SSREncoder.from_pretrained(folder, base=tmp_path / "cut.safetensors", device="cpu")


@pytest.mark.parametrize("name", ["no_such_folder", "./none", "/none/such", "a/b/c"])
def test_names_that_are_nothing(name):
    with pytest.raises(SSRError, match="not a folder"):
        resolve(name)


def test_names(folder):
    assert resolve("mini").parts[-2:] == ("mini", "weights") and resolve(folder) == folder
    with pytest.raises(SSRError, match="not a folder"):
        resolve(folder / WEIGHTS)


def test_the_released_layout(tmp_path, conformance):
    """A folder with the two released files is an encoder of Stable Diffusion 1.5's sizes."""
    torch.save(conformance.aligner_state_dict(), tmp_path / RELEASED[0])
    torch.save(conformance.layers_state_dict(), tmp_path / RELEASED[1])
    config = load_model(tmp_path).config
    assert (config.base_model, config.image_encoder) == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "openai/clip-vit-large-patch14",
    )
    assert (config.query_dim, config.image_dim, config.hidden_layers) == (768, 1024, [4, 8, 12, 16, 20, 24])


# -- hub
@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What would have gone to the hub: a list of calls and the uploaded files."""
    calls = []

    def create_repo(self, repo_id, **more):
        calls.append(("create", repo_id, more))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, **more):
        from fnmatch import fnmatch
        from pathlib import Path

        for path in Path(folder_path).rglob("*"):
            name = path.relative_to(folder_path)
            if path.is_file() and any(fnmatch(str(name), pattern) for pattern in allow_patterns):
                (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "hub" / name).write_bytes(path.read_bytes())
        calls.append(("upload", repo_id, more))
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return calls


def test_push_to_hub(encoder, hub, tmp_path):
    assert encoder.push_to_hub("me/cats", private=True, commit_message="first") == "https://hub/commit"
    assert hub == [
        ("create", "me/cats", {"private": True, "exist_ok": True}),
        ("upload", "me/cats", {"commit_message": "first"}),
    ]
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [CONFIG, WEIGHTS]
    assert load_model(tmp_path / "hub").fingerprint() == encoder.fingerprint


@pytest.mark.parametrize("name", ["base_model", "image_encoder"])
def test_parts_on_this_machine_are_not_pushed_by_name(encoder, hub, tmp_path, monkeypatch, name):
    monkeypatch.setattr(encoder.model, "config", dataclasses.replace(encoder.config, **{name: str(tmp_path)}))
    with pytest.raises(SSRError, match=f"{name} is .*hub id first"):
        encoder.push_to_hub("me/cats")
    assert hub == []


def test_save_and_push(encoder, hub, tmp_path):
    encoder.save_pretrained(tmp_path / "cats", push_to_hub=True, repo_id="me/cats")
    encoder.save_pretrained(tmp_path / "dogs", push_to_hub=True)
    encoder.save_pretrained(tmp_path / "birds")
    assert [name for kind, name, _ in hub if kind == "upload"] == ["me/cats", "dogs"]
    assert load_model(tmp_path / "hub").fingerprint() == load_model(tmp_path / "cats").fingerprint()
