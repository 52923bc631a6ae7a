"""Subjects as values: checked, copied, saved, loaded, refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ssr_encoder import SSRError, Subject

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def subject() -> Subject:
    attention = torch.zeros(8, 8)
    attention[2:4, 1:3] = 0.2
    return Subject(torch.randn(24, 32), torch.randn(24, 32), attention, (96, 64), "cat", "0123456789abcdef")


def same(a: Subject, b: Subject) -> bool:
    for f in dataclasses.fields(Subject):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if not (torch.is_tensor(x) and torch.is_tensor(y) and torch.equal(x, y) if torch.is_tensor(x) else x == y):
            return False
    return True


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale": 0.0},
        {"scale": 1, "layer_scales": {"down": 0.5, "up_blocks.1": 2}, "steps": (0.1, 0.6)},
        {"region": (0, 0.25, 0.5, 1)},
        {"region": torch.rand(5, 7)},
        {"region": torch.eye(6, dtype=torch.bool)},
    ],
)
def test_round_trip(subject, tmp_path, changes):
    subject = subject.with_(**changes)
    subject.save(tmp_path / "cat.safetensors")
    again = Subject.load(tmp_path / "cat.safetensors")
    assert same(again, subject)
    assert [p.name for p in tmp_path.iterdir()] == ["cat.safetensors"], "nothing is left beside"


def test_others_can_read_what_they_can_read_of_other_files(subject, tmp_path):
    subject.save(tmp_path / "fox.safetensors")
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("fox.safetensors", "other")]
    assert modes[0] == modes[1]


def test_with_makes_a_copy(subject):
    other = subject.with_(scale=0.3)
    assert subject.scale is None and other.scale == 0.3 and other.tokens is subject.tokens
    with pytest.raises(dataclasses.FrozenInstanceError):
        subject.scale = 1.0
    assert subject.with_(steps=[0, 0.5]).steps == (0.0, 0.5)
    region = subject.with_(region=np.eye(4)).region
    assert torch.is_tensor(region) and region.sum() == 4


@pytest.mark.parametrize("scale", [NAN, INF, -INF, -1, 1e9, -0.001, 10.5, "1", [1]])
def test_bad_scales(subject, scale):
    for change in ({"scale": scale}, {"layer_scales": {"up": scale}}):
        with pytest.raises(SSRError, match="give a number from 0 to 10"):
            subject.with_(**change)


@pytest.mark.parametrize(
    "steps", [(0.5, 0.5), (0.6, 0.2), (-0.1, 1), (0, 1.01), (NAN, 1), (0, NAN), (0,), 0.5, "ab", None]
)
def test_bad_steps(subject, steps):
    with pytest.raises(SSRError, match="give 0 <= start < stop <= 1"):
        subject.with_(steps=steps)


@pytest.mark.parametrize(
    "region",
    [
        (0.5, 0, 0.5, 1), (0, 0.7, 1, 0.2), (-0.1, 0, 1, 1), (0, 0, 64, 64), (0, 0, NAN, 1), (0, 0, 1), "left", 3,
        torch.zeros(4, 4), torch.ones(4), torch.full((4, 4), NAN), torch.full((4, 4), 255), torch.ones(0, 4),
        np.zeros((4, 4)), np.ones((4, 4, 3)),
    ],
)  # fmt: skip
def test_bad_regions(subject, region):
    with pytest.raises(SSRError, match="output region"):
        subject.with_(region=region)


def test_layer_factor(subject):
    subject = subject.with_(layer_scales={"up": 2.0, "up_blocks.1": 0.5})
    found = [subject.layer_factor(f"{n}.attentions.0") for n in ("down_blocks.0", "up_blocks.0", "up_blocks.1")]
    assert found == [1.0, 2.0, 0.5]


def test_region_masks(subject):
    assert torch.equal(subject.region_mask(6, 8), torch.ones(6, 8))
    left = subject.with_(region=(0, 0, 0.5, 1)).region_mask(6, 8)
    assert left[:, :4].all() and not left[:, 4:].any()
    mask = torch.zeros(12, 16)
    mask[:6] = 1
    for size in ((12, 16), (6, 8), (24, 32)):
        found = subject.with_(region=mask).region_mask(*size)
        assert found.shape == size and found[: size[0] // 2].all() and not found[size[0] // 2 :].any()


def test_selection_lies_on_the_picture(subject, picture):
    found = subject.selection()
    assert found.shape == (64, 96) and found.min() == 0 and found.max() == pytest.approx(1, abs=0.1)
    # Patches 2..3 of 8 down and 1..2 across a square of 96, with 16 rows of padding above the picture.
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 24 - 16 <= row < 48 - 16 and 12 <= column < 36
    assert found[:, 60:].max() < 0.05 and found[45:].max() < 0.05


def test_heat_map(subject, picture):
    heat = subject.heat_map(picture)
    assert heat.size == picture.size and heat.mode == "RGB"
    values = np.asarray(heat, dtype=float).sum(-1)
    assert values[10:30, 14:34].mean() > 2 * values[10:30, 64:].mean()
    with pytest.raises(SSRError, match="96 x 64"):
        subject.heat_map(picture.resize((48, 32)))


# -- files
def rewritten(path, **changes) -> None:
    """The subject file with other metadata (str) or tensors; None takes an entry out."""
    with safe_open(path, "pt") as file:
        meta, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in changes.items():
        home = tensors if name in tensors else meta
        home.pop(name, None)
        if value is not None:
            home[name] = value
    save_file(tensors, path, meta)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"format": "ssr-subject-99"}, "not a subject file"),
        ({"format": None}, "not a subject file"),
        ({"tokens": None}, "tokens"),
        ({"attention": None}, "attention"),
        ({"tokens": torch.zeros(24, 31)}, "shape"),
        ({"attention": torch.zeros(3)}, "shape"),
        ({"tokens": torch.full((24, 32), NAN)}, "not numbers"),
        ({"size": None}, "size"),
        ({"size": "wide"}, "damaged"),
        ({"size": "3"}, "damaged"),
        ({"fingerprint": None}, "fingerprint"),
        ({"scale": "NaN"}, "scale is nan"),
        ({"layer_scales": "[1]"}, "damaged"),
        ({"steps": "[1, 0]"}, "steps"),
        ({"region": '"left"'}, "region"),
    ],
)
def test_damaged_contents(subject, tmp_path, changes, match):
    path = tmp_path / "x.safetensors"
    subject.save(path)
    rewritten(path, **changes)
    with pytest.raises(SSRError, match=match) as error:
        Subject.load(path)
    assert "\n" not in str(error.value)


def test_damaged_files(subject, tmp_path):
    path = tmp_path / "x.safetensors"
    subject.save(path)
    data = path.read_bytes()
    for bad in (b"", data[:4], data[:200], data[:-100], b"\xff" * 500, json.dumps({"tokens": 1}).encode()):
        path.write_bytes(bad)
        with pytest.raises(SSRError, match="is damaged.*encode the subject again"):
            Subject.load(path)
    with pytest.raises(SSRError, match="does not exist"):
        Subject.load(tmp_path / "none.safetensors")
    with pytest.raises(SSRError, match="does not exist"):
        Subject.load(tmp_path)


def test_unwritable_places(subject, tmp_path):
    with pytest.raises(SSRError, match="cannot write"):
        subject.save(tmp_path / "no" / "folder" / "x.safetensors")
    with pytest.raises(SSRError, match="cannot write"):
        subject.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_models_subject_is_refused(encoder, subjects, subject):
    with pytest.raises(SSRError, match="'cat' was encoded by another model .0123456789abcdef.*encode it again"):
        encoder.conditioning([subjects[0], subject])
    with pytest.raises(SSRError, match="another model .unknown"):
        encoder.conditioning([dataclasses.replace(subject, fingerprint="")])
    with pytest.raises(SSRError, match="another model"):
        encoder.conditioning([subject.with_(scale=0)])
