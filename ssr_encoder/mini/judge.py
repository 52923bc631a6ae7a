"""The judge of pictures: the oracle, with a prototype of every identity of a world to compare a subject with.

Prototypes are drawn and seen by the oracle, a minute for all of the embedded world, and never change; so those of the
shipped oracle and world lie beside its weights:

    python -m ssr_encoder.mini.judge [--weights DIR]

writes them, after the oracle or the world has changed. For another oracle or world they are made when asked for.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import SSRError, first_line, run_program
from ..files import written_beside
from ..loading import fingerprint
from .models import weights_dir
from .oracle import PRESENT, SIDE, Oracle, identity_embedding, shown
from .recipes.oracle import accuracy, prototypes
from .world import World, load_world

if TYPE_CHECKING:
    from .proof import Case

FILE = "prototypes.safetensors"


@dataclass
class Verdict:
    """What the oracle sees in one picture; identity and shown are means over a composed picture's subjects."""

    shown: float
    identity: float
    other: float | None  # None: the reference shows nothing else
    place: float
    likeness: float  # cosine to the right identity's prototype, mean over subjects
    picture: Tensor = field(repr=False)
    told_apart: float | None = None  # None: there is no twin


class Judge:
    """The oracle, and the prototypes of the concepts that it has been asked about or that lie beside its weights."""

    def __init__(self, oracle: Oracle, world: World):
        self.oracle, self.world = oracle, world
        self.tables = _kept(oracle, world, weights_dir() / FILE)
        self.available = world.available.cpu()

    def table(self, concept: int) -> Tensor:
        """Prototypes (styles, colours, D) of a concept's identities, of unit length; zero where there is none."""
        if concept not in self.tables:
            self.tables[concept] = _drawn(self.oracle, self.world, concept)
        return self.tables[concept]

    @torch.no_grad()
    def __call__(self, picture: Tensor, case: Case) -> Verdict:
        """What is in a picture (3, H, W) in [0, 1], asked about a case's subjects, others and place.

        The oracle sees it at 128 px, whatever its size.
        """
        device = next(self.oracle.parameters()).device
        seen = picture[None].to(device)
        if seen.shape[-2:] != (SIDE, SIDE):  # pictures of another base model: the oracle knows one scale
            seen = F.interpolate(seen, (SIDE, SIDE), mode="area")
        answers = {name: value.cpu() for name, value in self.oracle(seen * 2 - 1).items()}  # wait for a GPU here only
        sure = shown(answers["concept"])[0]
        right, likeness, told_apart = [], [], None
        for concept, (style, colour) in zip(case.concepts, case.identities, strict=True):
            embedding = identity_embedding(answers, torch.tensor([concept]))[0]
            cosine = (embedding * self.table(concept).cpu()).sum(-1)
            cosine = cosine.masked_fill(~self.available[concept], -2.0)  # not an identity
            right.append(float(cosine.flatten().argmax() == style * cosine.shape[1] + colour))
            likeness.append(float(cosine[style, colour]))
            if case.twin is not None:
                told_apart = float(cosine[style, colour] > cosine[case.twin])
        return Verdict(
            shown=sum(float(sure[c] > PRESENT) for c in case.concepts) / len(case.concepts),
            identity=sum(right) / len(right),
            other=float(any(sure[c] > PRESENT for c in case.others)) if case.others else None,
            place=float(answers["place"][0].argmax() == case.place),
            likeness=sum(likeness) / len(likeness),
            picture=picture.cpu(),
            told_apart=told_apart,
        )


def _drawn(oracle: Oracle, world: World, concept: int) -> Tensor:
    generator = torch.Generator(world.device).manual_seed(99 + concept)  # whatever was asked before
    return prototypes(oracle, world, concept, generator)


def _kept(oracle: Oracle, world: World, path: Path) -> dict[int, Tensor]:
    """Concept -> table of a file, those that are of this oracle and of all of the world's identities.

    Raises:
        SSRError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("oracle") != fingerprint(oracle):
                return {}
            identities, embeddings = file.get_tensor("identities").long(), file.get_tensor("embeddings")
    except SafetensorError as error:
        raise SSRError(
            f"the judge's prototypes {path} are damaged ({first_line(error)}); run python -m ssr_encoder.mini.judge"
        ) from None
    device = next(oracle.parameters()).device
    tables = {}
    for concept in identities[:, 0].unique().tolist():
        mine = identities[:, 0] == concept
        style, colour = identities[mine, 1:].T
        if torch.equal(identities[mine, 1:], world.available[concept].nonzero().cpu()):
            table = torch.zeros(*world.available.shape[1:], embeddings.shape[1])
            table[style, colour] = embeddings[mine]
            tables[concept] = table.to(device)
    return tables


def write_prototypes(weights: Path) -> Path:
    """The prototypes of a folder's oracle and world (on the CPU: everywhere the same), into that folder.

    Raises:
        SSRError: there is no oracle in it, or a damaged one.
    """
    oracle, world = load_oracle("cpu", weights), load_world("cpu", weights)
    identities = world.available.nonzero()
    drawn = [_drawn(oracle, world, c)[world.available[c]] for c in identities[:, 0].unique().tolist()]
    with written_beside(weights / FILE) as path:
        tensors = {"identities": identities.to(torch.int16).contiguous(), "embeddings": torch.cat(drawn)}
        save_file(tensors, path, {"oracle": fingerprint(oracle)})
    return weights / FILE


def load_oracle(device, weights: Path | None = None) -> Oracle:
    """The oracle in a folder of weights; default: the shipped one.

    Raises:
        SSRError: its weights are not there or damaged.
    """
    path = (weights or weights_dir()) / "oracle.safetensors"
    if not path.is_file():
        raise SSRError(f"the oracle's weights {path} are not there; install the package again")
    try:
        return Oracle.load(path, device)
    except (SafetensorError, RuntimeError) as error:
        raise SSRError(
            f"the oracle's weights {path} are damaged ({first_line(error)}); install the package again"
        ) from None


def judge_accuracy(device, n: int = 300) -> dict[str, float]:
    """The judge on real scenes of held-out identities."""
    world = load_world(device, weights_dir())
    judge = Judge(load_oracle(device), world)
    return accuracy(judge.oracle, world, n, torch.Generator(world.device).manual_seed(7), judge.table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ssr_encoder.mini.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, default=weights_dir(), help="folder with oracle.safetensors")
    print(write_prototypes(parser.parse_args(argv).weights))


if __name__ == "__main__":
    run_program(main)
