"""``ssr demo``: its pictures, its page, its commands."""

import dataclasses
import json
import re
import runpy
import shlex
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.cli.folders import whole_folder
from ssr_encoder.demo.make import count_pictures, make_clip, make_demo, make_layout
from ssr_encoder.demo.scenes import REFERENCES, compose_commands, generate_command, load_companions, load_scenes
from ssr_encoder.demo.sheet import shown_frames
from ssr_encoder.marks import mark_query, query_words
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.video import clip_bytes

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_demo_pictures.py"


def test_references_are_what_the_script_draws(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["make_demo_pictures", "-o", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")  # it refuses identities that are not held out
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in REFERENCES.iterdir())
    assert json.loads((tmp_path / "scenes.json").read_text()) == json.loads((REFERENCES / "scenes.json").read_text())
    for name in drawn:
        if name.endswith(".png"):
            new, shipped = (np.asarray(Image.open(folder / name), dtype=int) for folder in (tmp_path, REFERENCES))
            assert new.shape == shipped.shape and abs(new - shipped).max() <= 2, name


def test_every_way_of_asking_is_shown():
    pictures, composed = load_scenes()
    subjects = [subject for picture in pictures for subject in picture.subjects]
    assert {key for subject in subjects for key in subject.query} == {"query", "box", "point", "mask"}
    assert all(len(picture.subjects) in (2, 3) and picture.open().size == (128, 128) for picture in pictures)
    assert all(len(subject.prompts) == 4 and all(subject.name in p for p in subject.prompts) for subject in subjects)
    twins = [p for p in pictures if len({s.name for s in p.subjects}) < len(p.subjects)]
    assert twins and all("query" not in s.query for p in twins for s in p.subjects), "told apart by place alone"
    assert len({subject.picture.path for subject in composed.subjects}) == 2
    assert count_pictures(pictures, composed) == 4 * len(subjects) + len(composed.prompts)


def test_the_map_is_the_subjects_own_silhouette_elsewhere():
    pictures, _ = load_scenes()
    layout, clip = load_companions(pictures)
    drawn = np.asarray(Image.open(layout.map))
    assert drawn.shape == (128, 128) and 0.1 < (drawn > 127).mean() < 0.5 and drawn[0].max() == drawn[-1].max() == 0
    assert len(layout.prompts) == 2 and all(layout.subject.name in prompt for prompt in layout.prompts)
    assert clip.subject.name in clip.prompt and clip.frames == 16
    assert shown_frames(16) == [0, 3, 6, 9, 12, 15] and shown_frames(6) == [0, 1, 2, 3, 4, 5]


def test_marks():
    picture = Image.new("RGB", (64, 48), (90, 160, 90))
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:30, 10:30] = 255

    def changed(query: dict) -> np.ndarray:
        marked = mark_query(picture, query, 128)
        assert marked.size == (128, 96)
        return abs(np.asarray(marked, dtype=int) - (90, 160, 90)).max(2) > 40

    box = changed({"box": [20, 12, 60, 40]})
    assert box[22:26].any() and box[:, 38:42].any() and not box[30:74, 48:112].any() and not box[:16].any()
    point = changed({"point": [32, 24]})
    assert point[48, 64] and not point[:, :40].any() and not point[:, 88:].any()
    outlined = changed({"mask": mask})
    assert outlined[80:].all() and not outlined[26:54, 26:54].any(), "dimmed outside, untouched inside"
    text = changed({"query": "cat"})
    assert text[60:, :60].any() and not text[:40].any()
    assert query_words({"query": "cat", "box": [1, 2, 3, 4]}) == "“cat” in a box"
    assert query_words({"point": [1, 2]}) == "a point"


def test_the_commands_make_the_same_pictures(ssr, here, model):
    pictures, composed = load_scenes()
    steps = []
    encoder = SSREncoder.from_pretrained(model, device="cpu")
    rows, together = make_demo(encoder, pictures, composed, steps=2, seed=3, on_step=lambda: steps.append(1))
    assert len(steps) == 2 * (len(rows) + 1)
    (here / "references").mkdir()
    for path in REFERENCES.glob("*.png"):
        (here / "references" / path.name).write_bytes(path.read_bytes())
    expected, made = [], here / "made"
    made.mkdir()
    for row in rows:
        assert run(ssr, generate_command(row.subject, row.subject.prompts, 2, 3, model)) == 0
        expected += row.scenes
    for command in compose_commands(composed, 2, 3, model):
        assert run(ssr, command) == 0
    expected += together.scenes
    files = sorted(made.glob("*.png"))
    assert len(files) == len(expected) == count_pictures(pictures, composed)
    for file, picture in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(picture)), file.name


def test_the_commands_of_map_and_clip_make_the_same(ssr, here, companions):
    pictures, _ = load_scenes()
    layout, clip = load_companions(pictures)
    encoder = SSREncoder.from_pretrained(companions, device="cpu")
    steps = []
    row = make_layout(encoder, layout, steps=1, seed=3, on_step=lambda: steps.append(1))
    assert len(steps) == 3
    clip = dataclasses.replace(clip, frames=3)
    clip_row = make_clip(encoder, clip, steps=1, seed=3)
    for folder in ("references", "made"):
        (here / folder).mkdir()
    for path in REFERENCES.glob("*.png"):
        (here / "references" / path.name).write_bytes(path.read_bytes())
    for more in (layout.option, ""):
        assert run(ssr, generate_command(layout.subject, layout.prompts, 1, 3, companions, more)) == 0
    for i, expected in enumerate(row.guided + row.free, 1):
        assert np.array_equal(np.asarray(Image.open(f"made/ssr-{i:04}.png")), np.asarray(expected)), i
    assert run(ssr, generate_command(clip.subject, [clip.prompt], 1, 3, companions, clip.option)) == 0
    assert Path("made/ssr-0005.gif").read_bytes() == clip_bytes(clip_row.frames, ".gif")


def run(ssr, command: list[str]) -> int:
    words = shlex.split(" ".join(command))
    assert words[0] == "ssr"
    return ssr(*words[1:], *(["-o", "made/"] if words[1] == "generate" else [])).code


def test_demo(ssr, here):
    result = ssr("demo", "--steps", 1, "--device", "cpu")
    assert result.code == 0, result.err
    folder = here / "ssr-demo"
    assert str(Path("ssr-demo") / "contact-sheet.png") in result.out and (folder / "index.html").as_uri() in result.out
    assert sorted(path.name for path in folder.iterdir()) == ["contact-sheet.png", "index.html", "references"]
    assert [path.name for path in here.iterdir()] == ["ssr-demo"]
    sheet = np.asarray(Image.open(folder / "contact-sheet.png"))
    assert sheet.shape[2] == 3 and sheet.shape[1] > 1500 and sheet.shape[0] > 2000 and sheet.std() > 20

    page = (folder / "index.html").read_text()
    pictures, composed = load_scenes()
    subjects = [subject for picture in pictures for subject in picture.subjects]
    expected = 6 * len(subjects) + 6  # two given and four made a subject, and of the two composed
    expected += 6 * (weights_dir() / "controlnet").is_dir() + 8 * (weights_dir() / "motion_adapter").is_dir()
    assert len(re.findall(r'<img src="data:image/webp;base64,[\w+/=]{500,}"', page)) == expected
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", page), "nothing is loaded from elsewhere"
    text = unescape(page)
    for subject in subjects:
        assert all(prompt in text for prompt in subject.prompts)
        assert " ".join(["ssr generate", subject.picture.name, *map(shlex.quote, subject.options())]) in text
    assert all(prompt in text for prompt in composed.prompts)
    for name in re.findall(r"references/[\w-]+\.png", page):
        assert (folder / name).is_file()


@pytest.mark.parametrize(("only", "pictures", "word"), [("control", 6, "--control"), ("video", 8, "--frames 16")])
def test_demo_of_one_part(ssr, here, companions, only, pictures, word):
    result = ssr("demo", "--only", only, "--steps", 1, "--model", companions, "-o", "out")
    assert result.code == 0, result.err
    page = (here / "out" / "index.html").read_text()
    assert len(re.findall(r'<img src="data:image/webp;base64,[\w+/=]{300,}"', page)) == pictures and word in page
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", page)
    assert len(re.findall("<section>", page)) == 1
    assert (here / "out" / "references" / "layout-fox.png").is_file()
    sheet = np.asarray(Image.open(here / "out" / "contact-sheet.png"))
    assert sheet.shape[1] > 1500 and 500 < sheet.shape[0] < 1000


def test_a_part_that_the_base_model_cannot_show(ssr, here, model):
    for only, what in (("control", "ControlNet"), ("video", "motion adapter")):
        result = ssr("demo", "--only", only, "--model", model)
        assert result.code == 2 and f"no {what} of its own" in result.err and result.err.count("\n") == 1
    assert not any(here.iterdir())


@pytest.mark.parametrize(
    ("place", "words"),
    [("file", "is a file"), ("full", "other files"), ("none/deeper", "does not exist"), ("/proc/demo", "cannot write")],
)
@pytest.mark.parametrize("command", ["demo", "proof"])
def test_bad_output(ssr, here, command, place, words):
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("mine")
    before = sorted(here.rglob("*"))
    result = ssr(command, "-o", place)
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_folders_are_written_whole(tmp_path):
    folder = tmp_path / "results"
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())
    for text in ("one", "two"):
        with whole_folder(folder) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / "file").write_text(text)
    assert (folder / "sub" / "file").read_text() == "two"
    assert [path.name for path in folder.iterdir()] == ["sub"]
    with pytest.raises(SSRError, match="cannot write"), whole_folder(folder) as temporary:
        (temporary / "missing" / "file").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["sub"]
