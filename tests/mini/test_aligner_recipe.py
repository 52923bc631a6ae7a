"""Stage ``aligner``: what learns, towards what, and that it finds subjects by their word."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small import random_weights, small_recipe

from ssr_encoder.checkpoint import save_model
from ssr_encoder.mini.recipes.aligner import _on_slots, divergence


@pytest.fixture(scope="module")
def first_stages(tmp_path_factory):
    folder = random_weights(tmp_path_factory.mktemp("weights"))
    save_model(small_recipe("aligner", folder).subject, folder, torch.float32)
    return folder


def test_queries_and_keys_alone_learn(first_stages, tmp_path):
    stage = small_recipe("aligner", first_stages)
    before = {name: value.clone() for name, value in stage.subject.state_dict().items()}
    assert all(
        torch.equal(a, b) for a, b in zip(stage.teacher.parameters(), stage.subject.aligner.parameters(), strict=True)
    )
    list(stage.run())
    changed = {name for name, value in stage.subject.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"aligner.to_q.weight", "aligner.to_k.weight"}
    assert all(torch.equal(value, before[f"aligner.{name}"]) for name, value in stage.teacher.state_dict().items())
    stage.save(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    with stage.averaged():
        assert torch.equal(saved["aligner.to_q.weight"], stage.subject.aligner.to_q.weight.half())
    again = small_recipe("aligner", first_stages)
    again.resume(tmp_path)
    assert again.steps == 3 and torch.equal(again.trained[0].weight, stage.trained[0].weight)
    assert not torch.equal(again.teacher.to_q.weight, again.trained[0].weight), "it goes on learning from the beginning"


def test_a_word_comes_to_find_its_subject(first_stages):
    stage = small_recipe("aligner", first_stages, batch_size=16, max_steps=60)
    kept = stage._draw(16, stage.generator, stage.rng)
    stage._draw = lambda *args, **options: kept
    scene, slot = kept["asked"].nonzero().unbind(1)
    words = stage._embed(kept["ids"][scene, slot])

    @torch.no_grad()
    def on_own() -> float:
        attention = stage.subject.aligner.attention(words, kept["patches"][scene].float())
        return float(_on_slots(attention, kept["masks"], stage.config.grid, scene).gather(1, slot[:, None]).mean())

    before = on_own()
    divergences = [progress.figures["word"] for progress in stage.run(report_every=0)]
    assert on_own() > 1.2 * before
    assert sum(divergences[-5:]) < 0.9 * sum(divergences[:5])


def test_divergence_is_that_of_distributions():
    torch.manual_seed(0)
    a, b = (torch.randn(2, 3, 4, 5).softmax(-1) for _ in range(2))
    expected = F.kl_div(b.log(), a, reduction="none").sum(-1).mean()
    assert torch.allclose(divergence(a, b), expected, atol=1e-6)
    assert divergence(a, a).abs() < 1e-6
    masked = torch.where(torch.arange(5) < 3, a, 0)
    masked = masked / masked.sum(-1, keepdim=True)  # beside a region both are zero
    assert torch.isfinite(divergence(masked, masked)) and divergence(masked, masked).abs() < 1e-6
    whole = divergence(masked, a)
    assert torch.allclose(whole, -a[..., :3].sum(-1).log().mean(), atol=1e-5), "the rest of the attention, by its log"


def test_attention_on_subjects_is_counted_by_their_areas():
    masks = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    masks[0, 0, :16] = 255  # the upper half
    masks[0, 1, 16:, :8] = 255  # a quarter of the lower one
    attention = torch.full((2, 2, 4, 17), 0.05)
    attention[..., 0] = 0.2  # the class token is on no subject
    on = _on_slots(attention, masks, 4, torch.tensor([0, 0]))
    assert torch.allclose(on, torch.tensor([[0.4, 0.1, 0.0]]).expand(2, 3), atol=1e-6)


def test_figures_of_the_held_out_scenes_do_not_change_the_run(first_stages):
    stage = small_recipe("aligner", first_stages)
    state, ring = stage.generator.get_state(), copy.copy(stage.ring.tensors)
    figures = stage.evaluate(8)
    assert 0 < figures["on_subject"] < 1 and 0 <= figures["found"] <= 1
    assert figures == stage.evaluate(8)
    assert torch.equal(stage.generator.get_state(), state) and stage.ring.tensors == ring
