"""Held-out samples: exactly as many as asked, whole clusters, by content and nothing else."""

import io
import random
import time

import numpy as np
import pytest
from mark_step import killed_again_and_again
from PIL import Image
from shards_made import contents, encoded, picture, read_folder, sample, write_folder

from ssr_encoder.curation import Sample
from ssr_encoder.curation.hashes import phash
from ssr_encoder.curation.split import split
from ssr_encoder.errors import SSRError


def with_copies(folder, singles=24, copied=8):
    """Some pictures in three versions: as is, scaled, and as a JPEG, far from one another."""
    samples = [sample(k) for k in range(singles + copied)]
    for k in range(copied):
        samples.append(Sample(f"scaled{k}", encoded(picture(k).resize((144, 144))), "png"))
        samples.append(Sample(f"rough{k}", encoded(picture(k), "JPEG", quality=80), "jpg"))
    return write_folder(folder, [samples[start : start + 12] for start in range(0, len(samples), 12)])


def run(source, out, n, **options):
    list(split(source, out, n, **options))
    return read_folder(out / "train"), read_folder(out / "test")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_near_duplicate_is_on_both_sides_and_nothing_is_lost(tmp_path, seed):
    source = with_copies(tmp_path / "in")
    train, test = run(source, tmp_path / "out", 17, seed=seed)
    assert len(test) == 17 and not set(train) & set(test)
    assert {**train, **test} == read_folder(source)
    hashes = [
        np.array([int(phash(Image.open(io.BytesIO(s.image))), 16) for s in side.values()], np.uint64)
        for side in (train, test)
    ]
    assert np.bitwise_count(hashes[0][:, None] ^ hashes[1][None]).min() > 4


def test_content_decides_not_names_or_order(tmp_path):
    source = with_copies(tmp_path / "in")
    samples = list(read_folder(source).values())
    random.Random(3).shuffle(samples)
    for number, one in enumerate(samples):
        one.key = f"k{number}"
    _, test = run(source, tmp_path / "a", 15)
    _, renamed = run(write_folder(tmp_path / "other", [samples[:5], samples[5:]]), tmp_path / "b", 15)
    assert sorted(s.image for s in test.values()) == sorted(s.image for s in renamed.values())
    _, seeded = run(source, tmp_path / "c", 15, seed=1)
    assert set(seeded) != set(test)


def test_each_image_is_as_likely_to_be_held_out(tmp_path):
    """One of three versions of a picture is not held out three times as often as another picture."""
    from ssr_encoder.curation.hashes import Hashes
    from ssr_encoder.curation.split import hold_out

    rng = np.random.default_rng(0)
    phashes = rng.integers(0, 2**64, 900, dtype=np.uint64)
    phashes[600:] = np.tile(phashes[:100], 3)
    digests = np.array([rng.bytes(32) for _ in range(900)], "V32")
    keys = np.array([f"{k:03}".encode() for k in range(900)], "S")
    hashes = Hashes(np.zeros(900, np.int32), ["0"], keys, phashes, digests)
    share = np.mean(
        [np.mean([int(k) >= 600 or int(k) < 100 for k in hold_out(hashes, 300, seed)]) for seed in range(9)]
    )
    assert share == pytest.approx(400 / 900, abs=0.1)


def test_running_again_with_another_n_replaces_everything(tmp_path):
    source = with_copies(tmp_path / "in")
    run(source, tmp_path / "out", 5)
    run(source, tmp_path / "out", 20)
    run(source, tmp_path / "fresh", 20)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_impossible_numbers_are_refused(tmp_path):
    source = with_copies(tmp_path / "in", singles=0, copied=3)
    with pytest.raises(SSRError, match="cannot hold out 9 of 9 samples; give a number from 1 to 8"):
        run(source, tmp_path / "out", 9)
    with pytest.raises(SSRError, match="only 3 of 4 samples can be held out without tearing"):
        run(source, tmp_path / "out", 4)


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    source = with_copies(tmp_path / "in", singles=24, copied=8)
    started = time.perf_counter()
    run(source, tmp_path / "unbroken", 17)
    seconds = time.perf_counter() - started
    killed, rounds = 0, 0
    while killed < 20:  # a folder that is done before its last kill is begun anew
        out = tmp_path / f"out{(rounds := rounds + 1)}"
        killed += killed_again_and_again(lambda to=out: list(split(source, to, 17)), 5, seconds / 2)
        run(source, out, 17)
        assert contents(out) == contents(tmp_path / "unbroken")
