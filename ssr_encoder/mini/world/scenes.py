"""Scenes as tensors, and their sampling under the splits."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from .tint import turned_tones

SLOTS = 3
_SIZES = ((0.42, 0.65), (0.34, 0.56), (0.30, 0.46))  # of the picture's side, by number of subjects
_LAYOUTS = 16  # layouts drawn per scene, of which one that hides little is kept
_HIDDEN = 0.22  # part of a subject's rectangle that others may cover; of its drawing it is less or little more


@dataclass
class Scenes:
    """n scenes of up to three subjects; slots are in no order. All tensors are on one device.

    Identity, by slot (n, 3): concept (-1: empty slot), style, colour (or, above the colours, a tone), hat. Pose, by
    slot: centre (n, 3, 2) x, y in [0, 1]; size, the side of the subject's square as a fraction of the picture's; angle
    in radians, clockwise; flip; depth, larger is nearer. View: place (n,), variant (n,) of its backdrop, crop (n, 2)
    in [0, 1], mirror (n,), brightness (n,) gain, hue (n,) in turns.
    """

    concept: torch.Tensor
    style: torch.Tensor
    colour: torch.Tensor
    hat: torch.Tensor
    centre: torch.Tensor
    size: torch.Tensor
    angle: torch.Tensor
    flip: torch.Tensor
    depth: torch.Tensor
    place: torch.Tensor
    variant: torch.Tensor
    crop: torch.Tensor
    mirror: torch.Tensor
    brightness: torch.Tensor
    hue: torch.Tensor

    def __len__(self) -> int:
        return len(self.place)

    def _map(self, change) -> "Scenes":
        return Scenes(**{f.name: change(getattr(self, f.name)) for f in fields(self)})

    def __getitem__(self, index) -> "Scenes":
        """Scenes of a slice, a tensor of indices or booleans; of an int, one scene (n = 1)."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return self._map(lambda t: t[index])

    def to(self, device) -> "Scenes":
        return self._map(lambda t: t.to(device, non_blocking=torch.device(device).type == "cuda"))

    @staticmethod
    def cat(parts: list["Scenes"]) -> "Scenes":
        return Scenes(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Scenes)})


def allowed_identities(world, split: str) -> torch.Tensor:
    """BoolTensor (concepts, styles, colours) of a split: "train", "holdout" or "any"."""
    if split == "train":
        return world.available & ~world.holdout
    if split == "holdout":
        return world.available & world.holdout
    if split == "any":
        return world.available
    raise ValueError(f"split must be 'train', 'holdout' or 'any', not {split!r}")


def favourites(world) -> set[str]:
    """What ``favour`` of :func:`sample_scenes` may name: concepts and their drawings."""
    return set(world.concepts) | {f"{concept}/{style}" for concept in world.concepts for style in world.styles}


def random_identities(world, n: int, generator, split: str = "train") -> tuple[torch.Tensor, ...]:
    """n identities (concept, style, colour), each (n,) long: concepts evenly, then a drawing and a colour of it."""
    allowed = allowed_identities(world, split)
    weight = allowed.flatten(1).any(1).float()
    concept = torch.multinomial(weight, n, replacement=True, generator=generator)
    return concept, *_dress(allowed, concept, generator)


def sample_scenes(
    world,
    n: int,
    generator: torch.Generator,
    split: str = "train",
    subjects: tuple[float, float, float] = (0.35, 0.45, 0.20),
    first: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    second: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    distinct: float = 0.9,
    hats: float = 0.12,
    plain: float = 0.08,
    tones: float = 0.0,
    favour: Mapping[str, float] | None = None,
    facing: torch.Tensor | None = None,
    turned: float = 1.0,
) -> Scenes:
    """Draws n random scenes on the world's device.

    Args:
        generator: of the world's device; the same seed gives the same scenes.
        split: "train" shows no held-out identity and no held-out concept-place pair; "holdout" only held-out
            identities, anywhere; "any" all that is available.
        subjects: probabilities of one, two and three subjects.
        first, second: (concept, style, colour), each (n,) long, for slot 0 and slot 1, taken as they are. With
            `second` a scene has at least two subjects. In "train" the place still suits them, if any place does.
        distinct: probability that a scene of several subjects has no two of one class; otherwise it has two of
            one class, with different identities, where the split has such.
        hats: probability that a subject that can wear a hat does.
        plain: probability of a plain backdrop.
        tones: probability that a subject wears a nameless tone (tint.py) instead of its colour. Colours that are held
            out in another drawing of the concept then always give way, "as drawn" mostly: they would tell the drawing.
        favour: concept -> how many times more often than another it is drawn as a scene's one subject; concepts that
            are not in it 1. Of several subjects too they are more often there. "concept/style" -> how many times more
            often it is that drawing of the concept.
        facing: BoolTensor (n,), whether slot 0's drawing is mirrored; default: half are.
        turned: how many times more often than another a tone is a turned hue of the drawing's own colours.
    """
    if second is not None and first is None:
        raise ValueError("second= needs first=")
    device = world.device
    allowed = allowed_identities(world, split)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    odds = torch.tensor(subjects, dtype=torch.float, device=device)
    if second is not None:
        odds[0] = 0
        if not sum(subjects[1:]):
            odds[1] = 1
    count = 1 + torch.multinomial(odds, n, replacement=True, generator=generator)
    used = torch.arange(SLOTS, device=device) < count[:, None]
    forced = [first, second, None]

    # Distinct concepts: the largest of random keys u^(1/weight) (Efraimidis and Spirakis 2006). Forced ones come first,
    # then none may repeat them.
    favour = favour or {}
    if unknown := sorted(set(favour) - favourites(world)):
        raise ValueError(f"favour has what the world has not: {', '.join(unknown)}")
    liked = torch.tensor([[favour.get(f"{c}/{s}", 1.0) for s in world.styles] for c in world.concepts], device=device)
    weight = torch.tensor([favour.get(name, 1.0) for name in world.concepts], device=device)
    keys = rand(n, len(world.concepts)) ** (1 / weight) * allowed.flatten(1).any(1)
    for identity in forced:
        if identity is not None:
            keys = keys.scatter(1, identity[0].to(device)[:, None], -1.0)
    drawn = keys.topk(SLOTS, 1).indices
    picks = [drawn[:, k] if f is None else f[0].to(device) for k, f in enumerate(forced)]
    # Two of one class: the last used, free slot repeats the one before it.
    several = allowed.flatten(1).sum(1) >= 2
    again = rand(n) >= distinct
    for slot in (1, 2):
        if forced[slot] is None:
            repeat = again & (count == slot + 1) & several[picks[slot - 1]]
            picks[slot] = torch.where(repeat, picks[slot - 1], picks[slot])
    concept = torch.stack(picks, 1)

    style, colour = torch.zeros_like(concept), torch.zeros_like(concept)
    for slot, identity in enumerate(forced):
        if identity is not None:
            style[:, slot], colour[:, slot] = (t.to(device) for t in identity[1:])
        else:
            taken = _taken(allowed, concept, style, colour, slot)
            style[:, slot], colour[:, slot] = _dress(allowed, concept[:, slot], generator, taken, liked)
            if tones:
                toned = _tone(world, concept[:, slot], colour[:, slot], tones, turned, generator)
                colour[:, slot] = torch.where(world.person[concept[:, slot]], colour[:, slot], toned)

    place_weight = torch.full((len(world.places),), (1 - plain) / (len(world.places) - 1), device=device)
    place_weight[-1] = max(plain, 1e-6)
    place_weight = place_weight.expand(n, -1)
    if split == "train":
        barred = (world.holdout_place[concept] & used[..., None]).any(1)
        place_weight = place_weight * ~barred
    place = torch.multinomial(place_weight, 1, generator=generator)[:, 0]

    hat = (rand(n, SLOTS) < hats) & world.hatted[concept] & used
    flip = rand(n, SLOTS) < 0.5
    if facing is not None:
        flip[:, 0] = facing.to(device)
    extent = world.extent[world.index[concept, style, colour]]
    centre, size, depth = _lay_out(extent, flip, hat, used, count, rand)
    is_plain = place == len(world.places) - 1
    hue = torch.where(is_plain, rand(n) - 0.5, (rand(n) - 0.5) * 0.05)
    return Scenes(
        concept=torch.where(used, concept, -1),
        style=torch.where(used, style, 0),
        colour=torch.where(used, colour, 0),
        hat=hat,
        centre=centre,
        size=size,
        angle=(rand(n, SLOTS) + rand(n, SLOTS) - 1) * 0.30,
        flip=flip,
        depth=depth,
        place=place,
        variant=(rand(n) * world.backdrops.shape[1]).long(),
        crop=rand(n, 2),
        mirror=rand(n) < 0.5,
        brightness=0.92 + 0.16 * rand(n),
        hue=hue,
    )


def _dress(allowed, concept, generator, taken=None, liked=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Style and colour for concepts (n,); drawings evenly, or as they are ``liked`` (concepts, styles), "as drawn" as
    often as two recolourings."""
    weight = allowed.float()
    weight = torch.cat([weight[..., :1] * 2, weight[..., 1:]], -1)
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(1)
    weight = (weight if liked is None else weight * liked[..., None]).flatten(1)[concept]
    if taken is not None:
        weight = weight * ~taken
    # A class without a second identity: only in slots that stay empty, or beside a forced identity of its own.
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, allowed.flatten(1)[concept].float() + 1e-6)
    pick = torch.multinomial(weight, 1, generator=generator)[:, 0]
    return pick // allowed.shape[-1], pick % allowed.shape[-1]


def _tone(world, concept, colour, share: float, turned: float, generator) -> torch.Tensor:
    """Colours (n,) of subjects of which about ``share`` have become tones."""
    share = torch.where(world.holdout.any(1)[concept, colour], torch.where(colour > 0, 1.0, max(share, 0.75)), share)
    suits = world.tones[concept]
    some = suits.any(1)
    often = suits * torch.where(turned_tones(suits.device), turned, 1.0) + ~some[:, None]
    tone = torch.multinomial(often, 1, generator=generator)[:, 0] + len(world.colours)
    toned = torch.rand(len(concept), generator=generator, device=concept.device) < share
    return torch.where(toned & some, tone, colour)


def _taken(allowed, concept, style, colour, slot: int) -> torch.Tensor:
    """Identities that earlier slots of the same concept wear: BoolTensor (n, styles * colours)."""
    taken = torch.zeros(len(concept), allowed[0].numel(), dtype=torch.bool, device=concept.device)
    for earlier in range(slot):
        number = style[:, earlier] * allowed.shape[-1] + colour[:, earlier].clamp_max(allowed.shape[-1] - 1)
        same = (concept[:, earlier] == concept[:, slot]) & (colour[:, earlier] < allowed.shape[-1])  # not a tone
        taken |= torch.nn.functional.one_hot(number, taken.shape[1]).bool() & same[:, None]
    return taken


def _lay_out(extent, flip, hat, used, count, rand) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre, size and depth of subjects whose drawings fill `extent` (n, 3, 4), inside the picture and little hidden.

    Of several random layouts a scene keeps the one in which the most hidden subject is hidden least, or any in which
    none is hidden much.
    """
    n = len(extent)
    low, high = torch.tensor(_SIZES, device=extent.device)[count - 1].unbind(-1)
    size = low[:, None, None] + (high - low)[:, None, None] * rand(n, _LAYOUTS, SLOTS)
    left, top, right, bottom = extent.unbind(-1)
    left, right = torch.where(flip, -right, left), torch.where(flip, -left, right)
    top = top - 0.28 * hat
    box = torch.stack([left, top, right, bottom], -1)[:, None] * size[..., None]  # (n, layouts, slots, 4)
    spill = 0.03  # part of the picture by which a drawing may leave it
    least, most = -box[..., :2] - spill, 1 + spill - box[..., 2:]
    where = rand(n, _LAYOUTS, SLOTS, 2)
    where = torch.stack([where[..., 0], where[..., 1] ** 0.7], -1)  # a little more often on the ground
    centre = least + (most - least) * where
    depth = rand(n, _LAYOUTS, SLOTS)
    placed = torch.cat([centre, centre], -1) + box
    a, b = placed[..., :, None, :], placed[..., None, :, :]
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    area = (placed[..., 2:] - placed[..., :2]).prod(-1)
    nearer = (depth[..., None, :] > depth[..., :, None]) & (used[:, None, :, None] & used[:, None, None, :])
    hidden = ((overlap * nearer).sum(-1) / area).amax(-1)
    best = (hidden - _HIDDEN).clamp_min(0).argmin(1)
    row = torch.arange(n, device=extent.device)
    return centre[row, best], size[row, best], depth[row, best]
