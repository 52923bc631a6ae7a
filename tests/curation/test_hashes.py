"""Near hashes found without comparing all, against comparing all; decoding of what comes from the web."""

import io

import numpy as np
import pytest
from PIL import Image
from shards_made import encoded, picture, sample, write_folder

from ssr_encoder.curation import pictures, run_step
from ssr_encoder.curation.hashes import HashStep, clusters, duplicates, near_pairs, phash, read_hashes
from ssr_encoder.curation.pictures import BadPicture, decode
from ssr_encoder.errors import SSRError


def crowded(n: int, seed: int) -> np.ndarray:
    """Hashes with neighbours at every distance from 0 to 7 bits, in random order."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, n // 8, dtype=np.uint64)
    hashes = [base]
    for flips in range(1, 8):
        changed = base.copy()
        for k in range(len(changed)):
            for bit in rng.choice(64, flips, replace=False):
                changed[k] ^= np.uint64(1) << np.uint64(bit)
        hashes.append(changed)
    return rng.permutation(np.concatenate(hashes))


def all_pairs(hashes: np.ndarray, distance: int) -> set:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    return set(zip(*(axis.tolist() for axis in np.nonzero(np.triu(near, 1))), strict=True))


@pytest.mark.parametrize("distance", [0, 1, 4])
def test_near_pairs_are_those_of_comparing_all(distance):
    hashes = np.unique(crowded(1600, 1))
    found = near_pairs(hashes, distance)
    assert {(i, j) for i, j in found.tolist()} == all_pairs(hashes, distance)
    assert len(found) == len(all_pairs(hashes, distance)) and (distance == 0 or len(found) > 200)
    assert found[:, 1].tolist() == sorted(found[:, 1].tolist())


def test_duplicates_keep_the_first_and_never_point_at_a_dropped_one():
    hashes = np.concatenate([crowded(400, 2), crowded(400, 2)[:60]])  # some equal ones too
    expected: dict[int, int] = {}
    for j in range(len(hashes)):  # the rule, word by word
        near = [i for i in range(j) if i not in expected and np.bitwise_count(hashes[i] ^ hashes[j]) <= 4]
        if near:
            expected[j] = near[0]
    found = duplicates(hashes)
    assert set(found) == set(expected)
    assert all(kept not in found and kept < index for index, kept in found.items())


def test_a_chain_loses_its_middle_only_but_is_one_cluster():
    a = np.uint64(0)
    b, c = a | np.uint64(0b1111), a | np.uint64(0b11111111)
    assert duplicates(np.array([a, b, c])) == {1: 0}
    assert len(set(clusters(np.array([a, b, c, ~a])).tolist())) == 2


def test_the_hash_survives_jpeg_and_scaling_and_tells_pictures_apart():
    hashes = [int(phash(picture(k)), 16) for k in range(30)]
    for k in range(30):
        again = Image.open(io.BytesIO(encoded(picture(k).resize((144, 144)), "JPEG", quality=80)))
        assert (int(phash(again), 16) ^ hashes[k]).bit_count() <= 4
    assert not near_pairs(np.array(sorted(hashes), np.uint64)).size


def test_decoding_refuses_damage_and_bombs_and_foreign_formats(monkeypatch):
    whole = encoded(picture(1))
    for bad in (b"", b"<html>not found</html>", whole[: len(whole) // 2], encoded(picture(1), "BMP")):
        with pytest.raises(BadPicture, match="corrupt"):
            decode(bad)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 72 * 72 - 1)
    with pytest.raises(BadPicture, match="too many pixels"):
        decode(whole)


def test_decoding_takes_every_mode_to_upright_rgb():
    seen = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode(encoded(seen)).getpixel((3, 3)) == (255, 255, 255)
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    assert decode(encoded(deep)).getpixel((3, 3)) == (156, 156, 156)
    assert decode(encoded(Image.new("CMYK", (8, 8)), "JPEG")).mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (4, 8)


def test_hashes_are_read_in_order_of_shard_and_key(tmp_path):
    source = write_folder(tmp_path / "in", [[sample(3), sample(1)], [sample(2)], []])
    assert [report.kept for report in run_step(HashStep(), source, tmp_path / "out")] == [2, 1, 0]
    hashes = read_hashes(tmp_path / "out")
    assert hashes.keys.tolist() == [b"000001", b"000003", b"000002"] and hashes.shard.tolist() == [0, 0, 1]
    assert hashes.phash[2] == int(phash(picture(2)), 16)


def test_a_key_in_two_shards_is_refused(tmp_path):
    source = write_folder(tmp_path / "in", [[sample(1, key="a")], [sample(2, key="a")]])
    list(run_step(HashStep(), source, tmp_path / "out"))
    with pytest.raises(SSRError, match="sample a is in 000000.tar and in 000001.tar; keys must be unique"):
        read_hashes(tmp_path / "out")
    with pytest.raises(SSRError, match="holds no hashes"):
        read_hashes(source)
