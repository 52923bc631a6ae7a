"""Runs training in processes that can be killed, or that train together. Importing torch takes seconds, so one
process imports it and forks the others.

    python forked.py CONFIG.json kill SEED KILLS      train; kill with SIGKILL KILLS times; then let it finish
    python forked.py CONFIG.json together N [STEPS]   train with N processes over gloo, for STEPS steps and a checkpoint
"""

import json
import os
import random
import signal
import socket
import sys
import time

import torch

from ssr_encoder.training import Trainer, TrainingConfig, train


def forked(work) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def finished(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def whole(config) -> None:
    for _ in train(config):
        pass


def kill(config, seed: int, kills: int) -> None:
    rng, marks = random.Random(seed), config.run.out + ".marks"

    def timed():
        start = time.monotonic()
        times = [time.monotonic() - start for _ in train(unbroken)]
        with open(marks, "w") as file:
            json.dump([times[0], times[-1] - times[0]], file)

    unbroken = TrainingConfig.from_dict(config.to_dict())
    unbroken.run.out += ".whole"
    assert finished(forked(timed))
    with open(marks) as file:
        setup, length = json.load(file)
    died, steps = 0, []
    while died < kills:
        child = forked(lambda: whole(config))
        time.sleep(rng.uniform(0, 1.2 * setup + length / 10))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            died += 1
        else:  # it was done before it could be killed: begin another one, which must end like the others
            assert status == 0
            steps.append("done")
            os.rename(config.run.out, f"{config.run.out}.{died}")
        folder = os.path.join(config.run.out, "checkpoints")
        steps.append(max(os.listdir(folder), default="")[-3:] if os.path.isdir(folder) else "")
    assert finished(forked(lambda: whole(config)))
    print(json.dumps({"killed": died, "checkpoints": steps}))


def together(config, ranks: int, steps: int = 0) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

    def work(rank: int):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_PORT": str(port)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
        if not steps:
            return whole(config)
        trainer = Trainer(config)
        assert trainer.accelerator.num_processes == ranks
        for progress in trainer.run():
            if progress.step == steps:
                trainer.save()
                break

    children = [forked(lambda rank=rank: work(rank)) for rank in range(ranks)]
    assert all([finished(child) for child in children])


if __name__ == "__main__":
    torch.set_num_threads(1)
    command = {"kill": kill, "together": together}[sys.argv[2]]
    command(TrainingConfig.load(sys.argv[1]), *map(int, sys.argv[3:]))  # JSON is YAML
