"""What people would write about a scene, and ask for in it."""

import random
import re

import torch

MAX_WORDS = 18  # so that a caption fits in a context of 20 with its begin and end marks; a comma counts as a word

# place -> how a subject is in it
PHRASES = {
    "snow": "in the snow",
    "beach": "on the beach",
    "forest": "in the forest",
    "library": "in the library",
    "night": "at night",
    "city": "in the city",
    "desert": "in the desert",
    "grass": "on the grass",
    "room": "in the room",
    "sea": "in the sea",
    "mountains": "in the mountains",
    "space": "in space",
    "volcano": "near the volcano",
    "garden": "in the garden",
    "kitchen": "in the kitchen",
    "stage": "on the stage",
    "plain": "on a plain background",
}
_MEDIA = ("photo", "picture", "drawing", "image")
_IRREGULAR = {"man": "men", "woman": "women", "mouse": "mice", "wolf": "wolves", "baby": "babies", "fish": "fish",
              "sheep": "sheep", "deer": "deer", "cherry": "cherries", "strawberry": "strawberries",
              "butterfly": "butterflies"}  # fmt: skip
_MASS = ("corn", "popcorn", "cheese")  # said without an article


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it, or nothing where it is of a substance."""
    if phrase.split()[-1] in _MASS:
        return phrase
    silent = phrase[0] in "aeiou" and not phrase.startswith(("uni", "eu"))
    return f"{'an' if silent else 'a'} {phrase}"


def plural(noun: str) -> str:
    """Several of a concept."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def count_words(text: str) -> int:
    """Words and punctuation marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def captions(world, scenes, rng: random.Random, drop_attributes: float = 0.35, drop_place: float = 0.0) -> list[str]:
    """One caption a scene, in lower case, of at most MAX_WORDS words.

    Args:
        drop_attributes: probability that a colour or a hat goes unmentioned (skin tones always do). 0 names them all,
            as far as the words reach.
        drop_place: probability that the place goes unmentioned; every subject is always named.
    """
    named = torch.where(scenes.colour < len(world.colours), scenes.colour, 0)  # tones have no names
    rows = zip(*(x.tolist() for x in (scenes.concept, named, scenes.hat, scenes.place)), strict=True)
    return [_caption(world, row, rng, drop_attributes, drop_place) for row in rows]


def query_texts(world, concept, colour, rng: random.Random) -> list[str]:
    """A text query for each subject (n,): "cat", "a cat", "the cat", sometimes "red cat"."""
    texts = []
    for c, k in zip(concept.tolist(), colour.tolist(), strict=True):
        noun = world.concepts[c]
        if 0 < k < len(world.colours) and not world.person[c] and rng.random() < 0.3:
            noun = f"{world.colours[k]} {noun}"
        texts.append(rng.choice((noun, noun, article(noun), f"the {noun}")))
    return texts


def caption_words(world) -> list[str]:
    """Every word, and the comma, that a caption or a query can use, sorted."""
    words = set([","]) | set(_MEDIA)
    words |= set(["a", "an", "the", "two", "and", "with", "of", "wearing", "hat", "hats", "in"])
    for noun in world.concepts:
        words |= {noun, plural(noun)}
    for name in world.colours[1:]:
        words |= set(name.split())
    for place in world.places:
        words |= set(PHRASES[place].split()) | ({place} if place != "plain" else set())
    return sorted(words)


def _caption(world, row, rng, drop_attributes, drop_place) -> str:
    concepts, colours, hats, place = row
    subjects = [
        (c, colour if colour and not world.person[c] and rng.random() >= drop_attributes else 0,
         hat and rng.random() >= drop_attributes)
        for c, colour, hat in zip(concepts, colours, hats, strict=True) if c >= 0
    ]  # fmt: skip
    rng.shuffle(subjects)
    name = world.places[place] if rng.random() >= drop_place else None
    if name == "plain" and rng.random() < 0.5:
        name = None
    form = rng.choice(("bare", "bare", "medium", "place first"))
    medium = rng.choice(_MEDIA)
    while True:
        phrases = _phrases(world, subjects)
        if len(phrases) > 1:
            phrases = [", ".join(phrases[:-1]), phrases[-1]]
        text = _compose(" and ".join(phrases), name, form, medium)
        if count_words(text) <= MAX_WORDS:
            return text
        if form != "bare":
            form = "bare"
            continue
        # Too long even so: forget an attribute, hats first since they take two words.
        k = next((k for k, s in enumerate(subjects) if s[2]), None)
        if k is not None:
            subjects[k] = (*subjects[k][:2], False)
        else:
            k = next(k for k, s in enumerate(subjects) if s[1])
            subjects[k] = (subjects[k][0], 0, False)


def _phrases(world, subjects) -> list[str]:
    """ "a red cat wearing a hat" of each subject; two of one class that are described alike become "two cats"."""
    phrases = []
    for subject in dict.fromkeys(subjects):
        concept, colour, hat = subject
        noun, twice = world.concepts[concept], subjects.count(subject) > 1
        if twice:
            noun = plural(noun)
        if colour:
            noun = f"{world.colours[colour]} {noun}"
        noun = f"two {noun}" if twice else article(noun)
        if hat:
            noun += " wearing hats" if twice else " wearing a hat"
        phrases.append(noun)
    return phrases


def _compose(subjects: str, place: str | None, form: str, medium: str) -> str:
    where = f" {PHRASES[place]}" if place else ""
    if form == "place first" and place and place != "plain":
        return f"{place}, with {subjects}"
    if form == "medium":
        return f"{article(medium)} of {subjects}{where}"
    return subjects + where
