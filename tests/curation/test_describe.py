"""Descriptors of captions, their frequencies, Table 2 in its form."""

import json
import pickle

import pytest
from PIL import Image
from shards_made import read_folder, sample, write_folder

from ssr_encoder.curation import run_step
from ssr_encoder.curation.describe import DescribeStep, Descriptors, count, load_spacy
from ssr_encoder.curation.table2 import PAPER, markdown, read_frequencies, table, write_files
from ssr_encoder.errors import SSRError

CAPTIONS = {
    "a woman in a red dress standing next to a wooden table with two chairs": (
        ["woman", "dress", "table", "chairs"],
        ["woman", "red dress", "wooden table", "chairs"],
    ),
    "a photo of a cat wearing a hat and two dogs on the street": (["cat", "hat", "dogs", "street"],) * 2,
    "people walking on a street in front of a building": (["people", "street", "building"],) * 2,
    "forest, with a cat and a black cat": (["forest", "cat"],) * 2,
    "": ([], []),
    "!?": ([], []),
}


@pytest.fixture(scope="module")
def describe():
    return Descriptors()


def test_heads_of_noun_phrases_once_each_without_the_medium(describe):
    assert dict(zip(CAPTIONS, describe(list(CAPTIONS)), strict=True)) == CAPTIONS


def test_captions_of_the_embedded_world_name_its_subjects(describe):
    """Of the parser, on the very texts that the chain is run with."""
    import random

    import torch

    from ssr_encoder.mini.models import weights_dir
    from ssr_encoder.mini.world import captions, load_world, sample_scenes
    from ssr_encoder.mini.world.captions import plural

    world = load_world("cpu", weights_dir())
    scenes = sample_scenes(world, 150, torch.Generator().manual_seed(0), split="any")
    found = describe(captions(world, scenes, random.Random(0)))
    shown = named = 0
    for concepts, (words, _) in zip(scenes.concept.tolist(), found, strict=True):
        for noun in {world.concepts[c] for c in concepts if c >= 0}:
            shown += 1
            named += noun in words or plural(noun) in words
    assert named / shown > 0.97


def test_lemmas_join_one_and_many():
    assert Descriptors(form="lemma")(["a dog and two dogs"]) == [(["dog"], ["dog"])]
    with pytest.raises(SSRError, match="no form 'stem'"):
        Descriptors(form="stem")


def test_a_missing_model_is_one_line_that_installs_it():
    with pytest.raises(
        SSRError, match="en_core_web_xyz is not installed; run: python -m spacy download en_core_web_xyz"
    ):
        load_spacy("en_core_web_xyz")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    texts = [*CAPTIONS]
    source = write_folder(
        folder / "in", [[sample(k, texts[k]) for k in (0, 1, 2)], [sample(k, texts[k]) for k in (3, 4)]]
    )
    list(run_step(DescribeStep(), source, folder / "out"))
    return folder / "out"


def test_the_step_adds_to_the_meta_and_changes_nothing_else(described):
    for number, (text, one) in enumerate(zip(CAPTIONS, read_folder(described).values(), strict=False)):
        words, phrases = CAPTIONS[text]
        assert one == sample(number, text, descriptors=words, phrases=phrases)


def test_a_used_step_can_be_sent_to_another_process():
    step = DescribeStep(form="lemma")
    step.setup()
    assert pickle.loads(pickle.dumps(step)).parameters() == step.parameters()


def test_frequencies_count_captions(described):
    counted = count(described)
    assert (counted["captions"], counted["described"]) == (5, 4)
    assert counted["frequencies"] == {
        "cat": 2, "street": 2, "building": 1, "chairs": 1, "dogs": 1, "dress": 1, "forest": 1, "hat": 1, "people": 1,
        "table": 1, "woman": 1,
    }  # fmt: skip
    assert list(counted["frequencies"])[:3] == ["cat", "street", "building"]


def test_undescribed_shards_are_refused(tmp_path):
    source = write_folder(tmp_path / "in", [[sample(0, "a cat")]])
    with pytest.raises(SSRError, match="sample 000000 has no descriptors; run `ssr data describe`"):
        count(source)


def test_the_table_has_the_papers_form():
    rows = table(PAPER).splitlines()
    assert rows[2] == "| woman | 1528518 | suit | 256732 | dog | 164819 |"
    assert rows[8] == "| dress | 268058 | building | 168670 | cat | 147851 |"
    assert len(rows) == 9 and sum(PAPER.values()) > 0
    assert table({"cat": 2}).splitlines()[2] == "| cat | 2 |  |  |  |  |"


def test_files_are_a_page_a_plot_and_json_that_is_read_again(described, tmp_path):
    counted = count(described)
    data, page, plot = write_files(counted, tmp_path, before=counted)
    assert read_frequencies(data) == counted
    assert "5 captions, 4 of them with a descriptor" in page.read_text() and page.read_text() == markdown(counted)
    picture = Image.open(plot)
    assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(100_000)) > 10
    first = plot.read_bytes()
    write_files(counted, tmp_path, before=counted)
    assert plot.read_bytes() == first


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"captions": 3, "frequencies": {"a": -1}}', '{"captions": "x", "frequencies": {}}']
)
def test_other_files_are_no_frequencies(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SSRError, match="x.json holds no frequencies; give descriptors.json"):
        read_frequencies(tmp_path / "x.json")
    with pytest.raises(SSRError, match="cannot read"):
        read_frequencies(tmp_path / "none.json")


def test_counts_survive_a_bad_shard(described, tmp_path):
    for path in described.glob("*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "000001.tar").write_bytes(b"x" * 2000)
    assert count(tmp_path)["captions"] == 3
    assert json.loads(json.dumps(count(tmp_path)))["frequencies"]["cat"] == 1
