"""The qualitative grids: the right picture in the right place, and the choice of items."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from results_made import SIDE, draw_picture, make_run

from ssr_encoder.bench.figures import choose_items, item_grid
from ssr_encoder.bench.results import load_run
from ssr_encoder.cli import main
from ssr_encoder.errors import SSRError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def values(s, i, n, metric):  # the last subject is best in clip_t and worst in lpips
        return s / 10 + i / 100

    return [make_run(folder / "a", "ssr", subjects=5, values=values), make_run(folder / "b", "text", subjects=5)]


@pytest.fixture(scope="module")
def runs(folders):
    return [load_run(folder) for folder in folders]


def found_at(grid: Image.Image, picture: Image.Image) -> list[tuple[int, int]]:
    """Where a picture of SIDE pixels stands in the grid, as it is."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(grid), (SIDE, SIDE, 3))[:, :, 0]
    wanted = np.asarray(picture)
    near = (windows[:, :, ::12, ::12] == wanted[::12, ::12]).all((2, 3, 4))
    return [(int(x), int(y)) for y, x in np.argwhere(near) if (windows[y, x] == wanted).all()]


def test_columns_are_items_and_rows_are_methods(runs):
    keys = ["dog-1-0", "fox-0-2", "hat-3-1"]
    grid = item_grid(runs, ["ssr", "text"], keys, images=1, tile=SIDE)
    places = {}
    for row, run in enumerate(runs):
        for column, key in enumerate(keys):
            (places[row, column],) = found_at(grid, Image.open(run.pictures(key)[0]).convert("RGB"))
    (reference,) = found_at(grid, draw_picture(1, "reference"))
    assert reference[0] == places[0, 0][0] == places[1, 0][0] and reference[1] < places[0, 0][1] < places[1, 0][1]
    assert places[0, 0][0] < places[0, 1][0] < places[0, 2][0] and len({places[0, c][1] for c in range(3)}) == 1
    assert found_at(grid, draw_picture(0, "reference")) == []  # asked for by a box, which is drawn on it
    above = np.asarray(grid)[reference[1] + SIDE : places[0, 0][1], reference[0] :]
    assert above.min() < 100  # query and prompt
    assert np.asarray(grid)[places[1, 0][1] : places[1, 0][1] + SIDE, : reference[0] - 3].min() < 100  # the label


def test_several_pictures_of_each_item(runs):
    one = item_grid(runs[:1], ["ssr"], ["dog-1-0"], images=1, tile=SIDE)
    two = item_grid(runs[:1], ["ssr"], ["dog-1-0"], images=2, tile=SIDE)
    assert two.width == one.width and two.height > one.height + SIDE
    first, second = (found_at(two, Image.open(path).convert("RGB")) for path in runs[0].pictures("dog-1-0"))
    assert first[0][0] == second[0][0] and first[0][1] + SIDE < second[0][1]
    with pytest.raises(SSRError, match="has 2 pictures, not 3; "):
        item_grid(runs, ["ssr", "text"], ["dog-1-0"], images=3)
    with pytest.raises(SSRError, match="no item nothing; "):
        item_grid(runs, ["ssr", "text"], ["nothing"])


def test_long_words_stay_inside(runs):
    run = load_run(runs[0].folder)
    run.items["dog-1-0"]["prompt"] = "a dog " + "w" * 40 + " in the middle of a very long prompt " * 6
    wide = item_grid([run], ["a method of a rather long name (subject_scale 0.5)"], ["dog-1-0"], tile=96)
    usual = item_grid([run], ["ssr"], ["dog-1-0"], tile=96)
    assert wide.width > usual.width and np.asarray(wide)[:, -2:].min() == 255


def test_choice_by_a_metric(runs):
    assert choose_items(runs[0], 3, "best", "clip_t") == ["bus-4-2", "hat-3-2", "cup-2-2"]
    assert choose_items(runs[0], 2, "best", "lpips") == ["fox-0-0", "dog-1-0"]  # lower is better
    assert choose_items(runs[0], 2, "worst", "clip_t") == ["fox-0-0", "dog-1-0"]
    assert choose_items(runs[0], 1, "median", "clip_t") == ["cup-2-1"]
    seven = choose_items(runs[0], 7)
    assert {run.split("-")[0] for run in seven[:5]} == {"bus", "hat", "cup", "dog", "fox"}
    assert seven[5:] == ["bus-4-1", "hat-3-1"]  # a second one of each only then
    assert len(choose_items(runs[0], 100)) == 15
    with pytest.raises(SSRError, match="has no dino; it was measured by clip_t, lpips"):
        choose_items(runs[0], 1, "best", "dino")


def test_command(folders, tmp_path, capsys):
    path = tmp_path / "figure.png"
    assert main(["bench", "figures", *map(str, folders), "-o", str(path), "-n", "3", "--side", "64"]) == 0
    assert "bus-4-2, hat-3-2, cup-2-2" in capsys.readouterr().err
    with Image.open(path) as picture:
        assert picture.mode == "RGB" and picture.width > 4 * 64
    assert main(["bench", "figures", str(folders[0]), "-o", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    again = ["bench", "figures", str(folders[0]), "-o", str(path), "--overwrite", "--items"]
    assert main([*again, "dog-1-0,fox-0-0"]) == 0
    assert main([*again, "dog-1-0,dog-1-0"]) == 2
    other = make_run(tmp_path / "other", "text", subjects=5, digest="e2" * 32)
    assert main(["bench", "figures", str(folders[0]), str(other), "-o", str(tmp_path / "x.png")]) == 2
    assert "different benchmarks" in capsys.readouterr().err and not (tmp_path / "x.png").exists()
