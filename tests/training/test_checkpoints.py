"""Checkpoints are whole or not there; a damaged one is passed over in one line."""

import pytest
import torch
from tiny_training import same

from ssr_encoder.errors import SSRError
from ssr_encoder.training import Trainer
from ssr_encoder.training.checkpoints import State, find, load, load_latest, save


@pytest.fixture
def folder_of_three(tmp_path, subject_model):
    for step in (1, 2, 3):
        save(tmp_path / "c", State(step=step, position=4 * step), tensors(step), subject_model, 3)
    return tmp_path / "c"


def tensors(step: int) -> dict:
    return {"a": torch.full((3, 2), float(step)), "step": torch.tensor(float(step))}


def damage(path, how: str) -> None:
    file = path / "training.safetensors"
    if how == "flipped":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "gone":
        file.unlink()
    elif how == "manifest":
        (path / "manifest.json").write_text("{")
    elif how == "empty manifest":
        (path / "manifest.json").write_text("{}")


def test_the_last_ones_are_kept(folder_of_three, subject_model):
    save(folder_of_three, State(step=12, position=48), tensors(12), subject_model, 2)
    assert [path.name for path in find(folder_of_three)] == ["step-00000003", "step-00000012"]
    state, found, notes = load_latest(folder_of_three)
    assert (state.step, state.position, notes, same(found, tensors(12))) == (12, 48, [], True)


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "manifest", "empty manifest"])
def test_a_damaged_one_falls_back_to_the_one_before(folder_of_three, how):
    damage(folder_of_three / "step-00000003", how)
    state, found, notes = load_latest(folder_of_three)
    assert state.step == 2 and same(found, tensors(2))
    assert len(notes) == 1 and "step-00000003 is damaged" in notes[0] and "\n" not in notes[0]


def test_all_damaged_is_an_error_and_none_is_not(folder_of_three, tmp_path):
    for path in find(folder_of_three):
        damage(path, "cut")
    with pytest.raises(SSRError, match="no other checkpoint is whole"):
        load_latest(folder_of_three)
    assert load_latest(tmp_path / "none") is None


def test_a_full_disk_leaves_the_others_as_they_were(folder_of_three, subject_model, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssr_encoder.training.checkpoints.save_file", full)
    with pytest.raises(SSRError, match="No space left on device.*goes on from step-00000003") as caught:
        save(folder_of_three, State(step=4), tensors(4), subject_model, 3)
    assert "\n" not in str(caught.value)
    assert [path.name[-1] for path in find(folder_of_three)] == ["1", "2", "3"]
    assert load(folder_of_three / "step-00000003")[0].step == 3
    assert not list(folder_of_three.glob(".*"))


def test_what_a_killed_life_left_is_swept_and_replaced(folder_of_three, subject_model):
    (folder_of_three / ".step-00000004.999").mkdir()
    (folder_of_three / ".step-00000004.999" / "training.safetensors").write_bytes(b"half")
    damage(folder_of_three / "step-00000003", "cut")
    save(folder_of_three, State(step=3), tensors(30), subject_model, 3)
    assert same(load_latest(folder_of_three)[1], tensors(30)) and not list(folder_of_three.glob(".*"))


def test_training_goes_on_from_the_one_before(new_config):
    config = new_config("run.save_every=2")
    trainer = Trainer(config)
    for progress in trainer.run():
        if progress.step in (2, 4):
            trainer.save()
        if progress.step == 4:
            break
    damage(find(trainer.out / "checkpoints")[-1], "flipped")
    resumed = Trainer(config)
    assert resumed.state.step == 2
    assert "step-00000004 is damaged" in resumed.notes[0] and "going on from step 2" in resumed.notes[0]
