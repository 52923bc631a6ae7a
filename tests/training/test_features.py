"""The feature cache: the same numbers as on the fly, resumable, and only for what it was made of."""

import json
from pathlib import Path

import pytest
import torch
from tiny_training import make_sample, make_shards, write_tar

from ssr_encoder.errors import SSRError
from ssr_encoder.training import Trainer, build_cache, estimate_cache
from ssr_encoder.training.features import gather


def cached(new_config, tmp_path, *words, **kwargs):
    words = (f'data.cache="{tmp_path / "cache"}"', 'data.cache_dtype="float32"', *words)
    return new_config(*words, out="cached", **kwargs)


def test_training_from_the_cache_is_training_on_the_fly(new_config, tmp_path):
    config = cached(new_config, tmp_path)
    list(build_cache(config))
    other, trainer = Trainer(new_config()), Trainer(config)
    assert trainer.base.encoders() == [] and len(other.base.encoders()) == 3
    for positions in (range(4), range(16, 20)):
        here, there = (t.features([t.dataset[p] for p in positions]) for t in (other, trainer))
        for name in ("mean", "std", "hidden", "prompt", "query", "weight", "asked"):
            assert torch.allclose(getattr(here, name), getattr(there, name), atol=1e-5), name
    list(other.run())
    list(trainer.run())
    expected = other.learned.tensors()
    for name, value in trainer.learned.tensors().items():
        assert torch.allclose(value, expected[name], atol=1e-4), name


def test_the_estimate_is_the_size(new_config, tmp_path):
    config = cached(new_config, tmp_path, 'data.cache_dtype="bfloat16"')
    size, samples = estimate_cache(config)
    list(build_cache(config))
    written = sum(path.stat().st_size for path in (tmp_path / "cache").glob("0*.safetensors"))
    assert samples == 16 and 0.7 < written / size < 1.3


def test_half_precision_is_near(new_config, tmp_path):
    config = cached(new_config, tmp_path, 'data.cache_dtype="bfloat16"')
    list(build_cache(config))
    trainer, other = Trainer(config), Trainer(new_config())
    there = gather(trainer.base, [trainer.dataset[p] for p in range(4)], trainer.blank)
    here = other.features([other.dataset[p] for p in range(4)])
    assert there.hidden.dtype == torch.float32
    assert torch.allclose(here.hidden, there.hidden, atol=0.05, rtol=0.01)


def test_a_stopped_cache_is_finished_and_not_made_again(new_config, tmp_path):
    config = cached(new_config, tmp_path)
    for _ in build_cache(config):
        break
    with pytest.raises(SSRError, match="2 of 3 files .* are missing"):
        Trainer(config)
    files = sorted((tmp_path / "cache").glob("0*.safetensors"))
    first = files[0].stat().st_mtime_ns
    list(build_cache(config))
    assert files[0].stat().st_mtime_ns == first
    Trainer(config)


def test_features_of_something_else_are_refused(new_config, tmp_path):
    list(build_cache(cached(new_config, tmp_path)))
    for word, message in (("data.crops=1", "crops"), ("base.hidden_layers=[1,2]", "hidden_layers")):
        with pytest.raises(SSRError, match=f"are of another .*{message}"):
            Trainer(cached(new_config, tmp_path, word))
    with pytest.raises(SSRError, match="no feature cache"):
        Trainer(new_config(f'data.cache="{tmp_path}/none"'))


def test_bad_samples_stay_bad(new_config, tmp_path):
    folder = make_shards(tmp_path / "bad", (4,))
    write_tar(folder / "000000.tar", [make_sample(i) | ({"png": b"no"} if i == 1 else {}) for i in range(4)])
    config = cached(new_config, tmp_path, data=folder)
    list(build_cache(config))
    data = Trainer(config).dataset
    items = {item["place"].index: item for item in (data[p] for p in range(4))}
    assert [items[i]["weight"] for i in range(4)] == [1, 0, 1, 1] and "00001" in items[1]["bad"]
    file = next(Path(config.data.cache).glob("0*.json"))
    note = json.loads(file.read_text())
    file.write_text("{")
    data._open.clear()
    assert "damaged" in data[0]["bad"] and note["samples"][1]["bad"]
