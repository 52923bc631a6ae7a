"""Clips: scenes in motion. One scene becomes as many scenes as the clip has frames, drawn by ``World.render`` as usual.

Every subject has a motion of its own, the same identity in all frames, and the backdrop stands still or pans a little.
All motions move the middle of a subject; they are smooth, of less than a pixel where they are slow, and of random
size, speed and phase. Over the clip, whatever its number of frames, u goes from 0 to 1.
"""

import dataclasses
import math

import torch

from .atlas import CROP
from .scenes import SLOTS, Scenes, sample_scenes

FRAMES, FPS = 16, 8  # of the embedded motion model's clips
MOTIONS = ("walk", "bounce", "cross", "turn", "grow")
_ODDS = (0.30, 0.25, 0.20, 0.15, 0.10)
_SPILL = 0.05  # part of the picture by which a drawing may leave it
_SLACK = round(128 / CROP) - 128  # pixels by which a window of 128 can move over its backdrop


def sample_clips(world, n: int, frames: int, generator: torch.Generator, split: str = "train", **scenes) -> Scenes:
    """n random clips: Scenes of n * frames rows, the frames of a clip one after the other.

    Args:
        generator: of the world's device.
        scenes: as for :func:`sample_scenes`; by default a clip shows one or two subjects.
    """
    scenes.setdefault("subjects", (0.6, 0.4, 0.0))
    return animate(world, sample_scenes(world, n, generator, split=split, **scenes), frames, generator)


def animate(
    world, scenes: Scenes, frames: int, generator: torch.Generator, kind: torch.Tensor | None = None, pan: float = 0.12
) -> Scenes:
    """Give every subject of n scenes a motion around its place.

    Args:
        kind: (n, 3) long, index into MOTIONS by slot; default random. Two subjects that cross go opposite ways.
        pan: probability that the backdrop passes by, one pixel a frame.

    Returns:
        Scenes of n * frames rows, the frames of a clip one after the other.
    """
    n, device = len(scenes), world.device

    def rand(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    if kind is None:
        odds = torch.tensor(_ODDS, device=device).expand(n * SLOTS, -1)
        kind = torch.multinomial(odds, 1, generator=generator).view(n, SLOTS)
        # Who crosses is met by one who crosses: otherwise few would.
        met = (kind[:, :1] == MOTIONS.index("cross")) & (torch.arange(SLOTS, device=device) == 1)
        kind = torch.where(met, MOTIONS.index("cross"), kind)
    is_kind = {name: (kind == k)[..., None] for k, name in enumerate(MOTIONS)}
    u = torch.linspace(0, 1, frames, device=device)  # (frames,), broadcasts over (n, slots, frames)
    zero = torch.zeros(n, SLOTS, frames, device=device)

    size = scenes.size * rand(n, 1, low=0.75, high=0.95)  # room to move
    way = torch.where(rand(n, 1) < 0.5, -1.0, 1.0) * torch.tensor([1.0, -1.0, 1.0], device=device)
    own_way = torch.where(is_kind["cross"][..., 0], way, torch.where(rand(n, SLOTS) < 0.5, -1.0, 1.0))[..., None]
    phase, cycles = rand(n, SLOTS, 1), rand(n, SLOTS, 1, low=0.8, high=1.6)
    wave = torch.sin(2 * math.pi * (cycles * u + phase))
    hop = torch.sin(math.pi * (cycles * 1.3 * u + phase)).abs()
    step = torch.sin(math.pi * (3 * cycles * u + phase)).abs()

    # Offsets of the middle as fractions of the picture, y down.
    walk, cross = rand(n, SLOTS, 1, low=0.15, high=0.40), rand(n, SLOTS, 1, low=0.45, high=0.70)
    x = torch.where(is_kind["walk"], walk * own_way * (u - 0.5), zero)
    x = torch.where(is_kind["cross"], cross * own_way * (u - 0.5), x)
    x = torch.where(is_kind["bounce"], rand(n, SLOTS, 1, low=-0.1, high=0.1) * (u - 0.5), x)
    bob = torch.where(is_kind["walk"] | is_kind["cross"], rand(n, SLOTS, 1, low=0.01, high=0.03) * -step, zero)
    y = torch.where(is_kind["bounce"], rand(n, SLOTS, 1, low=0.12, high=0.30) * -hop, bob)

    # Who turns rocks on its feet, who grows keeps them where they are.
    rock = torch.where(is_kind["turn"], rand(n, SLOTS, 1, low=0.3, high=0.6) * wave, zero)
    factor = torch.where(is_kind["grow"], 1 + rand(n, SLOTS, 1, low=0.18, high=0.30) * wave, zero + 1)
    side = size[..., None] * factor
    extent = _extent(world, scenes)
    foot = extent[..., 3:] * side
    angle = scenes.angle[..., None] + rock
    x = x + torch.sin(angle) * foot - torch.sin(scenes.angle[..., None]) * foot
    y = y - torch.cos(angle) * foot + torch.cos(scenes.angle[..., None]) * extent[..., 3:] * size[..., None]

    centre = _inside(scenes, extent, side, torch.stack([x, y], -1))
    crop = _pan(scenes.crop, frames, pan, rand)
    rows = torch.arange(n, device=device).repeat_interleave(frames)
    return dataclasses.replace(
        scenes[rows],
        centre=centre.permute(0, 2, 1, 3).flatten(0, 1),
        size=side.transpose(1, 2).flatten(0, 1),
        angle=angle.transpose(1, 2).flatten(0, 1),
        crop=crop.flatten(0, 1),
    )


def subject_boxes(world, scenes: Scenes) -> torch.Tensor:
    """Around every subject's drawing, hidden parts and what leaves the picture included: (n, 3, 4) x0, y0, x1, y1 as
    fractions of the picture; zeros for an empty slot. Angles do not count."""
    box = _extent(world, scenes) * scenes.size[..., None]
    return (box + scenes.centre.repeat(1, 1, 2)) * (scenes.concept >= 0)[..., None]


def _extent(world, scenes: Scenes) -> torch.Tensor:
    """Of every subject's drawing, flipped as it is: (n, slots, 4) left, top, right, bottom in its square."""
    extent = world.extent[world.index[scenes.concept.clamp_min(0), scenes.style, scenes.colour]]
    mirrored = extent[..., [2, 1, 0, 3]] * torch.tensor([-1.0, 1.0, -1.0, 1.0], device=extent.device)
    return torch.where(scenes.flip[..., None], mirrored, extent)


def _inside(scenes: Scenes, extent, side, offset) -> torch.Tensor:
    """Centres (n, slots, frames, 2) along offsets of that shape: paths longer than the picture has room are shortened,
    then moved inside. Angles do not count."""
    left, top, right, bottom = (part[..., None] for part in extent.unbind(-1))
    top = top - 0.28 * scenes.hat[..., None]
    least = torch.stack([-left * side, -top * side], -1).amax(2, keepdim=True) - _SPILL
    most = torch.stack([1 - right * side, 1 - bottom * side], -1).amin(2, keepdim=True) + _SPILL
    lowest, highest = offset.amin(2, keepdim=True), offset.amax(2, keepdim=True)
    shrink = ((most - least).clamp_min(0.02) / (highest - lowest).clamp_min(1e-6)).clamp_max(1)
    start = torch.minimum(torch.maximum(scenes.centre[:, :, None], least - lowest * shrink), most - highest * shrink)
    return start + offset * shrink


def _pan(crop, frames: int, share: float, rand) -> torch.Tensor:
    """Crops (n, frames, 2). Backdrops are cut at whole pixels, so that a steady pan is one of a pixel a frame."""
    n = len(crop)
    crop = crop[:, None].expand(-1, frames, -1)
    if frames > _SLACK:
        return crop
    here = rand(n, 1) < share
    begin = (rand(n, 1) * (_SLACK + 2 - frames)).floor()
    step = torch.arange(frames, device=crop.device)
    pixel = begin + torch.where(rand(n, 1) < 0.5, step, frames - 1 - step)
    across = torch.where(here, (pixel + 0.5) / (_SLACK + 1), crop[..., 0])
    return torch.stack([across, crop[..., 1]], -1)
