"""Small results folders, with real pictures and records, as `ssr bench run` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ssr_encoder.bench import results

CONCEPTS = ("fox", "dog", "cup", "hat", "bus", "cat", "owl", "pig")
PLACES = ("in the jungle", "on the beach", "in the snow & <ice>")
METRICS = {
    "clip_t": {"direction": "higher", "backbone": "mini-clip", "preprocessing": "64 px, bicubic", "version": 1},
    "lpips": {"direction": "lower", "backbone": "alex", "preprocessing": "none", "torchmetrics": "1.9"},
}
SIDE = 48  # pixels
COLOURS = ((200, 70, 40), (60, 120, 200), (80, 160, 70), (160, 90, 190))


def make_run(
    folder: Path,
    method: str = "ssr",
    *,
    quality: float = 0.5,
    subjects: int = 6,
    images: int = 2,
    places=PLACES,
    heat_maps: bool = True,
    metrics: dict | None = None,
    digest: str = "d1" * 32,
    values=None,
    **meta,
) -> Path:
    """Writes a run of ``subjects`` times ``len(places)`` items and returns its folder.

    Args:
        quality: clip_t is about it, lpips about 1 less it; every subject has a level of its own, the same for all runs.
        values: a function (subject index, item index, image index, metric) -> value or None, instead of that.
        meta: further entries of run.json, such as settings.
    """
    metrics = METRICS if metrics is None else metrics
    rng = np.random.default_rng(sum(map(ord, f"{method}{quality}")))
    levels = np.random.default_rng(1).normal(0, 0.1, size=subjects)
    keys = {(s, i): f"{CONCEPTS[s % 8]}-{s}-{i}" for s in range(subjects) for i in range(len(places))}
    run = {
        "format": results.RUN_FORMAT,
        "benchmark": "mini-dreambench",
        "version": 1,
        "digest": digest,
        "method": method,
        "model": "mini",
        "settings": {"steps": 12, "guidance_scale": 5.0, "seed": 0, "n": subjects, "images": images},
        "versions": {"ssr-encoder": "0.1", "torch": "2.14.1", "python": "3.11"},
        "commit": "abcdef0123456789",
        "fingerprint": "f" * 16,
        "metrics": metrics,
        **meta,
    }
    identity = {name: run[name] for name in ("benchmark", "digest", "method", "settings", "fingerprint")}
    run |= {"hash": results.digest_of([identity, quality]), "metrics_hash": results.digest_of(metrics)}
    run["items"] = list(keys.values())
    results.begin(folder, run)
    for s in range(subjects):
        concept = CONCEPTS[s % 8]
        if heat_maps:
            results.write_picture(folder / "maps" / f"{concept}-{s}.png", draw_picture(s, "map"))
        for i, place in enumerate(places):
            record = {
                "hash": run["hash"],
                "key": keys[s, i],
                "subject": f"{concept}-{s}",
                "class_name": concept,
                "prompt": f"a {concept} {place}",
                "query": {"query": concept} if s % 2 else {"query": concept, "box": [6, 6, 30, 40]},
                "tags": ["live" if s % 3 else "object", f"frequency:{10 ** (s % 4)}"],
                "others": [],
                "seconds": 0.5,
            }
            pictures = [draw_picture(s, method, i * images + n) for n in range(images)]
            item = results.write_item(folder, record, draw_picture(s, "reference"), pictures)
            if not metrics:
                continue
            found: dict[str, list] = {metric: [] for metric in metrics}
            for n in range(images):
                value = quality + levels[s] + rng.normal(0, 0.02)
                for metric in metrics:
                    usual = value if metrics[metric]["direction"] == "higher" else 1 - value
                    found[metric].append(float(usual) if values is None else values(s, i, n, metric))
            results.write_scores(folder, item, run["metrics_hash"], found)
    return folder


def draw_picture(subject: int, kind: str, number: int = 0) -> Image.Image:
    """A disc for the subject on a ground that depends on what it is."""
    ground = {"reference": (235, 228, 210), "map": (30, 20, 60)}.get(kind, (120 + 20 * (len(kind) % 6), 190, 200))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    x = 8 + (number * 5) % 18
    ImageDraw.Draw(image).ellipse((x, 10, x + 22, 36), fill=COLOURS[subject % 4])
    return image
