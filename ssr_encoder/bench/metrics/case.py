"""What is scored, and what scores it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass
class Case:
    """One result with what it was made from.

    Attributes:
        image: the result.
        reference: the picture that the subject was picked out of.
        prompt: what the result should show, in full.
        class_name: the subject, as "dog".
        others: what else the reference shows, by name.
        mask: (H, W) in [0, 1], the subject in the reference, where it is known.
        truth: on the embedded world: concept, style, colour, place (indices) and others (concept indices).
    """

    image: Image.Image
    reference: Image.Image
    prompt: str
    class_name: str
    others: tuple[str, ...] = ()
    mask: np.ndarray | None = None
    truth: dict | None = None


class Metric(Protocol):
    """Cases to one value each, the same whatever other cases are asked with it; None where it does not apply."""

    name: str
    direction: Literal["higher", "lower"]  # which is better

    def describe(self) -> dict:
        """Definition, backbone, preprocessing and library versions; JSON, without paths or times."""
        ...

    def __call__(self, cases: list[Case]) -> list[float | None]: ...


class CaseMetric:
    """A metric that looks at one case at a time."""

    name: str
    direction: Literal["higher", "lower"] = "higher"

    def __call__(self, cases: list[Case]) -> list[float | None]:
        return [self.score(case) for case in cases]

    def score(self, case: Case) -> float | None:
        raise NotImplementedError


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of distributions, by name."""
    return {package: version(package) for package in packages}


def as_tensor(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
