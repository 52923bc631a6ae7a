"""The loop: what it trains, that it goes on exactly, and that it stops in one line."""

import json
import os
import signal

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_training import lines_of, make_sample, make_shards, same, weights, write_tar

from ssr_encoder import SSREncoder
from ssr_encoder.errors import SSRError
from ssr_encoder.losses import denoising_loss, embedding_consistency_loss
from ssr_encoder.training import Trainer, train
from ssr_encoder.training.features import encode
from ssr_encoder.training.objective import denoise, draw_timesteps, losses, normal


def run(config, steps=None):
    """A trainer after ``steps`` steps, or all."""
    trainer = Trainer(config)
    for progress in trainer.run():
        if steps and progress.step == steps:
            break
    return trainer


def items_of(trainer, positions):
    return [trainer.dataset[p] for p in positions]


def test_the_objective_is_the_papers(new_config):
    trainer = Trainer(new_config("data.subject_drop=0", "objective.tau=0.5"))
    features = encode(trainer.base, items_of(trainer, range(4)), trainer.blank)
    found = losses(trainer.model, trainer.base, features, trainer.config.objective, 0)
    latents = trainer.base.scale(features.mean + features.std * normal(0, range(4), 1, features.std))
    noise, timesteps = normal(0, range(4), 2, latents), draw_timesteps(0, range(4), 1000, latents.device)
    noise_pred, embeds, _ = denoise(trainer.model, trainer.base, features, latents, noise, timesteps)
    expected = denoising_loss(noise_pred, noise) + 0.5 * embedding_consistency_loss(embeds, features.query)
    assert torch.allclose(found.total / 4, expected, rtol=1e-5)
    assert found.regularisation.shape == (4, 2) and len(set(timesteps.tolist())) == 4


@pytest.mark.parametrize("weighting, prediction", [("min_snr", "epsilon"), ("min_snr", "v"), ("shifted", "v")])
def test_weights_by_timestep(new_config, weighting, prediction):
    from ssr_encoder.losses import snr_weight
    from ssr_encoder.training.objective import timestep_weight

    trainer = Trainer(new_config(f'objective.weighting="{weighting}"', "objective.snr_limit=5"))
    trainer.base.velocity = prediction == "v"
    timesteps = torch.tensor([0, 300, 999])
    alphas = trainer.base.alphas[timesteps]
    snr = alphas / (1 - alphas)
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr + (prediction == "v"))
    if weighting == "shifted":
        expected = snr_weight(trainer.base.alphas, timesteps, 5.0)
    assert torch.allclose(timestep_weight(trainer.config.objective, trainer.base, timesteps), expected)


def test_only_the_subject_encoder_is_trained(new_config):
    trainer = Trainer(new_config("optim.steps=3"))
    frozen = [{k: v.clone() for k, v in module.state_dict().items()} for module in trainer.base.modules()]
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    list(trainer.run())
    for module, state in zip(trainer.base.modules(), frozen, strict=True):
        assert same(dict(module.state_dict()), state)
    assert not [k for k, v in trainer.model.state_dict().items() if torch.equal(v, before[k])]


def test_the_loss_falls(new_config):
    config = new_config("optim.steps=30", "optim.learning_rate=0.003", "objective.tau=1", "run.log_every=5")
    figures = [p.figures for p in Trainer(config).run() if p.figures]
    assert figures[-1]["regularisation"] < 0.5 * figures[0]["regularisation"]
    assert {"denoising/band0", "regularisation/scale1", "gradient_norm", "memory_gb", "seconds_left"} <= set(figures[0])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(new_config):
    whole = run(new_config(out="whole"))
    stopped = run(new_config(), steps=3)
    stopped.save()
    resumed = Trainer(new_config())
    assert (resumed.state.step, resumed.state.position, same(weights(resumed), weights(stopped))) == (3, 12, True)
    list(resumed.run())
    assert resumed.state.position == 32 and same(weights(resumed), weights(whole))


def test_micro_batches_and_gradient_checkpointing_change_nothing_but_memory(new_config):
    whole = weights(run(new_config(out="whole")))
    for i, words in enumerate((["optim.micro_batch=3"], ["run.gradient_checkpointing=true"])):
        other = weights(run(new_config(*words, out=f"other{i}")))
        for name, value in whole.items():
            # Where a gradient is next to nothing, its last digits decide how far AdamW goes: up to 1e-3 a step.
            near = 1e-4 if name.startswith(("model/", "ema/")) else 1e-6
            assert torch.allclose(other[name], value, atol=near), (words, name)


def test_bad_samples_and_shards_are_skipped_counted_and_listed(new_config, tmp_path):
    folder = make_shards(tmp_path / "bad", (6, 6))
    samples = [make_sample(i) for i in range(6)]
    samples[2]["png"] = b"nothing"
    write_tar(folder / "000000.tar", samples)
    data = (folder / "000001.tar").read_bytes()
    (folder / "000001.tar").write_bytes(data[: len(data) // 2])
    (folder / "000001.report.json").write_text(json.dumps({"kept": 6}))
    notes = []
    config = new_config("data.max_bad=0.6", "optim.steps=6", data=folder)  # 24 samples, two epochs
    done = list(train(config, notes.append))
    lost = [sample for sample in done if sample.bad]
    listed = lines_of(f"{config.run.out}/bad_samples.jsonl")
    assert len(listed) == sum(len(p.bad) for p in lost) == done[-1].figures["bad_samples"]
    first = [(entry["shard"].split("/")[-1], entry["index"]) for entry in listed]
    assert first.count(("000000.tar", 2)) == 2 and first.count(("000001.tar", 5)) == 2
    assert any("000001.tar" in note for note in notes)
    trainer = Trainer(config)
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_a_bad_sample_is_as_if_it_were_not_in_the_batch(new_config):
    trainer = Trainer(new_config("data.subject_drop=0"))
    items = items_of(trainer, range(4))
    good = losses(
        trainer.model, trainer.base, encode(trainer.base, items[:3], trainer.blank), trainer.config.objective, 0
    )
    items[3] |= trainer.dataset._nothing() | {"weight": 0.0}
    found = losses(trainer.model, trainer.base, encode(trainer.base, items, trainer.blank), trainer.config.objective, 0)
    assert torch.allclose(found.total, good.total, rtol=1e-5)


def test_too_many_bad_samples_stop_the_run(new_config, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    write_tar(folder / "0.tar", [make_sample(i) | {"png": b"nothing"} for i in range(8)])
    with pytest.raises(SSRError, match="cannot be used, more than data.max_bad"):
        list(train(new_config(data=folder)))


def test_a_loss_that_is_not_a_number_stops_with_the_last_checkpoint_intact(new_config):
    config = new_config("run.save_every=2")
    trainer = Trainer(config)
    with pytest.raises(SSRError, match="not a number at step 5; step-00000004 is the last") as caught:
        for progress in trainer.run():
            if progress.step == 4:
                trainer.save()
                trainer.learned.parameters[0].data.fill_(torch.nan)
    assert "\n" not in str(caught.value)
    assert Trainer(config).state.step == 4


def test_an_exploding_loss_stops(new_config):
    trainer = Trainer(new_config())
    with pytest.raises(SSRError, match=r"the loss went from .* at step 4"):
        for progress in trainer.run():
            if progress.step == 3:
                for parameter in trainer.learned.parameters:
                    parameter.data.mul_(1e3)
                trainer.config.objective.tau = 1e4


def test_the_result_is_an_encoder(new_config, picture):
    config = new_config("optim.steps=2", "run.save_every=1", 'run.log_with=["tensorboard"]')
    list(train(config))
    for folder in ("encoder", "checkpoints/step-00000001"):
        ssr = SSREncoder.from_pretrained(f"{config.run.out}/{folder}", device="cpu")
        assert ssr.encode(picture, "cat").tokens.shape == (2 * 12, 32)
    lines = lines_of(f"{config.run.out}/metrics.jsonl")
    assert [line["step"] for line in lines] == [2] and lines[0]["loss"] > 0


def test_fine_tuning_begins_with_the_encoders_weights(new_config, folder, subject_model):
    trainer = Trainer(new_config(f'base.init="{folder}"'))
    assert same(dict(trainer.model.state_dict()), dict(subject_model.state_dict()))
    assert all(p.requires_grad for p in trainer.learned.parameters)


@pytest.mark.parametrize(
    "override, message",
    [
        ("run.seed=3", "run.seed was 0"),
        ("base.hidden_layers=[1,2]", "base.hidden_layers was"),
        ("base.heads=2", "another model"),
    ],
)
def test_a_run_is_not_continued_as_another(new_config, override, message):
    run(new_config(), steps=1).save()
    with pytest.raises(SSRError, match=message):
        Trainer(new_config(override))


def test_a_changed_setting_is_noted(new_config):
    run(new_config(), steps=1).save()
    assert "objective.tau is now 0.5" in Trainer(new_config("objective.tau=0.5")).notes[0]


@pytest.mark.parametrize(
    "override, message",
    [
        ('base.model="./nowhere"', "./nowhere is no pipeline"),
        ('base.image_encoder="./nothing"', "cannot load ./nothing"),
        ("base.hidden_layers=[1,9]", "asks for layer 9"),
        ('data.shards="nowhere"', "nowhere does not exist"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(new_config, override, message):
    with pytest.raises(SSRError, match=message) as caught:
        Trainer(new_config(override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frozen", ["float32", "bfloat16"])
def test_mixed_precision_is_near(new_config, frozen):
    AcceleratorState._reset_state(True)  # accelerate allows one precision a process
    trainer = Trainer(new_config("optim.steps=2", 'run.precision="bf16"', f'base.dtype="{frozen}"', out="half"))
    half = [progress.figures for progress in trainer.run()][-1]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.learned.parameters)
    AcceleratorState._reset_state(True)
    whole = [progress.figures for progress in Trainer(new_config("optim.steps=2")).run()][-1]
    for name in ("denoising", "regularisation"):
        assert half[name] != whole[name] and abs(half[name] - whole[name]) < 0.02 * whole[name]


def test_out_of_memory_says_what_to_lower(new_config, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer = Trainer(new_config("optim.micro_batch=2"))
    monkeypatch.setattr("ssr_encoder.training.loop.losses", full)
    with pytest.raises(SSRError, match="out of memory with 2 samples at a time; lower optim.micro_batch"):
        next(trainer.run())


class Deadly(torch.utils.data.Dataset):
    def __getitem__(self, position):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_loader_process_is_said_in_one_line(new_config):
    trainer = Trainer(new_config("data.workers=1"))
    trainer.dataset = Deadly()
    with pytest.raises(SSRError, match="a loader process died"):
        next(trainer.run())
