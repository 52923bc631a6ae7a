"""Killed anywhere, a run ends with the very bytes of one that was not; several processes train as one does."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_training import lines_of

from ssr_encoder.training import Trainer
from ssr_encoder.training.checkpoints import find

# Of the order of real ones. Adam's first step is the rate times the sign of the gradient, also where that is rounding.
SMALL_RATE = "optim.learning_rate=1e-4"
FORKED = Path(__file__).parent / "forked.py"


def forked(config, *words) -> str:
    path = Path(f"{config.run.out}.json")
    path.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, str(FORKED), str(path), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def latest(out) -> dict[str, torch.Tensor]:
    return load_file(find(Path(out) / "checkpoints")[-1] / "training.safetensors")


def test_twenty_kills_leave_no_trace(new_config):
    config = new_config(
        "optim.steps=40", "run.save_every=2", "run.log_every=1", "optim.batch_size=2", "data.resolution=32"
    )
    found = json.loads(forked(config, "kill", 0, 20))
    assert found["killed"] == 20
    outs = [Path(f"{config.run.out}.whole"), *Path(config.run.out).parent.glob("run*/")]
    sums = {}
    for out in outs:
        last = find(out / "checkpoints")[-1]
        assert last.name == "step-00000040"
        for name in ("training.safetensors", "model.safetensors"):
            sums.setdefault(name, set()).add(hashlib.sha256((last / name).read_bytes()).hexdigest())
        assert not list((out / "checkpoints").glob(".*")) and len(find(out / "checkpoints")) == 3
        steps = [line["step"] for line in lines_of(out / "metrics.jsonl")]
        assert steps == list(range(1, 41)), found
    assert {name: len(values) for name, values in sums.items()} == {"training.safetensors": 1, "model.safetensors": 1}


def test_two_processes_train_as_one(new_config):
    words = ("optim.steps=4", SMALL_RATE)
    one = new_config(*words, "optim.micro_batch=2", out="one")
    two = new_config(*words, "optim.micro_batch=1", out="two")
    trainer = Trainer(one)
    for _ in trainer.run():
        pass
    forked(two, "together", 2)
    expected = trainer.learned.tensors()
    for name, value in latest(two.run.out).items():
        assert torch.allclose(value, expected[name], atol=1e-7 if name.startswith("exp_avg") else 1e-5), name


def test_a_run_of_two_processes_goes_on_with_one(new_config):
    words = ("optim.steps=4", SMALL_RATE)
    whole = Trainer(new_config(*words, out="whole"))
    list(whole.run())
    forked(new_config(*words), "together", 2, 3)
    resumed = Trainer(new_config(*words))
    assert (resumed.state.step, resumed.state.position) == (3, 12)
    list(resumed.run())
    expected = whole.learned.tensors()
    for name, value in resumed.learned.tensors().items():
        assert torch.allclose(value, expected[name], atol=1e-5), name
