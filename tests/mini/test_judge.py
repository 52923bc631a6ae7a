"""The judge: its verdicts on real pictures, and the prototypes that are kept beside its weights."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from ssr_encoder.errors import SSRError
from ssr_encoder.mini import judge as module
from ssr_encoder.mini.judge import FILE, Judge, judge_accuracy, load_oracle, write_prototypes
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.proof import make_cases
from ssr_encoder.mini.recipes.oracle import prototypes
from ssr_encoder.mini.world import World, load_world, sample_scenes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world("cpu", weights_dir())


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Concepts whose prototypes are made during the test."""
    made = []

    def counted(oracle, world, concept, generator):
        made.append(concept)
        return prototypes(oracle, world, concept, generator)

    monkeypatch.setattr(module, "prototypes", counted)
    return made


def test_judge_knows_real_pictures(world):
    cases = make_cases(world, "twin", 40, seed=5)
    known = [case for case in cases if case.others and not case.new_drawing]
    case = min(known, key=lambda c: int(world.available[c.concepts[0]].sum()))  # fewest pictures to draw
    judge = Judge(load_oracle("cpu"), world)

    def scene_of(concept: int, style: int, colour: int) -> torch.Tensor:
        first = tuple(torch.tensor([value]) for value in (concept, style, colour))
        generator = torch.Generator().manual_seed(0)
        scenes = sample_scenes(world, 1, generator, split="any", subjects=(1, 0, 0), first=first, hats=0, plain=0)
        scenes.place[:] = case.place
        return world.render(scenes)[0][0]

    right = judge(scene_of(case.concepts[0], *case.identities[0]), case)
    assert (right.shown, right.identity, right.told_apart, right.other, right.place) == (1, 1, 1, 0, 1)
    twin = judge(scene_of(case.concepts[0], *case.twin), case)
    assert (twin.shown, twin.identity, twin.told_apart) == (1, 0, 0) and twin.likeness < right.likeness
    other = case.others[0]
    leaked = judge(scene_of(other, *world.available[other].nonzero()[0].tolist()), case)
    assert (leaked.shown, leaked.other) == (0, 1)


def test_a_larger_picture_is_judged_as_the_small_one(world):
    (case,) = make_cases(world, "text", 1, seed=2202)
    judge, small = Judge(load_oracle("cpu"), world), torch.rand(3, 128, 128)
    large = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = [judge(picture, case) for picture in (small, large)]
    assert found[0].likeness == pytest.approx(found[1].likeness, abs=1e-4)


def test_kept_prototypes_are_those_of_the_oracle_and_the_world(world, drawn):
    judge = Judge(load_oracle("cpu"), world)
    sizes = world.available.flatten(1).sum(1)
    concept = int(torch.where(sizes > 0, sizes, 1000).argmin())  # fewest pictures to draw
    table = judge.table(concept)
    assert not drawn, "it is in the file"
    fresh = prototypes(judge.oracle, world, concept, torch.Generator().manual_seed(99 + concept))
    assert torch.allclose(table, fresh, atol=1e-4)
    there = world.available[concept]
    assert torch.allclose(table[there].norm(dim=-1), torch.ones(int(there.sum())), atol=1e-5)
    assert not table[~there].any()


def test_prototypes_of_another_oracle_or_world_are_made_anew(world, drawn):
    oracle = load_oracle("cpu")
    other = load_world("cpu", weights_dir())
    concept = int(other.available.flatten(1).any(1).nonzero()[0])
    other.available[concept] = False
    other.available[concept, 0, 1] = True  # one identity only
    table = Judge(oracle, other).table(concept)
    assert drawn == [concept] and table.flatten(0, 1).any(1).sum() == 1
    with torch.no_grad():
        oracle.identity.weight.mul_(-1)
        oracle.identity.bias.mul_(-1)
    turned = Judge(oracle, other).table(concept)
    assert drawn == [concept, concept] and torch.allclose(turned, -table, atol=1e-5)


def test_prototypes_of_a_folder(tmp_path, monkeypatch, drawn):
    """The program's file is what a judge then reads, and the same wherever it is made."""
    shutil.copy(weights_dir() / "oracle.safetensors", tmp_path)
    (tmp_path / "world.json").write_text('{"concepts": ["fox", "cat"], "styles": ["noto"]}')
    path = write_prototypes(tmp_path)
    world = load_world("cpu", tmp_path)
    assert path == tmp_path / FILE and drawn == world.available.flatten(1).any(1).nonzero()[:, 0].tolist()
    assert len(load_file(path)["embeddings"]) == int(world.available.sum())
    oracle, fresh = load_oracle("cpu", tmp_path), prototypes(load_oracle("cpu"), world, drawn[0], generator(drawn[0]))
    drawn.clear()
    monkeypatch.setattr(module, "weights_dir", lambda: tmp_path)
    judge = Judge(oracle, world)
    assert len(judge.tables) == 2 and not drawn
    assert torch.equal(judge.table(int(world.available.flatten(1).any(1).nonzero()[0])), fresh)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def generator(concept: int) -> torch.Generator:
    return torch.Generator().manual_seed(99 + concept)


def test_no_oracle(tmp_path):
    with pytest.raises(SSRError, match="oracle.safetensors are not there"):
        write_prototypes(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "ssr_encoder.mini.judge", "--weights", str(tmp_path)], capture_output=True, text=True
    )
    assert ran.returncode == 2 and "oracle.safetensors are not there" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["oracle.safetensors", FILE])
@pytest.mark.parametrize("left", [4, 20_000])
def test_cut_off(tmp_path, monkeypatch, world, name, left):
    for file in ("oracle.safetensors", FILE):
        whole = (weights_dir() / file).read_bytes()
        (tmp_path / file).write_bytes(whole[:left] if file == name else whole)
    monkeypatch.setattr(module, "weights_dir", lambda: tmp_path)
    with pytest.raises(SSRError, match=f"{name} are damaged") as caught:
        Judge(load_oracle("cpu"), world)
    assert "\n" not in str(caught.value)


def test_the_judge_judged(drawn):
    figures = judge_accuracy("cpu", 48)
    assert not drawn, "with its own prototypes"
    assert figures["concept_shown"] >= 0.9 and figures["identity"] >= 0.85 and figures["place"] >= 0.95
