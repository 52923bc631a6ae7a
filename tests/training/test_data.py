"""What a position gives: the same choices always, and pictures that the flips and crops are right for."""

import numpy as np
import torch
from PIL import Image
from tiny_training import make_sample, write_tar

from ssr_encoder.training.config import DataConfig
from ssr_encoder.training.data import Pictures, Steps, Views, choose, cut, make_loader, query_of
from ssr_encoder.training.order import Order
from ssr_encoder.training.reader import Raw, Reader, list_urls

VIEWS = Views(48, [0.5] * 3, [0.5] * 3)


def test_choices_have_the_asked_for_shares_and_depend_on_the_position_only():
    config = DataConfig(prompt_drop=0.8, subject_drop=0.1, descriptor_query=0.3, crops=3)
    made = [choose(config, 5, p) for p in range(4000)]
    assert made == [choose(config, 5, p) for p in range(4000)]
    assert made[:50] != [choose(config, 6, p) for p in range(50)]
    for values, share in (
        ([c.flip for c in made], 0.5),
        ([c.no_prompt for c in made], 0.8),
        ([c.no_subject for c in made], 0.1),
        ([c.descriptor < 1 for c in made], 0.3),
        ([c.crop == 2 for c in made], 1 / 3),
    ):
        assert abs(np.mean(values) - share) < 0.03


def test_queries_are_the_caption_or_a_descriptor():
    raw = Raw("a", b"", "a cat and a dog", {"descriptors": ["cat", "dog", 3]}, {})
    assert [query_of(raw, f) for f in (0.0, 0.49, 0.5, 0.99, 1.0)] == ["cat", "cat", "dog", "dog", "a cat and a dog"]
    assert query_of(Raw("a", b"", "a cat", {}, {}), 0.5) == "a cat"


def test_cuts():
    ramp = np.zeros((64, 128, 3), dtype=np.uint8)
    ramp[..., 0] = np.arange(128)
    picture = Image.fromarray(ramp)
    centre, ids = cut(picture, "k", 0, False, 64)
    assert ids.tolist() == [64, 128, 0, 32, 64, 64]
    assert np.array(centre)[0, :, 0].tolist() == list(range(32, 96))
    mirrored, mirrored_ids = cut(picture, "k", 0, True, 64)
    assert np.array_equal(np.array(mirrored), np.array(centre)[:, ::-1]) and mirrored_ids[3] == 32
    lefts = set()
    for crop in (1, 2, 3):
        square, ids = cut(picture, "k", crop, False, 64)
        lefts.add(int(ids[3]))
        assert np.array(square)[0, 0, 0] == ids[3]
        assert torch.equal(cut(picture, "k", crop, False, 64)[1], ids)
    assert len(lefts) == 3
    small, ids = cut(picture, "k", 0, False, 32)
    assert small.size == (32, 32) and ids.tolist() == [64, 128, 0, 16, 32, 32]


def test_the_reference_is_the_target(shards, tmp_path):
    reader = Reader(list_urls(str(shards)), tmp_path)
    data = Pictures(reader, Order([5, 7, 4], 0, 2), DataConfig(resolution=48, crops=2), 0, VIEWS)
    item = data[3]
    assert item["weight"] == 1 and item["target"].shape == (3, 48, 48)
    assert torch.allclose(item["target"], item["reference"], atol=1e-5)  # same size, same normalisation
    assert item["prompt"] == make_sample((0, 5, 12)[item["place"].shard] + item["place"].index)["txt"].decode()


def test_what_cannot_be_decoded_weighs_nothing(tmp_path):
    write_tar(tmp_path / "a.tar", [make_sample(0) | {"png": b"not a picture"}, make_sample(1)])
    data = Pictures(Reader([str(tmp_path / "a.tar")], tmp_path), Order([2], 0, 1), DataConfig(resolution=32), 0, VIEWS)
    items = {item["place"].index: item for item in (data[0], data[1])}
    assert (items[0]["weight"], items[1]["weight"]) == (0, 1) and "00000" in items[0]["bad"]
    assert items[0]["target"].shape == items[1]["target"].shape and not items[0]["target"].any()


def test_loader_processes_give_the_same_steps(shards, tmp_path):
    reader = Reader(list_urls(str(shards)), tmp_path)
    data = Pictures(reader, Order([5, 7, 4], 0, 2), DataConfig(resolution=32), 0, VIEWS)
    here, there = (list(make_loader(data, Steps(6, 3, 4, 1, 2), workers)) for workers in (0, 1))
    assert [[item["position"] for item in step] for step in here] == [[8, 9], [12, 13], [16, 17]]
    for a, b in zip(sum(here, []), sum(there, []), strict=True):
        assert a["position"] == b["position"] and torch.equal(a["target"], b["target"])
