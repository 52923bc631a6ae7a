"""What is dropped and why; duplicates over all shards; killed anywhere, the same in the end."""

import json
import random
import signal
import subprocess
import sys
import time

from PIL import Image
from shards_made import contents, encoded, picture, read_folder, sample, write_folder

from ssr_encoder.curation import Sample
from ssr_encoder.curation.check import check


def flawed(folder):
    """Twelve samples in three shards: five are good, one of them is there three times."""
    truncated = sample(5, key="cut")
    truncated.image = truncated.image[: len(truncated.image) // 2]
    again = Sample("again", encoded(picture(1).resize((144, 144)), "JPEG", quality=80), "jpg")
    page = Sample("page", b"<html>gone</html>", "jpg")
    small = Sample("small", encoded(Image.new("RGB", (200, 9))), "png")
    return write_folder(
        folder,
        [
            [sample(1), truncated, sample(2, punsafe=0.2, pwatermark=0.3), page],
            [again, sample(3, punsafe=None), sample(6, key="unsafe", punsafe=0.51), small],
            [sample(7, key="marked", pwatermark=0.9), sample(1, key="same"), sample(4), sample(8)],
        ],
    )


def test_every_flaw_is_dropped_counted_and_explained(tmp_path):
    out = tmp_path / "out"
    source = flawed(tmp_path / "in")
    reports = list(check(source, out))
    kept = read_folder(out)
    assert set(kept) == {"000001", "000002", "000003", "000004", "000008"}
    before = read_folder(source)
    assert all(kept[key] == before[key] for key in kept)  # bytes, caption and meta as they were
    totals = json.loads((out / "report.json").read_text())
    assert totals["dropped"] == {
        "corrupt": 2, "duplicate": 2, "flagged unsafe": 1, "flagged watermark": 1, "too small": 1,
    }  # fmt: skip
    assert totals["kept"] == 5 and [report.kept for report in reports] == [2, 1, 2]
    decisions = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    assert {d["key"]: d["of"] for d in decisions if d["reason"] == "duplicate"} == {"again": "000001", "same": "000001"}


def test_limits_are_the_users(tmp_path):
    source = flawed(tmp_path / "in")
    list(check(source, tmp_path / "out", min_side=1, max_unsafe=1, max_watermark=1))
    assert {"unsafe", "marked", "small"} <= set(read_folder(tmp_path / "out"))
    list(check(source, tmp_path / "out", min_side=100))  # the same folder, now stricter
    assert set(read_folder(tmp_path / "out")) == {"again"}


def test_nothing_fit_leaves_empty_shards(tmp_path):
    source = write_folder(tmp_path / "in", [[Sample("page", b"<html>", "jpg")]])
    list(check(source, tmp_path / "out"))
    assert read_folder(tmp_path / "out") == {}


def test_a_bad_shard_is_listed_and_the_others_are_checked(tmp_path):
    source = flawed(tmp_path / "in")
    garbled = (source / "000001.tar").read_bytes()
    (source / "000001.tar").write_bytes(garbled[:700])
    list(check(source, tmp_path / "out"))
    totals = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [bad["shard"] for bad in totals["bad_shards"]] == ["000001.tar"] and totals["kept"] == 4


def test_killed_anywhere_it_ends_as_if_never_stopped(tmp_path):
    shards = [[sample(8 * shard + k) for k in range(8)] for shard in range(5)]
    shards[4].append(sample(3, key="copy"))
    source = write_folder(tmp_path / "in", shards)
    began = time.monotonic()
    list(check(source, tmp_path / "whole"))
    takes = time.monotonic() - began
    program = (
        "import sys; from ssr_encoder.curation.check import check; import imagehash; print('go', flush=True); "
        "list(check(sys.argv[1], sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "killed")]
    rng, codes = random.Random(1), []
    for share in (0.2, 0.5, 0.8):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(takes * share * rng.uniform(0.8, 1.1))
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert -signal.SIGKILL in codes
    list(check(source, tmp_path / "killed"))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
