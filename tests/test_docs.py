"""What README and docs tell a reader to type works as it stands."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

import ssr_encoder
from ssr_encoder.cli import _parser
from ssr_encoder.mini.models import weights_dir

ROOT = Path(ssr_encoder.__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "log.md"))
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").is_file(), reason="an installed package has no README beside it"
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True))[:1] == ["ssr"]]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_are_understood(page):
    parser = _parser()
    for words in commands(page):
        assert parser.parse_args(words).run, words


def test_pictures_of_the_readme_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"([a-z-]+\.png)\b(?!\")", "\n".join(blocks("README.md", "bash")))) - {"heat.png"}
    assert len(named) > 2 and "ssr_encoder/demo/references" in text
    for name in named:
        assert (ROOT / "ssr_encoder/demo/references" / name).is_file(), name


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """The first block, a line for a line, with the pictures and the model that ship."""
    (code,) = [block for block in blocks("README.md", "python") if "Subject.load" in block]
    (tmp_path / "ssr_encoder").symlink_to(ROOT / "ssr_encoder")
    monkeypatch.chdir(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(weights_dir(), torch_dtype=torch.float32)
    before = dict(pipe.unet.attn_processors)
    names = {"any_stock_diffusers_pipeline": pipe}
    exec(code, names)
    assert (tmp_path / "selection.png").is_file() and names["images"][0].size == (128, 128)
    assert {k: type(v) for k, v in pipe.unet.attn_processors.items()} == {k: type(v) for k, v in before.items()}


def test_every_public_name_is_in_the_list():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    listed = set(
        re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `")))
    )
    assert listed == set(ssr_encoder.__all__)
