"""Recipes: the ring, the queries, and that every stage trains, saves, resumes and is what it was."""

import random
import re
from pathlib import Path

import pytest
import torch
from small import SMALL

from ssr_encoder.errors import SSRError
from ssr_encoder.mini.data import Ring, draw, plan, random_queries
from ssr_encoder.mini.models import make_tokenizer
from ssr_encoder.mini.recipes import RECIPES
from ssr_encoder.mini.recipes.base import TrainConfig
from ssr_encoder.mini.train import parse, seconds
from ssr_encoder.mini.world import World, caption_words

CPU = torch.device("cpu")


def recipe(stage: str, weights: Path, **train):
    train = TrainConfig(**{"batch_size": 4, "max_steps": 2, "warmup": 1, **train})
    made = RECIPES[stage](SMALL, train, CPU, weights)
    if hasattr(made, "ring"):
        made.ring = Ring(16)
    return made


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """Weights of all stages, each trained for two steps on the ones before."""
    folder = tmp_path_factory.mktemp("weights")
    for stage in ("vae", "clip", "unet"):
        trained = recipe(stage, folder)
        assert [progress.finished for progress in trained.run()][-1]
        trained.save(folder)
    return folder


def test_saved_stages_make_an_encoder(earlier):
    from ssr_encoder import SSREncoder

    ssr = SSREncoder.from_pretrained(earlier, device="cpu")
    subject = ssr.encode(torch.rand(3, 128, 128), "cat")
    pictures = ssr.generate("a cat in the snow", [subject], num_inference_steps=2, seed=0)
    assert pictures[0].size == (128, 128)


def test_resuming_goes_on_where_it_stopped(earlier, tmp_path):
    first = recipe("ssr", earlier)
    list(first.run())
    first.save(tmp_path)
    second = recipe("ssr", earlier)
    second.resume(tmp_path)
    assert (second.steps, second.samples) == (2, 8)
    for a, b in zip(first.trained.parameters(), second.trained.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    list(second.run())
    assert (second.steps, second.samples) == (4, 16)


def test_the_ssr_stage_changes_the_subject_encoder_alone(earlier):
    stage = recipe("ssr", earlier)
    unet = {k: v.clone() for k, v in stage.denoiser.unet.state_dict().items()}
    subject = {k: v.clone() for k, v in stage.denoiser.subject.state_dict().items()}
    list(stage.run())
    assert all(torch.equal(v, unet[k]) for k, v in stage.denoiser.unet.state_dict().items())
    changed = [k for k, v in stage.denoiser.subject.state_dict().items() if not torch.equal(v, subject[k])]
    assert len(changed) == len(subject)


def test_a_stage_in_which_only_some_parameters_learn(earlier, tmp_path, monkeypatch):
    pattern = r"unet\.(up_blocks\.1|conv_out)|subject\."
    with monkeypatch.context() as patch:
        patch.setattr(RECIPES["unet"], "only", pattern)
        stage, again = (recipe("unet", earlier, streams=2) for _ in range(2))
    before = {name: p.clone() for name, p in stage.denoiser.named_parameters()}
    list(stage.run())
    changed = {name for name, p in stage.denoiser.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if re.match(pattern, name)}
    assert 0 < len(changed) < len(before)
    stage.save(tmp_path)
    again.resume(tmp_path)
    assert all(map(torch.equal, stage.denoiser.parameters(), again.denoiser.parameters()))
    with pytest.raises(SSRError, match="other parameters learned; give its --only"):
        recipe("unet", earlier).resume(tmp_path)
    monkeypatch.setattr(RECIPES["unet"], "only", "up_blocks")
    with pytest.raises(SSRError, match="'up_blocks' matches no parameter"):
        recipe("unet", earlier)


def test_streams_share_a_batch(earlier):
    one, two = (recipe("unet", earlier, streams=streams) for streams in (1, 2))
    one.tau = two.tau = 0.0  # the regularisation is a mean over the rows of a part that have a text
    losses = [made.backward()[0] for made in (one, two)]
    assert torch.allclose(*losses, rtol=1e-4)
    for a, b in zip(one.parameters_list, two.parameters_list, strict=True):
        assert (a.grad - b.grad).norm() <= 1e-3 * a.grad.norm() + 1e-6


def test_bfloat16_on_the_cpu_is_near_float32(earlier):
    full, half = (recipe("ssr", earlier, bfloat16=bfloat16).backward()[0] for bfloat16 in (False, True))
    assert full != half
    assert torch.allclose(full, half, rtol=0.02)


def test_signals_that_need_no_sampling(earlier):
    figures = recipe("ssr", earlier).evaluate(8)
    assert {"loss_right", "loss_wrong_query", "loss_wrong_identity", "loss_no_subject", "attention_in_mask"} <= set(
        figures
    )
    assert 0 < figures["attention_in_mask"] < 1


@pytest.mark.parametrize("noisier", [1.0, 0.5])
def test_timesteps_are_even_or_more_often_noisy_and_a_batch_is_spread(earlier, noisier):
    stage = recipe("unet", earlier)
    assert stage.noisier == 1.0, "even, unless asked otherwise"
    stage.noisier = noisier
    drawn = torch.stack([stage._timesteps(8) for _ in range(200)]).sort(1).values
    assert drawn.min() >= 0 and drawn.max() <= 999
    shares = (drawn[:, :, None] < torch.tensor([250, 500, 750])).float().mean((0, 1))
    assert shares.tolist() == pytest.approx([part ** (1 / noisier) for part in (0.25, 0.5, 0.75)], abs=0.03)
    edges = 1000 * (torch.arange(9) / 8) ** noisier  # one timestep from each eighth of the distribution
    assert ((drawn >= edges[:-1] - 1) & (drawn <= edges[1:])).all()


def test_averaged_weights_are_put_back(earlier):
    stage = recipe("ssr", earlier)
    list(stage.run())
    before = [p.clone() for p in stage.parameters_list]
    with stage.averaged():
        assert any(not torch.equal(a, b) for a, b in zip(before, stage.parameters_list, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, stage.parameters_list, strict=True))


def test_the_rate_falls_at_the_end_of_the_time(earlier):
    stage = recipe("ssr", earlier, time_limit=100.0, decay=0.5)
    rates = []
    for fraction in (0.0, 0.4, 0.75, 0.99):
        stage._step(fraction, 5, {})
        rates.append(stage.optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1] > rates[2] > rates[3] > 0


def test_a_loss_that_is_not_finite_stops_the_run(earlier):
    stage = recipe("ssr", earlier)
    with torch.no_grad():
        stage.denoiser.subject.aligner.to_q.weight.fill_(float("nan"))
    with pytest.raises(SSRError, match="not finite"):
        list(stage.run())


def test_ring_overwrites_the_oldest():
    ring = Ring(4)
    for start in (0, 3):
        ring.put({"x": torch.arange(start, start + 3)})
    assert ring.filled == 4
    assert sorted(set(ring.take(200, torch.Generator().manual_seed(0))["x"].tolist())) == [2, 3, 4, 5]


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_examples_keep_the_split_and_the_identity(world, split):
    tokenizer = make_tokenizer(caption_words(world), 20)
    example = draw(world, tokenizer, SMALL, 16, torch.Generator().manual_seed(1), random.Random(1), split)
    target = example.target
    shown = target.concept >= 0
    held = world.holdout[target.concept.clamp(min=0), target.style, target.colour]
    assert (held[shown] == (split == "holdout")).all()
    assert (example.two == shown[:, 1]).all()
    assert example.reference_masks.flatten(2).amax(-1).gt(0.5).float().mean() > 0.9


def test_reference_is_target_gives_the_target_itself(world):
    tokenizer = make_tokenizer(caption_words(world), 20)
    example = draw(
        world, tokenizer, SMALL, 4, torch.Generator().manual_seed(1), random.Random(1), reference_is_target=1.0
    )
    torch.testing.assert_close(example.references[:, 0], example.pictures)


def test_a_subject_in_a_nameless_tone_wears_it_in_its_reference_too(world):
    """Its mean colour there and in the target, against that of another example's reference."""
    tokenizer, generator = make_tokenizer(caption_words(world), 20), torch.Generator().manual_seed(1)
    one = {"subjects": (1.0, 0.0, 0.0), "tones": 1.0}
    example = draw(world, tokenizer, SMALL, 24, generator, random.Random(1), **one)
    toned = example.target.colour[:, 0] >= len(world.colours)
    assert toned.float().mean() > 0.7

    def colour(pictures, masks):
        return (pictures * masks[:, None]).sum((2, 3)) / masks.sum((1, 2))[:, None]

    target = colour(example.pictures, example.subject_area)[toned]
    reference = colour(example.references[:, 0], example.reference_masks[:, 0])[toned]
    distance = torch.cdist(target, reference)
    assert distance.diagonal().mean() < 0.5 * distance.mean()


@pytest.mark.parametrize(
    "same_way, least, most", [(1.0, 1.0, 1.0), (0.9, 0.8, 0.97), (0.0, 0.0, 0.0), (None, 0.35, 0.65)]
)
def test_a_reference_shows_its_subject_from_the_side_that_the_target_does(world, same_way, least, most):
    tokenizer, generator = make_tokenizer(caption_words(world), 20), torch.Generator().manual_seed(1)
    made = plan(world, tokenizer, 128, generator, random.Random(1), same_way=same_way)
    for slot, scenes in enumerate(made.references):
        there = made.target.concept[:, slot] >= 0
        same = (scenes.flip[:, 0] == made.target.flip[:, slot])[there].float().mean()
        assert least <= same <= most


def test_the_stages_references_look_as_their_targets_do_where_that_is_asked_for(earlier):
    drawn = []
    for same_way in (None, None, 1.0):
        stage = recipe("unet", earlier)
        stage.same_way, stage.at_once = same_way, {"cpu": 8}
        drawn.append(stage._draw()["hidden"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_stages_scenes_have_its_share_of_tones(earlier):
    drawn = []
    for tones in (0.0, 0.0, 1.0):
        stage = recipe("unet", earlier)
        assert 0 < stage.tones < 1, "both named and nameless colours, unless asked otherwise"
        stage.tones, stage.at_once = tones, {"cpu": 4}
        drawn.append(stage._draw()["latents"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_stages_targets_show_the_favoured_concepts_more_often(world, earlier):
    seen = []
    for favour in ({}, {"cat": 1e6}):
        stage = recipe("unet", earlier)
        stage.favour, stage.at_once = favour, {"cpu": 12}
        stage.encode = lambda example: seen.append(example.target.concept) or {}
        stage._draw()
    cats = [(concept == world.concepts.index("cat")).any(1).float().mean() for concept in seen]
    assert cats[1] == 1 and cats[0] < 0.8
    assert set(type(stage).favour) <= set(world.concepts) and min(type(stage).favour.values()) > 1


def test_worker_processes_plan_what_would_be_planned_here(earlier):
    here, there = (recipe("unet", earlier, workers=workers) for workers in (0, 1))
    for stage in (here, there):
        stage.at_once = {"cpu": 2}
    for _ in range(2):
        one, other = here._draw(), there._draw()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_blocks_are_compiled_and_what_is_evaluated_is_not(earlier):
    """Only what a GPU would do first: compiling itself is torch's."""
    stage, left_out = recipe("unet", earlier), recipe("unet", earlier, compile=False)
    unet, before = stage.denoiser.unet, set(stage.denoiser.unet.state_dict())
    for each in (stage, left_out):
        each.cuda = True
        each.compile_blocks(each.denoiser.unet)
    names = {type(m).__name__ for m in unet.modules() if m._compiled_call_impl is not None}
    assert names == {"ResnetBlock2D", "Transformer2DModel"} and set(unet.state_dict()) == before
    assert all(m._compiled_call_impl is None for m in left_out.denoiser.unet.modules())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with stage.averaged(), torch.no_grad():
        unet(torch.zeros(1, 4, 32, 32), 1, torch.zeros(1, 20, 32))
    assert not torch._dynamo.utils.counters["stats"]


def test_random_queries_never_ask_by_text_alone_where_it_is_ambiguous():
    masks = torch.zeros(200, 64, 64)
    masks[:, 10:40, 20:50] = 1
    enough = torch.arange(200) % 2 == 0
    weights, with_text = random_queries(masks, enough, 8, 0.1, torch.Generator().manual_seed(0))
    everything = (weights == 1).all(1)
    assert everything[enough].float().mean() > 0.3
    assert not everything[~enough].any()
    assert with_text[everything].all()
    confined = weights[~everything]
    assert (confined[:, 0] == 0).all() and (confined.sum(1) > 0).all()


def test_points_are_drawn_where_the_subject_is_and_everywhere_in_it():
    masks = torch.zeros(3000, 64, 64)
    masks[:, 24:40, 4:20], masks[:, 24:40, 44:60] = 1, 0.5  # two patches each way, and half covered ones
    never = torch.zeros(3000, dtype=torch.bool)
    weights, _ = random_queries(masks, never, 8, 0.02, torch.Generator().manual_seed(0))
    left, right = (weights[:, 1:].unflatten(1, (8, 8)) > 0).chunk(2, dim=2)
    points = left.flatten(1).any(1) ^ right.flatten(1).any(1)  # masks and boxes are of both
    assert 0.28 < points.float().mean() < 0.39
    assert abs(right[points].flatten(1).any(1).float().mean() - 1 / 17) < 0.025  # .5 ** 4 to 1
    patches = left[points].float().mean(0)[3:5, 0:3]
    assert (patches > 0.1).all() and left[points].float().mean(0).sum() == pytest.approx(patches.sum())


def test_times_are_read():
    assert [seconds(t) for t in ("90", "90s", "9m", "1.5h")] == [90, 90, 540, 5400]
    assert parse(["vae", "--out", "x", "--time-limit", "2m"]).time_limit == 120
