"""Drawing of scenes: backdrop, contact shadows, subjects and hats, composited back to front in one batch.

A canvas has six planes: red, green, blue and the visible coverage of the three slots. To put something on it is, for
all planes at once, `canvas * (1 - alpha) + source`; so coverage is hidden exactly as colour is.
"""

import math

import torch
import torch.nn.functional as F

from .tint import hue_matrix

# Scenes drawn at a time: on the CPU their canvases stay in its cache; a GPU wants many, but a thousand fill its memory.
CHUNK = {"cpu": 32, "cuda": 512}
_WINDOW = 1.36  # side of the part of the canvas that a subject can touch, turned and with its shadow, by its own side
_HAT_SINKS = 0.12  # part of a hat's height below the top of the head


@torch.no_grad()
def render(world, scenes, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws scenes.

    Args:
        scenes: n scenes on the world's device.
        size: side of the pictures in pixels.

    Returns:
        Images (n, 3, size, size), float32 in [0, 1], and masks (n, 3, size, size): the visible coverage of each slot's
        subject in [0, 1], without its hat; zero for an empty slot. A scene's picture does not depend on the batch.
    """
    step = CHUNK.get(world.device.type, CHUNK["cuda"])
    images = torch.empty(len(scenes), 3, size, size, device=world.device)
    masks = torch.empty_like(images)
    for start in range(0, len(scenes), step):
        part = slice(start, start + step)
        canvas = _draw(world, scenes[part], size)
        images[part], masks[part] = canvas[:, :3], canvas[:, 3:]
    return images.clamp_(0, 1), masks


def boxes(masks: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """x0, y0, x1, y1 in [0, 1] of where each mask (n, 3, h, w) reaches `threshold`: (n, 3, 4), zeros if nowhere."""
    filled = masks >= threshold
    columns, rows = filled.any(-2), filled.any(-1)

    def span(line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        length = line.shape[-1]
        line = line.float()
        return line.argmax(-1) / length, 1 - line.flip(-1).argmax(-1) / length

    (x0, x1), (y0, y1) = span(columns), span(rows)
    return torch.stack([x0, y0, x1, y1], -1) * filled.flatten(2).any(-1, keepdim=True)


def _draw(world, scenes, size: int) -> torch.Tensor:
    """The canvas (n, 6, size, size) of scenes."""
    n = len(scenes)
    backdrop = _backdrop(world, scenes, size)
    canvas = torch.cat([backdrop, torch.zeros_like(backdrop)], 1)
    order = torch.where(scenes.concept >= 0, scenes.depth, math.inf).argsort(1)
    every = torch.arange(n, device=world.device)
    for layer in range(order.shape[1]):
        slot = order[:, layer]
        concept, style, colour = (getattr(scenes, k)[every, slot] for k in ("concept", "style", "colour"))
        centre, side, angle, flip = (getattr(scenes, k)[every, slot] for k in ("centre", "size", "angle", "flip"))
        here, concept = concept >= 0, concept.clamp_min(0)
        sprite = world.index[concept, style, colour]
        paint = concept, style, colour
        pose = centre, side, angle, flip
        _place(world, canvas, here, sprite, pose, paint, slot, world.shadow[scenes.place])
        seat = world.hat_seat[sprite] * torch.stack([torch.where(flip, -1.0, 1.0), torch.ones_like(side)], -1)
        rise = torch.tensor([0.0, world.hat_size * (0.5 - _HAT_SINKS)], device=side.device)
        pose = centre + _turn(seat - rise, angle) * side[:, None], side * world.hat_size, angle, flip
        _place(world, canvas, here & scenes.hat[every, slot], world.hat_index[style], pose)
    return canvas


def _place(world, canvas, here, sprite, pose, paint=None, slot=None, shadow=None) -> None:
    """Puts sprites (n,) at their poses on the canvas where `here` is true, in place.

    paint: identities to recolour as; slot: whose coverage they are; shadow (n,): how dark they make the ground.
    """
    size = canvas.shape[-1]
    textures, levels = world.mips(size)
    centre, side, angle, flip = pose
    level = ((levels[None, :, 2] >= side[:, None] * (size * 0.97)).sum(1) - 1).clamp_min(0)  # the smallest not below
    if canvas.device.type != "cpu":
        groups = [(slice(None), levels[level], textures, size)]
    else:  # only what is there, in windows no larger than needed: counting costs nothing here
        groups = []
        for k, (x, y, length) in enumerate(levels.long().tolist()):
            rows = (here & (level == k)).nonzero()[:, 0]
            if len(rows):
                cut = textures[:, :, y - 1 : y + length + 1, x - 1 : x + length + 1]
                reach = float(side[rows].max()) * size
                window = min(size, 8 * math.ceil((_WINDOW * reach + 2) / 8))
                groups.append((rows, torch.tensor([1.0, 1.0, length]).expand(len(rows), 3), cut, window))
    for rows, spot, source, window in groups:
        where = centre[rows], side[rows], angle[rows], flip[rows]
        start = (where[0] * size - window / 2).round().long().clamp(0, size - window)
        pixels = start[:, None, :] + torch.arange(window, device=canvas.device)[None, :, None]  # (m, window, x and y)
        points = (pixels + 0.5) / size
        texture = source[sprite[rows]].float() / 255
        if paint is not None:
            texture = world.paint(texture, *(t[rows] for t in paint))
        grid = _texture_grid(points, where, spot, texture.shape)
        rgba = F.grid_sample(texture, grid, mode="bilinear", align_corners=False)
        rgba = rgba * here[rows].float()[:, None, None, None]
        keep = 1 - rgba[:, 3:]
        layer = rgba[:, :3]
        if slot is None:
            layer = torch.cat([layer, torch.zeros_like(layer)], 1)
        else:
            owner = F.one_hot(slot[rows], 3).float()[:, :, None, None]
            layer = torch.cat([layer, owner * rgba[:, 3:]], 1)
            dark = _shadow(world.extent[sprite[rows]], points, where, (shadow * here)[rows])
            keep = torch.cat([(keep * (1 - dark)).expand(-1, 3, -1, -1), keep.expand(-1, 3, -1, -1)], 1)
        if canvas.device.type != "cpu":
            canvas.mul_(keep).add_(layer)
            continue
        windows = canvas.unfold(2, window, 1).unfold(3, window, 1)  # a view; each row's window appears once
        windows[rows, :, start[:, 1], start[:, 0]] = windows[rows, :, start[:, 1], start[:, 0]].mul_(keep).add_(layer)


def _turn(vector: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Turns (n, 2) clockwise, as seen with y down."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = vector.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _texture_grid(points, where, spot, shape) -> torch.Tensor:
    """Sampling grid (m, window, window, 2) from the pixels' centres (m, window, 2) into textures of `shape`."""
    centre, side, angle, flip = where
    x, y = (points - centre[:, None]).unbind(-1)
    cos, sin = (f(angle)[:, None] / side[:, None] for f in (torch.cos, torch.sin))
    mirror = torch.where(flip, -1.0, 1.0)[:, None]
    across, down = (mirror * cos * x, -sin * x), (mirror * sin * y, cos * y)  # what columns and rows contribute
    parts = []
    for axis, length in ((0, shape[-1]), (1, shape[-2])):
        # Beyond the drawing: the centre of the gutter's pixels, which are transparent.
        scale, origin = spot[:, 2] * (2 / length), (spot[:, axis] + 0.5 * spot[:, 2]) * (2 / length) - 1
        edge = ((0.5 + 0.5 / spot[:, 2]) * scale)[:, None, None]
        local = (across[axis] * scale[:, None])[:, None, :] + (down[axis] * scale[:, None])[:, :, None]
        parts.append(torch.maximum(torch.minimum(local, edge), -edge) + origin[:, None, None])
    return torch.stack(parts, -1)


def _shadow(extent, points, where, strength) -> torch.Tensor:
    """Soft ellipses where subjects touch the ground: (m, 1, window, window)."""
    centre, side, angle, flip = where
    middle = (extent[:, 0] + extent[:, 2]) / 2 * torch.where(flip, -1.0, 1.0)
    foot = centre + _turn(torch.stack([middle, extent[:, 3] - 0.02], -1), angle) * side[:, None]
    reach = torch.stack([(extent[:, 2] - extent[:, 0]) * 0.58, torch.full_like(side, 0.11)], -1) * side[:, None]
    bump = (1 - ((points - foot[:, None]) / reach[:, None]).square()).clamp_min(0).square()
    return ((bump[..., 1] * strength[:, None])[:, :, None] * bump[..., 0][:, None, :])[:, None]


def _backdrop(world, scenes, size: int) -> torch.Tensor:
    """The places of scenes: (n, 3, size, size)."""
    pictures = world.scaled_backdrops(size)
    slack = pictures.shape[-1] - size
    x, y = (scenes.crop * (slack + 1)).long().clamp_max(slack).unbind(1)
    windows = pictures.flatten(0, 1).unfold(2, size, 1).unfold(3, size, 1)
    image = windows[scenes.place * pictures.shape[1] + scenes.variant, :, y, x].float().mul_(1 / 255)
    image = torch.where(scenes.mirror[:, None, None, None], image.flip(-1), image)
    return (hue_matrix(scenes.hue, scenes.brightness) @ image.flatten(2)).view_as(image).clamp_(0, 1)
