"""What the proofs of the ControlNet and of the motion adapter share."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from ..cli import options
from ..cli.outputs import check_folder
from ..encoder import SSREncoder
from ..errors import SSRError, first_line
from ..loading import DAMAGED, load_whole
from ..provenance import commit, versions
from .judge import Judge, load_oracle
from .models import weights_dir
from .proof import Case
from .world import Scenes, World, load_world, sample_scenes


def parse(parser: argparse.ArgumentParser, argv: list[str] | None, n: int, what: str, files: str) -> argparse.Namespace:
    """The arguments of a proof, those of its own being in ``parser``: ``n`` cases (``what``) make ``files``.

    Raises:
        SSRError: the place for the files cannot be written; found before any work.
    """
    parser.add_argument("-n", type=options.whole(2, 100_000), default=n, help=f"{what} (default {n})")
    parser.add_argument("--steps", type=options.steps, default=12, help="denoising steps (default 12)")
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"folder for {files}")
    parser.add_argument("--json", action="store_true", help="print what the JSON file holds instead of a table")
    args = parser.parse_args(argv)
    check_folder(args.output if args.output.exists() else args.output.parent)
    return args


def load_companion(kind: type, folder: Path, what: str, stage: str):
    """A ``ControlNetModel`` or ``MotionAdapter`` (``kind``) in a folder, float32.

    Raises:
        SSRError: it is damaged, or there is none; then names ``what`` is missing and the ``stage`` that trains it.
    """
    if not (folder / "config.json").is_file():
        raise SSRError(f"there is no {what} in {folder}; train one with python -m ssr_encoder.mini.train {stage}")
    try:
        return load_whole(kind, str(folder), use_safetensors=True).float().eval()
    except DAMAGED as error:
        raise SSRError(
            f"cannot load the {what} {folder} ({first_line(error)}); train it again or give another folder"
        ) from None


def world_and_judge(ssr: SSREncoder) -> tuple[World, Judge]:
    """The world on the CPU, where the same seed makes the same cases, and the judge on the encoder's device."""
    world = load_world("cpu", weights_dir())
    own = world if ssr.device.type == "cpu" else load_world(ssr.device, weights_dir())
    return world, Judge(load_oracle(ssr.device), own)


def alone_in_place(world: World, cases: list[Case], generator: torch.Generator) -> Scenes:
    """For each case a scene of its subject alone in its prompt's place."""
    identity = tuple(torch.tensor(x) for x in zip(*((c.concepts[0], *c.identities[0]) for c in cases), strict=True))
    only = {"split": "any", "subjects": (1.0, 0.0, 0.0), "hats": 0.0, "plain": 0.0}
    scenes = sample_scenes(world, len(cases), generator, first=identity, **only)
    scenes.place[:] = torch.tensor([case.place for case in cases])
    return scenes


def mean_interval(values: list[float], low: float = -1.0, high: float = 1.0) -> dict:
    """Mean with its 95 % interval by the normal approximation, cut to [low, high]."""
    mean, half = statistics.fmean(values), 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return {"value": mean, "low": max(low, mean - half), "high": min(high, mean + half), "n": len(values)}


def made_by(ssr: SSREncoder, name: str, args) -> dict:
    """The head of a proof's JSON: what made it."""
    return {
        "format": name,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "commit": commit(),
        "fingerprint": ssr.fingerprint,
        "device": str(ssr.device),
        "n": args.n,
        "steps": args.steps,
        "seed": args.seed,
    }
