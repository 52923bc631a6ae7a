"""Shards: what is written is read, by webdataset too, and damage never goes unnoticed."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset

from ssr_encoder.curation import BadShard, Sample, list_shards, read_shard, write_shard
from ssr_encoder.errors import SSRError

SAMPLES = [
    Sample("0001", b"\x89PNG" * 200, "png", "a café, 猫", {"aesthetic": 6.5, "tags": ["a", None]}),
    Sample("0002", b"", "jpg", "", {}),
    Sample("0003", b"RIFF" * 300, "webp", "two\nlines", {"z": 1, "a": {"b": True}}),
]


@pytest.fixture
def shard(tmp_path):
    write_shard(tmp_path / "000000.tar", SAMPLES)
    return tmp_path / "000000.tar"


def tar_of(path, files: list[tuple[str, bytes]]):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_what_is_written_is_read(shard):
    assert list(read_shard(shard)) == SAMPLES


def test_equal_samples_give_equal_bytes(shard, tmp_path):
    again = [Sample(s.key, s.image, s.extension, s.caption, dict(reversed(s.meta.items()))) for s in SAMPLES]
    assert write_shard(tmp_path / "again.tar", iter(again)) == 3
    assert (tmp_path / "again.tar").read_bytes() == shard.read_bytes()
    with tarfile.open(shard) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_webdataset_reads_it(shard):
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == ["0001", "0002", "0003"]
    assert samples[0]["txt"] == "a café, 猫" and samples[2]["json"] == SAMPLES[2].meta


def test_damage_that_webdataset_passes_over_is_found(shard):
    """Why shards are not read with it."""
    data = shard.read_bytes()
    third = data.index(b"0003.webp")
    shard.write_bytes(data[:third])
    assert [s["__key__"] for s in webdataset.WebDataset(str(shard), shardshuffle=False)] == ["0001", "0002"]
    with pytest.raises(BadShard, match="ends early"):
        list(read_shard(shard))


def test_jpeg_is_jpg_and_text_may_be_missing(tmp_path):
    [sample] = read_shard(tar_of(tmp_path / "a.tar", [("1.JPEG", b"abc")]))
    assert sample == Sample("1", b"abc", "jpg", "", {})


def test_no_truncation_goes_unnoticed(shard):
    data = shard.read_bytes()
    end = len(data.rstrip(b"\0"))
    noticed = 0
    for cut in [*range(0, len(data), 128), end, end + 1]:
        shard.write_bytes(data[:cut])
        try:
            assert list(read_shard(shard)) == SAMPLES
            assert cut >= end + 512  # only padding was lost
        except BadShard as error:
            assert str(shard) in str(error)
            noticed += 1
    assert noticed > end // 128


def test_a_damaged_header_is_no_end(shard):
    data = bytearray(shard.read_bytes())
    second = data.index(b"0002.jpg")
    data[second + 100 : second + 300] = b"?" * 200
    shard.write_bytes(data)
    with pytest.raises(BadShard, match=r"000000\.tar .*damaged at byte"):
        list(read_shard(shard))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("1.txt", b"a")], "1 has no images"),
        ([("1.png", b"a"), ("1.jpg", b"a")], "1 has 2 images"),
        ([("1.png", b"a"), ("2.png", b"a"), ("1.png", b"b")], "1 is there twice"),
        ([("1.png", b"a"), ("1.PNG", b"b")], "1.png is there twice"),
        ([("1.png", b"a"), ("1.json", b"{")], "1.json is not JSON"),
        ([("1.png", b"a"), ("1.json", b"[]")], "1.json is not a JSON object"),
        ([("1.png", b"a"), ("1.txt", b"\xff")], "1.txt is not UTF-8"),
    ],
)
def test_bad_samples_name_file_and_fault(tmp_path, files, words):
    path = tar_of(tmp_path / "a.tar", files)
    with pytest.raises(BadShard, match=words) as error:
        list(read_shard(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_garbage_and_nothing_are_bad(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "b.tar").write_bytes(b"")
    for name in ("a.tar", "b.tar", "missing.tar"):
        with pytest.raises(BadShard, match=name):
            list(read_shard(tmp_path / name))


def test_an_empty_shard_is_good(tmp_path):
    assert write_shard(tmp_path / "a.tar", []) == 0
    assert list(read_shard(tmp_path / "a.tar")) == []


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (Sample("a.b", b"", "png"), "key 'a.b'"),
        (Sample("../a", b"", "png"), "key '../a'"),
        (Sample("a", b"", "gif"), "extension 'gif'"),
        (Sample("a", b"", "png", "", {"x": float("nan")}), "sample a cannot be stored"),
        (Sample("a", b"", "png", "", {"x": b""}), "sample a cannot be stored"),
        (Sample("a", b"", "png", "\ud800"), "sample a cannot be stored"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing(tmp_path, sample, words):
    with pytest.raises(SSRError, match=words):
        write_shard(tmp_path / "a.tar", [SAMPLES[0], sample])
    assert list(tmp_path.iterdir()) == []


def test_list_shards(tmp_path):
    for name in ("b.tar", "a.tar", ".a.tar.1.tar", "a.report.json"):
        (tmp_path / name).touch()
    assert [path.name for path in list_shards(tmp_path)] == ["a.tar", "b.tar"]
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "missing", "a.tar"):
        with pytest.raises(SSRError, match=wrong):
            list_shards(tmp_path / wrong)
