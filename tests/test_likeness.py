"""How much a picture shows a subject, and the best of several pictures by it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AnimateDiffPipeline
from PIL import Image

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.images import picture_grid
from ssr_encoder.likeness import best_of, candidate_seeds
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.proof import make_cases
from ssr_encoder.mini.world import load_world, sample_scenes


def means(subject) -> torch.Tensor:
    return subject.tokens.unflatten(0, (2, -1)).mean(1)  # the tiny encoder has two scales


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def other(picture) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.asarray(picture)[::-1, ::-1]))


def test_the_reference_is_like_itself(encoder, picture, other):
    cat = encoder.encode(picture, "cat")
    assert encoder.likeness(picture, cat) == pytest.approx(1, abs=1e-4)
    assert encoder.likeness(other, cat) < 0.999


def test_words_are_looked_for_by_the_same_words(encoder, picture, other):
    subjects = [encoder.encode(picture, "cat", box=(8, 16, 40, 48)), encoder.encode(picture, "dog")]
    found = [encoder.encode(other, word) for word in ("cat", "dog")]
    expected = [F.cosine_similarity(means(a), means(b), dim=-1).mean() for a, b in zip(subjects, found, strict=True)]
    assert encoder.likeness(other, subjects) == pytest.approx(float(sum(expected) / 2), abs=1e-5)
    assert encoder.likeness(other, subjects[0]) == pytest.approx(float(expected[0]), abs=1e-5)


def test_only_the_output_region_is_read(encoder, picture, other):
    box = (0.5, 0.0, 1.0, 1.0)  # the right half: pixels 48 to 96
    cat = encoder.encode(picture, "cat").with_(region=box)
    found = encoder.encode(other, "cat", box=(48, 0, 96, 64))
    expected = float(F.cosine_similarity(means(cat), means(found), dim=-1).mean())
    assert encoder.likeness(other, cat) == pytest.approx(expected, abs=1e-5)
    painted = other.copy()
    painted.paste((9, 200, 9), (0, 0, 48, 64))
    by_region = encoder.encode(picture, box=(8, 16, 40, 48)).with_(region=box)
    assert encoder.likeness(painted, by_region) != encoder.likeness(painted, by_region.with_(region=None))


def test_a_subject_asked_for_by_a_region_is_found_by_its_looks():
    """Of the embedded model: in another scene the same identity is more like it than another one of its concept."""
    ssr, world = SSREncoder.from_pretrained("mini", device="cpu"), load_world("cpu", weights_dir())
    cases = make_cases(world, "mask", 12, 3)
    generator, right = torch.Generator().manual_seed(4), 0
    for case in cases:
        subject = ssr.encode(case.references[0], **case.queries[0])
        concept, (style, colour) = case.concepts[0], case.identities[0]
        others = [i for i in world.available[concept].nonzero().tolist() if i != [style, colour]]
        rival = others[int(torch.randint(len(others), (), generator=generator))]
        identities = ((concept, style, colour), (concept, *rival))
        first = tuple(torch.tensor(values) for values in zip(*identities, strict=True))
        scenes = sample_scenes(world, 2, generator, split="any", subjects=(0, 1, 0), first=first, distinct=1.0)
        pictures = [picture_grid(p[None], 1) for p in world.render(scenes, 128)[0]]
        right += best_of(ssr, pictures, [subject]) == 0
    assert right >= 11


def test_search_weighs_patches_by_their_looks(encoder):
    aligner = encoder.model.aligner
    patches = torch.randn(1, 10, aligner.to_k.in_features, generator=torch.Generator().manual_seed(0))
    token = aligner.norm(aligner.to_out[-1](aligner.to_v[-1](patches[0, 4])))
    weights = aligner.search(patches, token)[0]
    assert weights[4] == pytest.approx(1, abs=1e-5) and weights[0] == 0
    assert weights.argmax() == 4 and (weights[1:] > 0).all()
    alike = F.cosine_similarity(aligner.norm(aligner.to_out[-1](aligner.to_v[-1](patches[0, 7]))), token, dim=-1)
    assert weights[7] == pytest.approx(float(torch.exp(10 * (alike - 1))), rel=1e-4)


def test_the_best_of_the_candidates_is_kept(encoder, pipe, picture):
    cat = encoder.encode(picture, "cat")
    arguments = {"pipe": pipe, "num_inference_steps": 2, "num_images": 2}
    kept = encoder.generate(["a cat", "a dog"], cat, seed=5, candidates=3, **arguments)
    assert len(kept) == 4
    arguments["num_images"] = 1
    for number, (prompt, seed) in enumerate((p, s) for p in ("a cat", "a dog") for s in (5, 6)):
        made = [encoder.generate(prompt, cat, seed=s, **arguments)[0] for s in candidate_seeds(seed, 3)]
        scores = [encoder.likeness(one, cat) for one in made]
        assert len(set(scores)) == 3
        difference = np.abs(np.asarray(kept[number], int) - np.asarray(made[scores.index(max(scores))], int))
        assert difference.max() <= 1, "batches round otherwise"


def test_one_candidate_changes_nothing(encoder, pipe, picture):
    cat = encoder.encode(picture, "cat")
    arguments = {"pipe": pipe, "num_inference_steps": 2, "seed": 5}
    (alone,), (plain,) = (
        encoder.generate("a cat", cat, candidates=1, **arguments),
        encoder.generate("a cat", cat, **arguments),
    )
    assert same(alone, plain)


def test_candidates_have_seeds_of_their_own():
    seeds = [seed for start in range(100) for seed in candidate_seeds(start, 8)]
    noise = {float(torch.randn((), generator=torch.Generator().manual_seed(seed))) for seed in seeds}
    assert len(noise) > 795, "few numbers are the same by chance"
    assert [candidate_seeds(start, 8)[0] for start in (0, 7, 2**62)] == [0, 7, 2**62]
    assert all(0 <= seed < 2**32 for seed in candidate_seeds(2**62, 8)[1:])


def test_what_is_refused(encoder, pipe, picture, unet, motion_adapter, new_pipe):
    cat = encoder.encode(picture, "cat")

    def refuse(words, subjects=cat, **more):
        with pytest.raises(SSRError, match=words):
            encoder.generate("a cat", subjects, **({"pipe": pipe, "candidates": 2, "num_inference_steps": 1} | more))

    refuse("candidates is 0", candidates=0)
    refuse("candidates is 2.5", candidates=2.5)
    refuse("there is none", ())
    refuse("there is none", cat.with_(scale=0))
    refuse("generator=", generator=torch.Generator())
    refuse("output_type", output_type="pt")
    clips = new_pipe(AnimateDiffPipeline, unet, motion_adapter=motion_adapter)
    refuse("clips", pipe=clips, num_frames=2)
    with pytest.raises(SSRError, match="no subject"):
        encoder.likeness(picture, ())
    with pytest.raises(SSRError, match="no subject"):
        encoder.likeness(picture, cat.with_(scale=0))
    with pytest.raises(SSRError, match="another model"):
        encoder.likeness(picture, cat.with_(fingerprint="someone"))
    with pytest.raises(SSRError, match="nowhere.png"):
        encoder.likeness("nowhere.png", cat)
