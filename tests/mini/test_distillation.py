"""The recipe that distils the embedded model: what it teaches, and that only the LoRA learns it."""

import pytest
import torch
from diffusers import DDIMScheduler
from small import small_recipe

from ssr_encoder.few_step import FEW_STEPS, FILE, FOLDER, few_step_scheduler
from ssr_encoder.mini.models import make_scheduler

pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def fresh(first_stages):
    return small_recipe("few_step", first_stages)


def level(recipe, timesteps):
    alphas = recipe.alphas[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt(), (1 - alphas).sqrt()


def ddim_step(velocity, timestep: int, latents):
    """By the stock scheduler that the few-step pipeline gets."""
    scheduler = few_step_scheduler(make_scheduler())
    assert isinstance(scheduler, DDIMScheduler)
    scheduler.set_timesteps(FEW_STEPS)
    return scheduler.step(velocity, timestep, latents).prev_sample


def test_the_target_is_guided(fresh, monkeypatch):
    """Two models that each know one picture: whatever the noise, the guided one ends at their extrapolation."""
    wanted, given = torch.randn(2, 1, 4, 8, 8)

    def velocity(noisy, timesteps, prompts, packs):
        clean = torch.cat([wanted.expand(len(noisy) // 2, -1, -1, -1), given.expand(len(noisy) // 2, -1, -1, -1)])
        alpha, sigma = level(fresh, timesteps)
        return (alpha * noisy - clean) / sigma

    monkeypatch.setattr(fresh, "_velocity", velocity)
    timesteps = torch.tensor([999, 624, 124])
    noisy = torch.randn(3, 4, 8, 8)
    target = fresh._teach(noisy, timesteps, None, None)
    alpha, sigma = level(fresh, timesteps)
    expected = (wanted + 3.0 * (given - wanted)).expand(3, -1, -1, -1)
    torch.testing.assert_close(alpha * noisy - sigma * target, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("timestep", [874, 624, 374])
def test_one_step_by_the_target_goes_where_the_flow_goes(fresh, monkeypatch, timestep):
    """Pictures of independent Gaussian pixels: the probability flow is known, and plain DDIM steps miss it by far."""
    spread = 0.3

    def velocity(noisy, timesteps, prompts, packs):
        alpha, sigma = level(fresh, timesteps)
        clean = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * noisy
        return (alpha * noisy - clean) / sigma

    monkeypatch.setattr(fresh, "_velocity", velocity)
    ends = timestep - 1000 // FEW_STEPS
    noisy, t = torch.randn(1, 4, 8, 8), torch.tensor([timestep])
    spreads = [(a**2 * spread**2 + s**2).sqrt() for a, s in (level(fresh, t), level(fresh, torch.tensor([ends])))]
    exact = noisy * spreads[1] / spreads[0]
    taught = ddim_step(fresh._teach(noisy, t, None, None), timestep, noisy)
    plain = ddim_step(velocity(noisy, t, None, None), timestep, noisy)
    assert (taught - exact).abs().max() < 0.3 * (plain - exact).abs().max()


def test_a_rollout_goes_as_the_pipeline_does(fresh):
    """A rollout from noise to the end, beside the stock scheduler with the student's own predictions."""
    scheduler = few_step_scheduler(make_scheduler())
    scheduler.set_timesteps(FEW_STEPS)
    with torch.no_grad():
        for adapter in fresh.parameters_list:
            adapter.normal_(0, 0.02)  # a student that is not its teacher
        rollouts = fresh._start(fresh._examples(2))
        latents = rollouts["noisy"].clone()
        for stage, timestep in enumerate(scheduler.timesteps.tolist()):
            assert rollouts["stage"].tolist() == [stage] * 2 and set(fresh._begins(rollouts["stage"]).tolist()) == {
                timestep
            }
            t = torch.tensor([timestep] * 2)
            velocity = fresh._velocity(latents, t, rollouts["prompts"][:, 1], rollouts["packs"][:, 1])
            latents = scheduler.step(velocity, timestep, latents).prev_sample
            fresh._advance(rollouts)
            torch.testing.assert_close(rollouts["noisy"], latents, atol=1e-4, rtol=1e-4)
    assert fresh._begins(rollouts["stage"]).tolist() == [-1, -1]


def test_every_batch_goes_on_and_those_at_the_end_begin_anew(fresh, monkeypatch):
    """At any time all stages are learned; each rollout goes to its end, and the next is another one."""
    monkeypatch.setattr(fresh, "batch_size", FEW_STEPS)
    scheduler = few_step_scheduler(make_scheduler())
    scheduler.set_timesteps(FEW_STEPS)
    batches = [fresh._batch()["model"] for _ in range(FEW_STEPS + 1)]
    for one, after in zip(batches, batches[1:], strict=False):
        assert sorted(one["timesteps"].tolist()) == sorted(scheduler.timesteps.tolist())
        last = one["timesteps"] == one["timesteps"].min()
        assert (after["timesteps"][last] == 999).all()
        assert (after["timesteps"][~last] == one["timesteps"][~last] - 1000 // FEW_STEPS).all()
        assert torch.equal(after["pack"][~last], one["pack"][~last]), "the same subjects until the end"
    first, again = (batch["noisy"][batch["timesteps"] == 999] for batch in (batches[0], batches[-1]))
    assert (first - again).abs().mean() > 0.5 and abs(float(again.std()) - 1) < 0.2


def test_subjects_are_as_strong_as_in_use(fresh, monkeypatch):
    """One subject at the model's default, each of several at its own."""
    seen = []
    pack = fresh._pack
    monkeypatch.setattr(fresh, "_pack", lambda q, h, w, scale: seen.append(scale) or pack(q, h, w, scale))
    fresh._start(fresh._examples(32))
    assert torch.equal(*seen), "guidance compares like with like"
    assert {tuple(row) for row in seen[0].tolist()} <= {(0.0, 0.0), (1.25, 0.0), (1.5, 1.5), (0.0, 1.25)}
    assert {(1.25, 0.0), (1.5, 1.5)} <= {tuple(row) for row in seen[0].tolist()}


def test_the_lora_learns_alone(first_stages, tmp_path):
    made = small_recipe("few_step", first_stages)
    before = {k: v.clone() for k, v in made.denoiser.state_dict().items()}
    state = made.generator.get_state()
    figures = made.evaluate(4)
    assert figures["loss_student"] == figures["loss_untaught"] > 0, "it begins as the base model"
    assert made.evaluate(4) == figures and torch.equal(made.generator.get_state(), state)
    list(made.run())
    changed = {k for k, v in made.denoiser.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if "lora_" in k}
    after = made.evaluate(4)
    assert after["loss_untaught"] != after["loss_student"] != figures["loss_student"]

    made.save(tmp_path)
    resumed = small_recipe("few_step", first_stages)
    with torch.no_grad():
        resumed.denoiser.unet.conv_out.bias.add_(1.0)  # the base model has learned meanwhile
    moved = resumed.denoiser.unet.conv_out.bias.clone()
    resumed.resume(tmp_path)
    assert (resumed.steps, resumed.samples) == (3, 12) and torch.equal(resumed.denoiser.unet.conv_out.bias, moved)
    for one, other in zip(resumed.parameters_list, made.parameters_list, strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / FOLDER / FILE).is_file()
    (first_stages / FOLDER).mkdir()
    (first_stages / FOLDER / FILE).write_bytes((tmp_path / FOLDER / FILE).read_bytes())
    again = small_recipe("few_step", first_stages)
    averaged = {k: v.half().float() for k, v in zip(lora_names(made), made.ema.shadow_params, strict=True)}
    for name, value in averaged.items():
        torch.testing.assert_close(dict(again.denoiser.named_parameters())[name], value, atol=1e-6, rtol=0)


def lora_names(made) -> list[str]:
    return [name for name, parameter in made.denoiser.named_parameters() if parameter.requires_grad]


def test_students_see_no_unconditional_rows(fresh):
    batch = fresh._batch()
    assert batch["model"]["pack"].shape[0] == len(batch["model"]["noisy"]) == 4
    assert batch["target"].shape == batch["model"]["noisy"].shape and batch["target"].isfinite().all()
    loss, _ = fresh._loss_of(batch)
    assert loss.requires_grad and loss > 0
