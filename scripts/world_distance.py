"""Which identities of a concept look distinct: recolourings and drawings too near to another are left out."""

import torch
import torch.nn.functional as F

# Least mean CIELAB differences over the drawings' union, of things and of people (whose heads are alike in outline).
MIN_DISTANCE = 12.0, 8.0  # two drawings, or two colours of one
MIN_SIBLINGS = 17.0, 12.0  # of sets of one house: the same drawing may only be shaded anew
MIN_TONE = 6.0  # two skin tones of one person: skin covers a part only
HOUSES = {"fluent": "Microsoft", "flat": "Microsoft", "noto": "Google", "classic": "Google"}


def to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB (n, 3, ...) in [0, 1] to CIELAB under D65."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = torch.tensor([0.95047, 1.0, 1.08883])
    xyz = torch.einsum("ij,nj...->ni...", matrix / white[:, None], linear)
    f = torch.where(xyz > 216 / 24389, xyz.clamp_min(1e-9) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def distances(portraits: torch.Tensor) -> torch.Tensor:
    """Mean colour difference of each pair of premultiplied drawings (n, 4, h, w): (n, n), also of their mirrors."""
    small = F.interpolate(portraits, (24, 24), mode="area")
    alpha = small[:, 3]

    def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        weight = torch.maximum(a[:, 3], b[:, 3])
        total = 0
        for grey in (0.35, 0.8):
            lab_a, lab_b = (to_lab((t[:, :3] + grey * (1 - t[:, 3:])).clamp(0, 1)) for t in (a, b))
            total = total + (lab_a - lab_b).square().sum(1).sqrt() / 2
        return (total * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)

    n = len(alpha)
    rows = [small[k : k + 1].expand(n, -1, -1, -1) for k in range(n)]
    return torch.stack([torch.minimum(difference(r, small), difference(r.flip(-1), small)) for r in rows])


def available_identities(world, candidates: torch.Tensor) -> torch.Tensor:
    """Of candidate identities (concepts, styles, colours) those distinct from all chosen before them.

    Drawings as drawn come first, then recolourings colour by colour, so a recolouring gives way to a drawing.
    """
    available = torch.zeros_like(candidates)
    for concept in range(len(world.concepts)):
        pairs = [(s, k) for k in range(candidates.shape[2]) for s in range(candidates.shape[1])]
        pairs = [(s, k) for s, k in pairs if candidates[concept, s, k]]
        style, colour = torch.tensor(pairs).T
        portraits = world.portraits(torch.full_like(style, concept), style, colour)
        person = int(world.person[concept])
        house = [HOUSES.get(world.styles[k], world.styles[k]) for k in style.tolist()]
        siblings = torch.tensor([[a == b for b in house] for a in house])
        least = torch.where(siblings, MIN_SIBLINGS[person], MIN_DISTANCE[person])
        least = torch.where(style[:, None] == style, MIN_TONE if person else MIN_DISTANCE[0], least)
        near = distances(portraits) < least
        kept: list[int] = []
        for k in range(len(pairs)):
            if not near[k, kept].any():
                kept.append(k)
        for k in kept:
            available[concept, style[k], colour[k]] = True
    return available
