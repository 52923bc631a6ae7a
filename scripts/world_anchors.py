"""Measures of a sprite that drawing scenes needs: its extent, where a hat sits, and its luminance range."""

import numpy as np


def extents(sprites: np.ndarray) -> list[list[float]]:
    """left, top, right, bottom of each drawing in its square, in [-0.5, 0.5]."""
    side = sprites.shape[1]
    result = []
    for alpha in sprites[..., 3]:
        rows, columns = np.flatnonzero((alpha > 0.3).any(1)), np.flatnonzero((alpha > 0.3).any(0))
        ends = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        result.append([round(float(e) / side - 0.5, 4) for e in ends])
    return result


def luminance_ends(sprites: np.ndarray) -> list[list[float]]:
    """The 3rd and 97th percentile of each drawing's luminance, at least 0.25 apart."""
    result = []
    for picture in sprites:
        inside = picture[..., 3] > 0.9
        luma = (picture[..., :3] @ np.float32([0.299, 0.587, 0.114]))[inside]
        low, high = np.percentile(luma, (3, 97))
        gap = max(0.0, 0.25 - (high - low)) / 2
        result.append([round(float(low - gap), 4), round(float(high + gap), 4)])
    return result


def hat_seats(sprites: np.ndarray) -> list[list[float]]:
    """x, y on top of each drawing where a hat sits: the highest place broad enough, tails, ears and horns left out."""
    side = sprites.shape[1]
    result = []
    for alpha in sprites[..., 3]:
        solid = _open(alpha > 0.5, radius=side // 14)
        if not solid.any():
            solid = alpha > 0.5
        top = np.where(solid.any(0), solid.argmax(0), side).astype(float)
        width = side // 5
        means = np.convolve(top, np.ones(width) / width, "valid")
        best = means.min()
        # Among the nearly highest the middle one: a flat head carries its hat in the centre.
        candidates = np.flatnonzero(means <= best + 1.5)
        start = int(np.median(candidates))
        y = float(np.median(top[start : start + width]))
        result.append([round((start + width / 2) / side - 0.5, 4), round(min(y, side - 1) / side - 0.5, 4)])
    return result


def _open(mask: np.ndarray, radius: int) -> np.ndarray:
    """Morphological opening with a disc: what is thinner than the disc vanishes."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    offsets = np.argwhere(x * x + y * y <= radius * radius) - radius

    def spread(m: np.ndarray) -> np.ndarray:
        padded = np.pad(m, radius)
        h, w = m.shape
        return np.any([padded[radius + i : radius + i + h, radius + j : radius + j + w] for i, j in offsets], 0)

    return spread(~spread(~mask))
