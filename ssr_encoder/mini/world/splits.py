"""What training never sees: identities, whole drawings, and pairs of a concept and a place."""

import random

import torch

VERSION = 1


def load_splits(world, splits: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`splits.json` as BoolTensors: identities held out (of both tiers), new drawings, concept-place pairs."""
    if splits["version"] != VERSION:
        raise ValueError(f"splits.json has version {splits['version']}, expected {VERSION}")
    concept = {name: k for k, name in enumerate(world.concepts)}
    style = {name: k for k, name in enumerate(world.styles)}
    place = {name: k for k, name in enumerate(world.places)}
    holdout = torch.zeros(world.available.shape, dtype=torch.bool)
    new_drawing = torch.zeros(world.available.shape[:2], dtype=torch.bool)
    holdout_place = torch.zeros(len(world.concepts), len(world.places), dtype=torch.bool)
    for c, s, colour in splits["recoloured"]:
        names = [world.colour_name(concept[c], k) for k in range(len(world.colours))]
        holdout[concept[c], style[s], names.index(colour)] = True
    for c, s in splits["new_drawing"]:
        new_drawing[concept[c], style[s]] = True
    for c, p in splits["places"]:
        holdout_place[concept[c], place[p]] = True
    holdout = (holdout | new_drawing[..., None]) & world.available.cpu()
    return holdout, new_drawing, holdout_place


def draw_splits(world, seed: int = 0, share: float = 0.10, drawings: int = 24, place_share: float = 0.05) -> dict:
    """Draws splits of a world, as the content of `splits.json`.

    Args:
        share: part of the identities held out as "recoloured": their drawing is trained in other colours, and their
            colour on other drawings of the concept.
        drawings: number of (concept, style) of which no colour is trained.
        place_share: part of the (concept, place) pairs held out; "plain" never is.
    """
    rng = random.Random(seed)
    available = world.available.cpu()
    chosen = []
    for c in rng.sample(range(len(world.concepts)), drawings):
        styles = [s for s in range(len(world.styles)) if available[c, s].sum() >= 2]
        if available[c].any(-1).sum() >= 3 and styles:
            chosen.append((c, rng.choice(styles)))
    training = available.clone()
    for c, s in chosen:
        training[c, s] = False
    target = round(share * int(available.sum()))
    recoloured = []
    identities = training.nonzero().tolist()
    rng.shuffle(identities)
    for c, s, k in identities:
        if len(recoloured) == target:
            break
        # An identity may go while its drawing keeps two trained colours and its colour another trained drawing.
        if training[c, s].sum() > 2 and training[c, :, k].sum() > 1:
            training[c, s, k] = False
            recoloured.append((c, s, k))
    pairs = [(c, p) for c in range(len(world.concepts)) for p in range(len(world.places) - 1)]
    held = sorted(rng.sample(pairs, round(place_share * len(pairs))))
    return {
        "version": VERSION,
        "seed": seed,
        "recoloured": [[world.concepts[c], world.styles[s], world.colour_name(c, k)] for c, s, k in sorted(recoloured)],
        "new_drawing": [[world.concepts[c], world.styles[s]] for c, s in sorted(chosen)],
        "places": [[world.concepts[c], world.places[p]] for c, p in held],
    }
