"""Weights in and out, and one line about every file that does not fit."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssr_encoder import SSRError
from ssr_encoder.checkpoint import CONFIG, RELEASED, WEIGHTS, load_model, load_released, read_tensors, save_model


@pytest.fixture
def saved(subject_model, tmp_path):
    save_model(subject_model, tmp_path)
    return tmp_path


def refused(call, *arguments, match: str) -> str:
    with pytest.raises(SSRError, match=match) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_round_trip(subject_model, saved):
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]
    again = load_model(saved)
    assert again.config == subject_model.config and again.fingerprint() == subject_model.fingerprint()
    for name, value in subject_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert not any(p.requires_grad for p in again.parameters()) and not again.training


def test_half_precision(subject_model, tmp_path):
    save_model(subject_model, tmp_path, torch.float16)
    assert {v.dtype for v in load_file(tmp_path / WEIGHTS).values()} == {torch.float16}
    again = load_model(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again.aligner.to_q.weight, subject_model.aligner.to_q.weight, atol=1e-3, rtol=1e-3)
    save_model(again, tmp_path / "copy")
    assert load_model(tmp_path / "copy").fingerprint() == again.fingerprint()


def test_fingerprint(subject_model, saved):
    """Where the base lies is not part of an encoder's identity; its aligner's weights and sizes are."""
    before = subject_model.fingerprint()
    again = load_model(saved)
    again.config = dataclasses.replace(again.config, base_model="/elsewhere", image_encoder="x", guidance_scale=9.0)
    assert again.fingerprint() == before and len(before) == 16
    with torch.no_grad():
        again.aligner.norm.bias[0] += 1
    assert again.fingerprint() != before
    again = load_model(saved)
    again.config = dataclasses.replace(again.config, hidden_layers=[2, 3])
    assert again.fingerprint() != before


def test_tensors_that_do_not_fit(saved):
    good = load_file(saved / WEIGHTS)
    first, norm, other = "aligner.to_q.weight", "aligner.norm.bias", "aligner.to_v.1.weight"

    def attempt(state, match):
        save_file({k: v.contiguous() for k, v in state.items()}, saved / WEIGHTS)
        return refused(load_model, saved, match=match)

    message = attempt({k: v for k, v in good.items() if k not in (first, norm)}, "2 missing")
    assert f"{first} (24, 32)" in message and f"{norm} (32,)" in message and WEIGHTS in message
    message = attempt({**good, "extra.weight": torch.zeros(3, 2)}, "1 superfluous")
    assert "extra.weight (3, 2)" in message
    message = attempt({**good, other: torch.zeros(24, 5)}, "1 of another shape")
    assert f"{other} (24, 5), expected (24, 48)" in message
    many = {k: v for k, v in good.items() if not k.startswith("key_values")}
    message = attempt(many, "missing")
    assert message.count("attn2") == 3 and "; ..." in message and len(message) < 600
    attempt({**good, norm: torch.full((32,), float("nan"))}, f"not numbers in {norm}")
    attempt({**good, norm: torch.full((32,), float("inf"))}, f"not numbers in {norm}")
    save_file(good, saved / WEIGHTS)
    load_model(saved)


@pytest.mark.parametrize(
    "config, match",
    [
        ({"num_tokens": 6}, "unknown key num_tokens"),
        ({"heads": "three"}, "heads"),
        ({"layers": {"mid_block": -1}}, "layers"),
        ({"hidden_layers": 4}, "hidden_layers"),
        ({"heads": 4}, "of another shape"),
        ("[1, 2]", "not a JSON object"),
        ('{"heads": 3', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_configs(saved, config, match):
    if isinstance(config, dict):
        config = json.dumps({**json.loads((saved / CONFIG).read_text()), **config})
    (saved / CONFIG).write_bytes(config if isinstance(config, bytes) else config.encode())
    refused(load_model, saved, match=match)


def test_missing_files(saved, tmp_path_factory):
    (saved / WEIGHTS).unlink()
    refused(load_model, saved, match="holds no subject encoder")
    refused(load_model, tmp_path_factory.mktemp("empty"), match="holds no subject encoder")
    refused(load_model, saved / "nowhere", match="holds no subject encoder")
    refused(load_released, saved / "a.bin", saved / "b.bin", match="a.bin does not exist")


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_truncated_files(saved, subject_model, share):
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[: int(len(data) * share)])
    refused(load_model, saved, match=f"{WEIGHTS} is damaged")
    for name, old in (("new.bin", False), ("old.bin", True)):
        torch.save(subject_model.state_dict(), saved / name, _use_new_zipfile_serialization=not old)
        assert read_tensors(saved / name).keys() == subject_model.state_dict().keys()
        data = (saved / name).read_bytes()
        (saved / name).write_bytes(data[: int(len(data) * share)])
        refused(read_tensors, saved / name, match=f"{name} is damaged")


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_cannot_run_code(tmp_path, plain):
    mark, file = tmp_path / "ran", tmp_path / "pytorch_model.bin"
    if plain:
        file.write_bytes(pickle.dumps({"a": Bomb(mark)}, protocol=2))
    else:
        torch.save({"a": torch.zeros(2), "b": Bomb(mark)}, file)
    refused(read_tensors, file, match="not loaded, as such a file can run any code|damaged")
    assert not mark.exists()
    torch.load(file, weights_only=False) if not plain else pickle.loads(file.read_bytes())
    assert mark.exists(), "the file of this test is harmless"


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 3}, {"state_dict": {"a": torch.zeros(2)}}, torch.zeros(3)])
def test_files_that_hold_something_else(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    refused(read_tensors, tmp_path / "x.bin", match="not a dictionary of tensors")


def test_garbage(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for i in range(60):
        name = tmp_path / ("x.bin" if i % 2 else "x.safetensors")
        head = (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00(")[i % 4]
        name.write_bytes(head + bytes(torch.randint(0, 256, (200,), generator=generator).tolist()))
        refused(read_tensors, name, match="damaged|not a dictionary|was not loaded")


def test_released_files_that_do_not_fit(conformance, tmp_path):
    aligner, layers = (tmp_path / name for name in RELEASED)
    torch.save(conformance.aligner_state_dict(), aligner)
    state = conformance.layers_state_dict()
    del state["31.to_k_SSR.weight"]
    torch.save(state, layers)
    message = refused(load_model, tmp_path, match="1 missing")
    assert "31.to_k_SSR.weight (1280, 768)" in message and "pytorch_model.bin and pytorch_model_1.bin" in message
    layers.unlink()
    refused(load_model, tmp_path, match="holds no subject encoder")


def test_unwritable_places(subject_model, tmp_path):
    (tmp_path / "file").write_text("")
    refused(save_model, subject_model, tmp_path / "file", match="cannot write")
    refused(save_model, subject_model, tmp_path / "file" / "below", match="cannot write")
