"""How much a picture shows a subject, by the encoder's own eyes, and the best of several pictures by it.

The subject is looked for in the picture as it was asked for in its reference, encoded there, and the two are compared.
Making several pictures from different noise and keeping the best is what people do by hand; as a method it is the
simplest of those of Ma et al. 2025 (Inference-time scaling for diffusion models beyond scaling denoising steps). It is
this project's own addition, not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image

from .conditioning import acting
from .errors import SSRError
from .images import open_picture
from .subject import Subject

if TYPE_CHECKING:
    from .encoder import SSREncoder

APART = (
    2654435769  # between the seeds of a picture's candidates: 2**32 by the golden ratio, so that they lie spread out
)


@torch.no_grad()
def likeness(self: SSREncoder, picture, subjects: Subject | Iterable[Subject]) -> float:
    """How much a picture shows some subjects: the mean of what it shows of each.

    A subject asked for in words is encoded by the same words; one asked for by a region alone where patches look like
    it; in both cases within its output region, if it has one. Compared are, scale by scale, the means of its subject
    tokens there and of its own.

    Args:
        picture: path, PIL image, array or tensor of any aspect ratio.
        subjects: what :meth:`encode` returned; those at scale 0 do not count.

    Returns:
        a mean of cosines in [-1, 1]; of a subject asked for in words, 1 for its reference picture. What a good value
        is depends on the subject: compare pictures of the same subjects.

    Raises:
        SSRError: a bad picture, no subject, or one of another model.
    """
    used = acting(self, [subjects] if isinstance(subjects, Subject) else subjects)
    if not used:
        raise SSRError("there is no subject to look for; give one with a scale above 0")
    picture = open_picture(picture, "picture")
    return sum(_likeness_of_one(self, picture, subject) for subject in used) / len(used)


def best_of(ssr: SSREncoder, pictures: Sequence[Image.Image], subjects: Iterable[Subject]) -> int:
    """Which of some pictures shows the subjects best; the first of equal ones."""
    scores = [likeness(ssr, picture, subjects) for picture in pictures]
    return scores.index(max(scores))


def candidate_seeds(seed: int, count: int) -> list[int]:
    """The seeds of a picture's candidates; the first is the picture's own, so that one candidate changes nothing. Below
    2**32, as torch's generator on the CPU reads no more of a seed."""
    return [seed, *((seed + number * APART) % 2**32 for number in range(1, count))]


def _likeness_of_one(ssr: SSREncoder, picture: Image.Image, subject: Subject) -> float:
    """The cosine of a subject's tokens to those of its find in a picture, averaged over the scales."""
    scales = len(ssr.config.hidden_layers)
    own = subject.tokens.to(ssr.device, ssr.dtype).unflatten(0, (scales, -1)).mean(1)
    region = None if subject.region is None else subject.region_mask(picture.height, picture.width)
    text, look = (subject.query, None) if subject.query else (ssr.config.region_query, own[-1])
    found = ssr._tokens(picture, text, region, look)[0].unflatten(0, (scales, -1)).mean(1)
    return float(F.cosine_similarity(found.float(), own.float(), dim=-1).mean())
