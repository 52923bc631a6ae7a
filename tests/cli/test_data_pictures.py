"""``ssr data check`` to ``bench-candidates`` from the command line, one after another on pictures of the world."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from refusal import check_refused

from ssr_encoder.curation import Sample, list_shards, read_shard, write_shard
from ssr_encoder.demo.scenes import load_scenes


def encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Two shards: the shipped pictures and their mirror images, one of them twice, and a damaged file."""
    folder = tmp_path_factory.mktemp("raw")
    shown = [Image.open(picture.path).convert("RGB") for picture in load_scenes()[0]]
    turned = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in shown]
    images = [*shown, *turned, shown[0]]
    samples = [
        Sample(f"{k:05}", encoded(image), "png", "web text", {"aesthetic": 6.5}) for k, image in enumerate(images)
    ]
    samples.append(Sample("broken", b"GIF89a", "png", "web text"))
    write_shard(folder / "00000.tar", samples[:4])
    write_shard(folder / "00001.tar", samples[4:])
    return folder


def keys(folder) -> list[str]:
    return [sample.key for path in list_shards(folder) for sample in read_shard(path)]


def test_the_chain_from_pictures_to_a_bench(raw, tmp_path, ssr):
    at = lambda name: str(tmp_path / name)  # noqa: E731
    checked = ssr("data", "check", str(raw), at("checked"), "--workers", "2")
    assert checked.code == 0, checked.err
    assert "check: 6 of 8 kept (dropped: corrupt 1, duplicate 1)" in checked.out
    assert ssr("data", "caption", at("checked"), at("captioned"), "--captioner", "mini", "--device", "cpu").code == 0
    described = ssr("data", "describe", at("captioned"), at("described"))
    assert described.code == 0 and "| subject | frequency |" in described.out
    assert {"descriptors.json", "descriptors.md", "descriptors.png"} <= {
        p.name for p in Path(at("described")).iterdir()
    }
    frequencies = json.loads(Path(at("described"), "descriptors.json").read_text())["frequencies"]
    assert frequencies.keys() & {"fox", "penguin", "frog", "frogs", "bus", "umbrella"}
    balanced = ssr("data", "balance", at("described"), at("balanced"), "--share", "1", "--json")
    assert json.loads(balanced.out)["kept"] == 6
    split = ssr("data", "split", at("balanced"), at("data"), "-n", "2", "--json")
    assert {side: totals["kept"] for side, totals in json.loads(split.out).items()} == {"train": 4, "test": 2}
    assert sorted(keys(at("data/train")) + keys(at("data/test"))) == sorted(keys(at("checked")))
    rule = ("--min-clip", "0", "--device", "cpu")
    found = ssr("data", "bench-candidates", at("balanced"), at("candidates"), *rule)
    assert found.code == 0 and Path(at("candidates"), "review.html").is_file()
    chosen = keys(at("candidates"))[:1]
    Path(at("ticked.json")).write_text(json.dumps({"keys": chosen}))
    bench = ssr("data", "bench-candidates", at("balanced"), at("candidates"), *rule, "--ticked", at("ticked.json"))
    assert bench.code == 0, bench.err
    assert json.loads(Path(at("candidates/bench/bench.json")).read_text())["items"][0]["key"] == chosen[0]
    again = ssr("data", "check", str(raw), at("checked"))
    assert "2 of 2 files" in again.out and "2 done before" in again.out


@pytest.mark.parametrize(
    "command, options, names",
    [
        ("check", ["--distance", "5"], ["'5'", "from 0 to 4"]),
        ("check", ["--max-unsafe", "2"], ["'2'"]),
        ("split", ["-n", "8"], ["hold out 8 of 7"]),
        ("split", ["-n", "0"], ["'0'"]),
        ("caption", ["--captioner", "./no/such"], ["captioner ./no/such"]),
        ("caption", ["--captioner", "mini", "--prompt", "a photo"], ["no prompt"]),
        ("describe", ["--spacy-model", "en_core_web_none"], ["en_core_web_none", "spacy download"]),
        ("balance", [], ["descriptors.json"]),
        ("balance", ["--share", "0.1", "--cap", "5"], ["--cap", "--share"]),
        ("bench-candidates", ["--ticked", "none.json"], ["none.json"]),
        ("bench-candidates", ["--min-clip", "2"], ["'2'"]),
    ],
)
def test_bad_input_is_one_line(raw, tmp_path, ssr, command, options, names):
    result = ssr("data", command, str(raw), str(tmp_path / "out"), *options)
    assert result.code == 2 and result.err.count("\n") == 1
    for name in names:
        assert name in result.err


@pytest.mark.parametrize("command", ["check", "caption", "describe", "split", "bench-candidates"])
def test_a_folder_without_shards_is_refused(tmp_path, ssr, command):
    (tmp_path / "empty").mkdir()
    options = ["--captioner", "mini"] if command == "caption" else []
    check_refused(ssr("data", command, str(tmp_path / "empty"), str(tmp_path / "out"), *options), "empty")


def test_undescribed_shards_are_refused(raw, tmp_path, ssr):
    result = ssr("data", "bench-candidates", str(raw), str(tmp_path / "out"), "--device", "cpu")
    check_refused(result, "00000", "ssr data describe")


@pytest.mark.parametrize("command", ["check", "caption", "describe", "balance", "split", "bench-candidates"])
def test_help_has_examples(ssr, command):
    result = ssr("data", command, "--help")
    assert result.code == 0 and "examples:" in result.out and f"ssr data {command} " in result.out
