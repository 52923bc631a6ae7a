"""Random access to shards; what is damaged is named, and the rest is read."""

import json

import pytest
from tiny_training import make_sample, make_shards, write_tar

from ssr_encoder.errors import SSRError
from ssr_encoder.training.reader import BadSample, Reader, list_urls, load_index


def test_any_sample_in_any_order(shards, tmp_path):
    reader = Reader(list_urls(str(shards)), tmp_path)
    for shard, index, number in ((2, 3, 15), (0, 0, 0), (1, 6, 11), (0, 4, 4)):
        raw, expected = reader.sample(shard, index), make_sample(number)
        assert (raw.key, raw.image) == (expected["key"], expected["png"])
        assert raw.caption == expected["txt"].decode() and raw.meta == json.loads(expected["json"])
    assert [reader.count(i).count for i in range(3)] == [5, 7, 4]


def test_globs_braces_and_urls(shards, tmp_path):
    everything = list_urls(str(shards))
    assert list_urls(f"{shards}/*.tar") == everything
    assert list_urls(str(shards / "00000{0..2}.tar")) == everything
    assert list_urls("::".join(everything)) == everything
    for url in (f"file://{everything[1]}", f"pipe:cat {everything[1]}"):
        reader = Reader(list_urls(url), tmp_path / "fetched")
        assert reader.sample(0, 6).image == make_sample(11)["png"]


def test_a_remote_shard_with_a_report_is_not_fetched_to_be_counted(tmp_path):
    folder = make_shards(tmp_path / "remote", (3,))
    (folder / "000000.report.json").write_text(json.dumps({"kept": 3}))
    reader = Reader([f"file://{folder}/000000.tar"], tmp_path / "fetched")
    assert reader.count(0).count == 3 and not (tmp_path / "fetched").exists()


def test_remote_shards_are_dropped_and_fetched_again(shards, tmp_path):
    reader = Reader([f"file://{url}" for url in list_urls(str(shards))], tmp_path / "fetched", keep=1)
    for shard in (0, 1, 2, 0, 2, 1):
        assert reader.sample(shard, 1).key == ("00001", "00006", "00013")[shard]
        assert len(list((tmp_path / "fetched").iterdir())) == 1


def test_a_shard_that_cannot_be_fetched_is_a_bad_one(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    reader = Reader([f"file://{tmp_path}/none.tar"], tmp_path / "fetched")
    with pytest.raises(BadSample, match="cannot be fetched"):
        reader.sample(0, 0)


def test_a_cut_off_shard_gives_what_it_has(tmp_path):
    path = make_shards(tmp_path, (6,)) / "000000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    reader = Reader([str(path)], tmp_path)
    shard = reader.count(0)
    assert 2 <= shard.count < 6 and "cut off" in shard.damage or "damaged" in shard.damage
    assert reader.sample(0, 1).key == "00001"
    with pytest.raises(BadSample, match="bad shard"):
        reader.sample(0, 5)
    path.with_suffix(".report.json").write_text(json.dumps({"kept": 6}))
    assert reader.count(0).count == 6  # the report of the step that wrote it knows what is lost


def test_garbage_between_samples_is_not_taken_for_the_end(tmp_path):
    path = make_shards(tmp_path, (6,)) / "000000.tar"
    data = bytearray(path.read_bytes())
    reader = Reader([str(path)], tmp_path)
    offset = reader._table(0).samples[3][1]["png"][0] - 512  # the header of a file in the middle
    data[offset : offset + 512] = b"\xa7" * 512
    path.write_bytes(data)
    shard = Reader([str(path)], tmp_path).count(0)
    assert (shard.count, "damaged at byte" in shard.damage) == (3, True)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"png": None}, "no picture"),
        ({"jpg": b"x"}, "2 picture"),
        ({"txt": b"\xff\xfe\xff"}, "not UTF-8"),
        ({"json": b"{"}, "not UTF-8 or JSON"),
    ],
)
def test_bad_samples_say_why(tmp_path, change, reason):
    sample = {key: value for key, value in {**make_sample(0), **change}.items() if value is not None}
    write_tar(tmp_path / "a.tar", [sample])
    with pytest.raises(BadSample, match=reason):
        Reader([str(tmp_path / "a.tar")], tmp_path).sample(0, 0)


def test_the_index_keeps_the_order_what_it_was(tmp_path):
    folder, index = make_shards(tmp_path / "s", (3, 4)), tmp_path / "run" / "shards.json"
    urls = list_urls(str(folder))
    first = load_index(urls, index, tmp_path)
    assert load_index(urls, index, tmp_path) == first and [shard.count for shard in first] == [3, 4]
    with pytest.raises(SSRError, match="not those that this run began with"):
        load_index(urls[:1], index, tmp_path)
    write_tar(folder / "000001.tar", [make_sample(9)])
    with pytest.raises(SSRError, match="000001.tar has changed"):
        load_index(urls, index, tmp_path)


@pytest.mark.parametrize("shards, message", [("", "is empty"), ("{tmp}", r"no \*.tar"), ("{tmp}/a.tar", "not exist")])
def test_no_shards(tmp_path, shards, message):
    with pytest.raises(SSRError, match=message):
        list_urls(shards.format(tmp=tmp_path))
