"""Captions name what is to be seen, in words that the tokeniser knows."""

import random
import re

import pytest
import torch

from ssr_encoder.mini.world import World, caption_words, captions, query_texts, sample_scenes
from ssr_encoder.mini.world.captions import MAX_WORDS, PHRASES, article, count_words, plural


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


@pytest.fixture(scope="module")
def scenes(world):
    generator = torch.Generator().manual_seed(0)
    return sample_scenes(world, 3000, generator, split="any", hats=0.5, distinct=0.6)


@pytest.mark.parametrize("drop", [0.0, 0.35, 1.0])
def test_captions_name_every_subject_and_the_place(world, scenes, drop):
    words = set(caption_words(world))
    texts = captions(world, scenes, random.Random(0), drop_attributes=drop)
    assert len(texts) == len(scenes)
    for text, concepts, place in zip(texts, scenes.concept.tolist(), scenes.place.tolist(), strict=True):
        assert text == text.lower() and count_words(text) <= MAX_WORDS
        said = re.findall(r"\w+|,", text)
        assert set(said) <= words, text
        for concept in {c for c in concepts if c >= 0}:
            noun, times = world.concepts[concept], concepts.count(concept)
            assert (
                said.count(noun) == times
                or f"two {plural(noun)}" in re.sub(r"two \w+ (?=\w+)", "two ", text)
                or (f"two {plural(noun)}" in text)
            ), text
        name = world.places[place]
        if name != "plain":
            assert PHRASES[name] in text or text.startswith(f"{name}, with "), text


def test_attributes_are_true(world, scenes):
    texts = captions(world, scenes, random.Random(1), drop_attributes=0.0)
    colours = set(world.colours[1:])
    for k, text in enumerate(texts):
        present = scenes.concept[k] >= 0
        shown = {
            world.colours[colour]
            for concept, colour in zip(
                scenes.concept[k][present].tolist(), scenes.colour[k][present].tolist(), strict=True
            )
            if colour and not world.person[concept]
        }
        assert colours & set(text.split()) <= shown, text
        assert ("wearing" in text) <= bool(scenes.hat[k].any()), text
    bare = captions(world, scenes, random.Random(1), drop_attributes=1.0)
    assert not any(colours & set(text.split()) or "wearing" in text for text in bare)


def test_phrasings_vary(world, scenes):
    one = scenes[torch.zeros(200, dtype=torch.long)]
    assert len(set(captions(world, one, random.Random(2)))) >= 6


def test_grammar(world):
    assert (
        article("apple") == "an apple" and article("unicorn") == "a unicorn" and article("red apple") == "a red apple"
    )
    assert article("cheese") == "cheese" and article("yellow popcorn") == "yellow popcorn"
    assert plural("wolf") == "wolves" and plural("bus") == "buses" and plural("dress") == "dresses"
    assert plural("fox") == "foxes" and plural("monkey") == "monkeys" and plural("sheep") == "sheep"


def test_queries(world, scenes):
    concept, colour = scenes.concept[:, 0], scenes.colour[:, 0]
    texts = query_texts(world, concept, colour, random.Random(3))
    words = set(caption_words(world))
    tinted = 0
    for text, c, k in zip(texts, concept.tolist(), colour.tolist(), strict=True):
        said = text.split()
        assert said[-1] == world.concepts[c] and set(said) <= words
        if len(said) > 1 and said[-2] in world.colours:
            assert said[-2] == world.colours[k] and not world.person[c]
            tinted += 1
    assert 0.1 < tinted / len(texts) < 0.4
