"""Pairs of the user's shards: order, crops, bad samples, ImageNet's folders."""

import io
import tarfile

import pytest
import torch
from PIL import Image

from ssr_encoder.errors import SSRError
from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.pairs import ShardPairs

CPU = torch.device("cpu")


def shard(path, n: int, bad: int = -1) -> None:
    """n pictures 40 x 20 whose left, middle and right differ, in a grey level that tells the number."""
    with tarfile.open(path, "w") as tar:
        for i in range(n):
            picture = Image.new("RGB", (40, 20), (255, 0, 0))
            picture.paste((10 * i,) * 3, (10, 0, 30, 20))
            data = io.BytesIO()
            picture.save(data, "png")
            image = b"broken" if i == bad else data.getvalue()
            for name, content in ((f"{i:03d}.png", image), (f"{i:03d}.txt", f"number {i}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def make(tmp_path):
    shard(tmp_path / "train.tar", 6, bad=2)
    shard(tmp_path / "test.tar", 5)

    def build(*words):
        places = [f"data={tmp_path / 'train.tar'}", f"test_data={tmp_path / 'test.tar'}"]
        return ShardPairs(StudyConfig.load("paper", [*places, *words]), 8, CPU)

    return build


def number_of(picture) -> int:
    return round(float(picture[:, 2:6, 2:6].mean()) * 255 / 10)


def test_pictures_go_with_their_texts_and_bad_ones_are_left_out(make):
    pairs = make()
    pictures, texts = pairs.batch(0, 0, 6)
    assert pictures.shape == (6, 3, 8, 8)
    assert [f"number {number_of(picture)}" for picture in pictures] == texts
    assert "number 2" not in texts and set(texts) == {f"number {i}" for i in (0, 1, 3, 4, 5)}
    assert (pictures.amax(1) - pictures.amin(1)).abs().max() < 0.2  # the middle square, not the red sides
    again = make().batch(0, 0, 6)
    assert torch.equal(again[0], pictures) and again[1] == texts
    assert any(pairs.batch(seed, 0, 6)[1] != texts for seed in (1, 2, 3))


def test_held_out_pairs_come_once_each(make):
    batches = list(make("test_pictures=5", "examples=2").test(2))
    assert [len(texts) for _, texts in batches] == [2, 2, 1]
    assert {text for _, texts in batches for text in texts} == {f"number {i}" for i in range(5)}


def test_what_is_missing_is_said(make, tmp_path):
    with pytest.raises(SSRError, match="needs data=SHARDS"):
        ShardPairs(StudyConfig.load("paper"), 8, CPU)
    with pytest.raises(SSRError, match="imagenet folder .* does not exist"):
        make(f"imagenet={tmp_path / 'val'}")
    (tmp_path / "val" / "n01440764").mkdir(parents=True)
    with pytest.raises(SSRError, match="n01440764 has no pictures"):
        make(f"imagenet={tmp_path / 'val'}")
    Image.new("RGB", (9, 9)).save(tmp_path / "val" / "n01440764" / "a.png")
    with pytest.raises(SSRError, match="has 1 folders of pictures, ImageNet 1000 classes"):
        make(f"imagenet={tmp_path / 'val'}")
