"""Draws the same held-out subjects in the same noise with the weights of every stage that git keeps.

    python scripts/stages.py -o docs/images/stages.webp

A row is a commit's weights as they were then, its strength of subjects included; a column a case of `ssr proof`, the
first of each line and not chosen. Needs the whole history (`git fetch --unshallow`).
"""

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from ssr_encoder import SSREncoder
from ssr_encoder.files import written_beside
from ssr_encoder.images import picture_grid
from ssr_encoder.marks import font, mark_query
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.proof import make_cases
from ssr_encoder.mini.proof_pictures import make_pictures
from ssr_encoder.mini.world import load_world

WEIGHTS = "ssr_encoder/mini/weights"
# What is written beside the row, and the commit that brought the weights; the last row is the checkout itself.
STAGES = [
    ("session 1", "8eb2e53"),
    ("session 2", "f2a755d"),
    ("session 4", "e80c6b3"),
    ("session 7", "c942b6f"),
    ("session 12", "74f9e9c"),
    ("session 13", "e52ae3d"),
    ("session 14", "e507ed7"),
    ("session 18", "6a7154d"),
    ("now", None),
]
LINES = {"text": 4, "mask": 2, "composed": 2}  # cases of each
SIDE, GAP, LABEL = 128, 4, 132


def weights_of(commit: str, folder: Path) -> Path:
    """The weights of a commit, taken out of git into a folder."""
    archive = subprocess.run(["git", "archive", commit, WEIGHTS], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / WEIGHTS


def make_row(weights: Path, lines: dict, steps: int) -> list[Image.Image]:
    ssr = SSREncoder.from_pretrained(str(weights))
    pictures = []
    for cases in lines.values():
        subjects = [[ssr.encode(r, **q) for r, q in zip(c.references, c.queries, strict=True)] for c in cases]
        pictures += [picture_grid(p[None], 1) for p in make_pictures(ssr, cases, subjects, steps, seed=0)]
    return pictures


def reference_tile(case) -> Image.Image:
    """The reference with its query drawn in; two of them small, in opposite corners."""
    if len(case.references) == 1:
        return mark_query(case.references[0], case.queries[0], SIDE)
    tile, half = Image.new("RGB", (SIDE, SIDE), "white"), SIDE // 2
    for i, (reference, query) in enumerate(zip(case.references, case.queries, strict=True)):
        tile.paste(mark_query(reference, query, half, label=False), (i * half, i * half))
    return tile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default 20)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    world = load_world("cpu", weights_dir())
    lines = {line: make_cases(world, line, n, seed=0) for line, n in LINES.items()}
    cases = [case for part in lines.values() for case in part]
    rows = [("asked for", "", [reference_tile(case) for case in cases])]
    for name, commit in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_of(commit, Path(folder)) if commit else weights_dir()
            samples = json.loads((weights / "unet.json").read_text())["samples"]
            rows.append((name, f"{samples / 1e6:.2f} M samples", make_row(weights, lines, args.steps)))
        print(name, samples, flush=True)
    sheet = Image.new("RGB", (LABEL + len(cases) * (SIDE + GAP), len(rows) * (SIDE + GAP) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, samples, pictures) in enumerate(rows):
        y = i * (SIDE + GAP)
        draw.text((8, y + 46), name, "black", font(20))
        draw.text((8, y + 72), samples, "gray", font(14))
        for j, picture in enumerate(pictures):
            sheet.paste(picture, (LABEL + j * (SIDE + GAP), y))
    with written_beside(args.output) as path:
        sheet.save(path, quality=85)
    print(*(case.prompt for case in cases), sep="\n")


if __name__ == "__main__":
    main()
