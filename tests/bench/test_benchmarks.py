"""Benchmarks: what is read out of folders and drawn from the embedded world, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from bench_pieces import make_dreambench, make_multi_subject, prompt_file
from PIL import Image

from ssr_encoder import SSRError
from ssr_encoder.bench.benchmark import first_by_hash, list_cards, load_benchmark, read_card
from ssr_encoder.bench.dreambench import read_table
from ssr_encoder.curation.candidates import write_bench
from ssr_encoder.curation.shards import Sample, write_shard
from ssr_encoder.images import open_picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path) -> Path:
    return make_dreambench(tmp_path / "dreambooth")


@pytest.fixture(scope="module")
def several():
    return load_benchmark("mini-multi-subject")


@pytest.fixture(scope="module")
def alone():
    return load_benchmark("mini-dreambench")


def test_every_card_is_whole():
    cards = list(list_cards())
    assert {"dreambench", "multi-subject", "humans", "rare", "mini-multi-subject", "mini-dreambench"} == {
        card["name"] for card in cards
    }
    assert all(card["paper"] and card["citation"] and card["version"] >= 1 for card in cards)


# -- dreambench
def test_dreambench_is_read_as_it_is_published(data):
    benchmark = load_benchmark("dreambench", data=data)
    assert len(benchmark.items) == 50 and benchmark.subjects == ["dog2", "can"] and benchmark.num_images == 6
    dog, can = benchmark.items[:25], benchmark.items[25:]
    assert all(i.tags == ("live",) and i.class_name == "dog" and i.query == {"query": "dog"} for i in dog)
    assert all(i.tags == ("object",) and i.class_name == "can" for i in can)
    assert dog[0].template == "a {} in the jungle" and dog[0].prompt == "a dog in the jungle"
    assert (
        dog[10].prompt == "a dog wearing a red hat" and can[10].prompt == "a can with a wheat field in the background"
    )
    assert dog[24].prompt == "a cube shaped dog"
    assert dog[0].reference.open().tobytes() == open_picture(data / "dog2" / "00.png").tobytes()
    assert dog[0].mask() is None and dog[0].truth is None
    seeds = [seed for item in benchmark.items for seed in item.seeds]
    assert len(set(seeds)) == len(seeds) == 300
    assert all(re.fullmatch(r"[a-z0-9_-]+", item.key) for item in benchmark.items)


def test_another_reference_picture_can_be_taken(data):
    first, second = (load_benchmark("dreambench", data=data, reference=number) for number in (0, 1))
    assert second.items[0].reference.open().tobytes() == open_picture(data / "dog2" / "01.png").tobytes()
    assert first.digest() != second.digest()
    with pytest.raises(SSRError, match="has 2 pictures; reference 2 is not there"):
        load_benchmark("dreambench", data=data, reference=2)


@pytest.mark.skipif("SSR_DREAMBENCH" not in os.environ, reason="SSR_DREAMBENCH names no copy of the dataset")
def test_the_real_dataset():
    benchmark = load_benchmark("dreambench", data=os.environ["SSR_DREAMBENCH"])
    assert len(benchmark.subjects) == 30 and len(benchmark.items) == 750
    assert len({item.subject for item in benchmark.items if "live" in item.tags}) == 9  # the paper's count
    for item in benchmark.items[::25]:
        assert min(item.reference.open().size) >= 64


def test_missing_files_are_named(data):
    shutil.rmtree(data / "can")
    with pytest.raises(SSRError, match="can is missing, a subject of the table"):
        load_benchmark("dreambench", data=data)
    (data / "can").mkdir()
    with pytest.raises(SSRError, match="can has no pictures"):
        load_benchmark("dreambench", data=data)
    shutil.rmtree(data / "can")
    (data / "prompts_and_classes.txt").write_text(prompt_file({"dog2": "dog"}))
    assert len(load_benchmark("dreambench", data=data).items) == 25
    (data / "stranger").mkdir()
    with pytest.raises(SSRError, match="stranger has no class"):
        load_benchmark("dreambench", data=data)
    (data / "prompts_and_classes.txt").unlink()
    with pytest.raises(SSRError, match=r"prompts_and_classes.txt is not there; give the folder"):
        load_benchmark("dreambench", data=data)


def test_a_changed_prompt_file_is_refused(data):
    path = data / "prompts_and_classes.txt"
    text = path.read_text()
    path.write_text(text.replace("\n", "\r\n"))  # the same prompts
    load_benchmark("dreambench", data=data)
    for changed in (
        text.replace("wearing a santa hat", "wearing a paper hat"),
        text.replace("'a shiny {0} {1}'.format(unique_token, class_token),\n", "", 1),
    ):
        assert changed != text
        path.write_text(changed)
        with pytest.raises(SSRError, match="not those of dreambench version 1; restore"):
            load_benchmark("dreambench", data=data)
    path.write_text("something else")
    with pytest.raises(SSRError, match="is not the DreamBooth dataset's prompt file"):
        read_table(path)


def test_the_digest_is_of_the_content(data, tmp_path):
    one = load_benchmark("dreambench", data=data)
    moved = Path(shutil.copytree(data, tmp_path / "elsewhere"))
    assert load_benchmark("dreambench", data=moved).digest() == one.digest()
    assert load_benchmark("dreambench", data=data, seed=1).digest() != one.digest()
    assert load_benchmark("dreambench", data=data, images=1).digest() != one.digest()
    Image.new("RGB", (64, 48), "red").save(moved / "can" / "00.png")
    assert load_benchmark("dreambench", data=moved).digest() != one.digest()


def test_subjects_are_picked_by_hash(alone):
    names = [f"subject-{k}" for k in range(40)]
    few, more = first_by_hash(names, 5), first_by_hash(reversed(names), 20)
    assert few == more[:5] and len(set(more)) == 20 and sorted(few) != names[:5]
    ten = load_benchmark("mini-dreambench", n=10, images=2)
    assert len(ten.subjects) == 10 and set(first_by_hash(alone.subjects, 10)) == set(ten.subjects)
    assert ten.subjects == [name for name in alone.subjects if name in set(ten.subjects)]
    by_key = {item.key: item for item in alone.items}
    assert all(item.seed == by_key[item.key].seed and item.num_images == 2 for item in ten.items)


def test_a_benchmark_that_is_not_there(data, tmp_path):
    for name, arguments, message in (
        ("nothing", {}, "no benchmark 'nothing'; give one of dreambench"),
        ("../secret", {}, "no benchmark"),
        ("dreambench", {}, "give its folder"),
        ("dreambench", {"data": tmp_path / "no"}, "is not a folder"),
        ("mini-dreambench", {"data": data}, "reads no folder"),
    ):
        with pytest.raises(SSRError, match=message):
            load_benchmark(name, **arguments)
    card = tmp_path / "own.yaml"
    card.write_text("name: own\nversion: 1\n")
    with pytest.raises(SSRError, match="title is missing"):
        read_card(str(card))


# -- multi-subject
def test_multi_subject_is_what_bench_candidates_writes(tmp_path, picture):
    picture.save(tmp_path / "image.png")
    found = {"descriptors": ["cat", "hat", "snow"], "clip_score": 0.3}
    sample = Sample("00012", (tmp_path / "image.png").read_bytes(), "png", "a cat with a hat in the snow", found)
    (tmp_path / "candidates").mkdir()
    write_shard(tmp_path / "candidates" / "000000.tar", [sample])
    write_bench(tmp_path / "candidates", ["00012"], tmp_path / "bench", {"ignored": ["snow"]})
    benchmark = load_benchmark("multi-subject", data=tmp_path / "bench")
    assert benchmark.subjects == ["00012-cat", "00012-hat"] and len(benchmark.items) == 12
    assert benchmark.num_images == 6  # section C.2: six prompts, six pictures
    cat, hat = benchmark.items[0], benchmark.items[6]
    assert cat.prompt == "a cat in the snow" and cat.others == ("hat",) and cat.tags == ("live", "two-subjects")
    assert hat.query == {"query": "hat"} and hat.others == ("cat",) and hat.tags[0] == "object"
    assert cat.reference.open().tobytes() == picture.tobytes() and cat.mask() is None


def test_multi_subject_with_masks_and_prompts(tmp_path, picture):
    data = make_multi_subject(tmp_path / "bench")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 30:50] = 255
    Image.fromarray(mask).save(data / "cat.png")
    bench = json.loads((data / "bench.json").read_text())
    bench["items"][0] |= {"masks": {"cat": "cat.png"}, "prompts": {"cat": ["the {} sleeps"]}}
    bench["items"][1]["subjects"] = ["eagle", "woman", "fox"]
    (data / "bench.json").write_text(json.dumps(bench))
    items = {item.key: item for item in load_benchmark("multi-subject", data=data).items}
    assert items["0-cat-00"].prompt == "the cat sleeps" and "0-cat-01" not in items
    assert np.array_equal(items["0-cat-00"].mask(), mask / 255) and items["0-dog-00"].mask() is None
    assert items["1-eagle-00"].prompt == "an eagle in the snow"
    assert items["1-woman-00"].tags == ("live", "three-subjects", "human")


def test_multi_subject_folders_that_are_not(tmp_path):
    with pytest.raises(SSRError, match="bench.json is not there"):
        load_benchmark("multi-subject", data=tmp_path)
    data = make_multi_subject(tmp_path / "bench")
    bench = json.loads((data / "bench.json").read_text())
    for change, message in (
        ({"subjects": ["cat"]}, "item 0 of .* has fewer than two subjects"),
        ({"image": "images/none.png"}, "none.png is missing"),
        ({"prompts": {"cat": ["a cat"]}}, 'prompt .* has no "{}"'),
        ({"subjects": ["big cat", "big  cat"]}, "is there twice"),
        ({"subjects": "cat"}, "is no multi-subject bench"),
    ):
        changed = {**bench, "items": [{**bench["items"][0], **change}]}
        (data / "bench.json").write_text(json.dumps(changed))
        with pytest.raises(SSRError, match=message):
            load_benchmark("multi-subject", data=data)
    for text in ("{", "[]", '{"format": "other", "items": []}'):
        (data / "bench.json").write_text(text)
        with pytest.raises(SSRError, match="is no multi-subject bench"):
            load_benchmark("multi-subject", data=data)


# -- slices
def test_humans_are_a_slice_of_both_layouts(tmp_path):
    data = make_dreambench(tmp_path / "own", {"anna": "woman", "cup": "cup", "dog": "dog"})
    benchmark = load_benchmark("humans", data=data)
    assert benchmark.subjects == ["anna"] and len(benchmark.items) == 25 and benchmark.name == "humans"
    assert benchmark.items[10].prompt == "a woman wearing a red hat"
    several = make_multi_subject(tmp_path / "several")
    with pytest.raises(SSRError, match="no subject in .* is a person"):
        load_benchmark("humans", data=several)
    bench = json.loads((several / "bench.json").read_text())
    bench["items"][0]["subjects"] = ["old man", "dog"]
    (several / "bench.json").write_text(json.dumps(bench))
    assert load_benchmark("humans", data=several).subjects == ["0-old-man"]
    with pytest.raises(SSRError, match="has neither bench.json nor"):
        load_benchmark("humans", data=tmp_path)


def test_rare_tags_items_with_their_frequency(tmp_path):
    data = make_dreambench(tmp_path / "own", {"dog2": "dog", "bear": "stuffed animal", "can": "can"})
    with pytest.raises(SSRError, match="descriptors.json is missing; copy the one that `ssr data describe`"):
        load_benchmark("rare", data=data)
    counted = {"captions": 100, "described": 90, "frequencies": {"dog": 40, "animal": 3}}
    (data / "descriptors.json").write_text(json.dumps(counted))
    tags = {item.subject: item.tags[-1] for item in load_benchmark("rare", data=data).items}
    assert tags == {"dog2": "frequency:40", "bear": "frequency:3", "can": "frequency:0"}


# -- the embedded world
def test_mini_multi_subject_asks_for_every_held_out_subject(several):
    from ssr_encoder.bench.embedded import _world

    world = _world()
    assert several.suite == "mini" and len(several.items) == 6 * len(several.subjects) > 6 * 200
    assert len({item.subject[:3] for item in several.items}) == 100
    for item in several.items[::6]:
        truth = item.truth
        assert world.holdout[truth["concept"], truth["style"], truth["colour"]]
        assert len(truth["others"]) in (1, 2) and truth["concept"] not in truth["others"]
        assert item.others == tuple(world.concepts[c] for c in truth["others"])
    for subject in several.subjects[:20]:
        items = [item for item in several.items if item.subject == subject]
        places = {item.truth["place"] for item in items}
        assert len(places) == len({item.prompt for item in items}) == 6
        assert items[0].reference.describe()["place"] not in places


def test_embedded_references_show_what_the_truth_says(several):
    """The mask is where the subject is: without it, the scene drawn again differs there alone."""
    from ssr_encoder.bench.embedded import _scenes, _world

    for item in several.items[:60:6]:
        reference, mask = item.reference, item.mask()
        scenes = _scenes(reference.kind, reference.world_seed, reference.count)[reference.number]
        scenes.concept = scenes.concept.clone()
        scenes.concept[0, reference.slot] = -1
        without = _world().render(scenes, 128)[0][0].permute(1, 2, 0).numpy()
        changed = np.abs(np.asarray(reference.open()) / 255 - without).max(-1) > 0.1
        assert item.reference.open().size == (128, 128) and mask.max() > 0.9 and changed.any()
        assert (changed & (mask > 0.5)).sum() > 0.5 * (mask > 0.5).sum() > 0
        assert (changed & (mask < 0.01)).sum() < 0.35 * (mask > 0.5).sum()  # a shadow


def test_mini_dreambench_has_every_held_out_identity_once(alone):
    from ssr_encoder.bench.embedded import _world

    world = _world()
    described = [items[0].reference.describe() for items in _by_subject(alone).values()]
    identities = {(d["concept"][0], d["style"][0], d["colour"][0]) for d in described}
    assert identities == {tuple(i) for i in (world.available & world.holdout).nonzero().tolist()}
    assert all(d["concept"][1:] == [-1, -1] and not any(d["hat"]) for d in described)
    for item in alone.items:
        own = item.reference.describe()
        assert item.others == () and item.truth["concept"] == own["concept"][0]
        assert (item.truth["colour"] != own["colour"][0]) == ("colour" in item.tags)
        assert (item.truth["companion"] is not None) == (" and " in item.prompt)
        assert item.truth["companion"] != item.truth["concept"]
        assert item.truth["hat"] == ("wearing a hat" in item.prompt)
    prompts = {item.prompt for item in alone.items}
    assert alone.metrics == ("hat", "companion"), "what these prompts ask for"
    assert {"a cat in the snow", "a red cat", "a purple bus", "a cat wearing a hat in the garden"} <= prompts
    assert "an apple in the snow" in prompts and not any(prompt.startswith("a a") for prompt in prompts)


def test_embedded_prompts_are_in_the_words_of_the_world(several, alone):
    from ssr_encoder.bench.embedded import _world
    from ssr_encoder.mini.world import caption_words
    from ssr_encoder.mini.world.captions import MAX_WORDS, count_words

    words = set(caption_words(_world()))
    for item in (*several.items, *alone.items):
        assert set(item.prompt.split()) <= words and count_words(item.prompt) <= MAX_WORDS
        assert item.template.count("{}") == 1


def test_another_world_seed_is_another_bench(alone):
    other = load_benchmark("mini-dreambench", world_seed=1)
    assert other.digest() != alone.digest() == load_benchmark("mini-dreambench").digest()
    assert [item.key for item in other.items] == [item.key for item in alone.items]


def _by_subject(benchmark) -> dict:
    return {s: [item for item in benchmark.items if item.subject == s] for s in benchmark.subjects}
