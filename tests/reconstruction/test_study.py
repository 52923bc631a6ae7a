"""The study's training: what learns and at which rate, that it learns, stops and goes on, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ssr_encoder.errors import SSRError
from ssr_encoder.loading import fingerprint
from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.run import Run, clip_loss
from ssr_encoder.reconstruction.study import Study

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one(one_thread):
    pass


@pytest.fixture
def study(tiny_config, encoders, pairs, tmp_path):
    def make(out="study", save_every=1e9, **changes):
        config = StudyConfig(**{**vars(tiny_config), **changes})
        return Study(config, tmp_path / out, CPU, encoders, pairs, save_every, report_every=0.0)

    return make


def values(module) -> dict:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("setting", "ABD")
def test_frozen_settings_leave_the_encoder_bit_for_bit(tiny_config, encoders, pairs, setting):
    encoder = encoders["dino" if setting == "B" else "clip"]
    before = fingerprint(encoder)
    run = Run(tiny_config, setting, 0, encoder, CPU)
    decoder = values(run.decoder)
    for _ in range(3):
        run.take_step(pairs)
    assert fingerprint(encoder) == fingerprint(run.encoder) == before
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(not torch.equal(value, decoder[key]) for key, value in run.decoder.state_dict().items())
    assert len(run.optimizer.param_groups) == 1


def test_setting_c_trains_the_last_layer_alone(tiny_config, encoders, pairs):
    before, original = values(encoders["clip"]), fingerprint(encoders["clip"])
    run = Run(tiny_config, "C", 0, encoders["clip"], CPU)
    for _ in range(2):
        run.take_step(pairs)
    after = run.encoder.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    last = {f"vision.encoder.layers.2.{key}" for key in run.encoder.last_layer.state_dict()}
    assert changed == last
    assert fingerprint(encoders["clip"]) == original  # the other settings' encoder


def test_rates_follow_one_cycle_and_the_encoder_has_a_tenth(tiny_config, encoders, pairs):
    config = StudyConfig(**{**vars(tiny_config), "steps": 10, "learning_rate": 3e-4})
    run = Run(config, "C", 0, encoders["clip"], CPU)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, total_steps=10)
    seen = []
    for _ in range(10):
        rates = [group["lr"] for group in run.optimizer.param_groups]
        seen.append(rates[0])
        assert rates[0] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert rates[1] == pytest.approx(rates[0] / 10, rel=1e-9)
        run.take_step(pairs)
        optimizer.step()
        schedule.step()
    assert max(seen) == pytest.approx(3e-4) and 0 < seen.index(max(seen)) < 5
    assert isinstance(run.optimizer, torch.optim.Adam) and not isinstance(run.optimizer, torch.optim.AdamW)


def test_a_short_run_learns_to_reconstruct(tiny_config, encoders, pairs):
    run = Run(StudyConfig(**{**vars(tiny_config), "steps": 40}), "A", 0, encoders["clip"], CPU)
    losses = [run.take_step(pairs) for _ in range(40)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_the_loss_is_l2_and_in_c_also_clips(tiny_config, encoders, pairs):
    pictures, texts = pairs.batch(0, 0, 4)
    plain = Run(tiny_config, "A", 0, encoders["clip"], CPU)
    tuned = Run(tiny_config, "C", 0, encoders["clip"], CPU)
    with torch.no_grad():
        made = plain.decoder(encoders["clip"].features(pictures, [3])[0])
        assert float(plain.loss(pictures, texts)) == pytest.approx(float((made - (2 * pictures - 1)).square().mean()))
        _, images = encoders["clip"].features(pictures, [3])
        words = encoders["clip"].text_embeds(texts)
        contrast = clip_loss(images, words, encoders["clip"].logit_scale.exp(), texts)
        assert float(tuned.loss(pictures, texts) - plain.loss(pictures, texts)) == pytest.approx(float(contrast), 1e-4)
    assert contrast > 0.01


def test_clip_loss_is_the_symmetric_cross_entropy_of_different_texts():
    torch.manual_seed(3)
    images, words = (torch.nn.functional.normalize(torch.randn(4, 5), dim=1) for _ in range(2))
    texts = ["a cat", "a dog", "a cat", "a fox"]
    words[2] = words[0]
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or texts[j] != texts[i]]
        right = torch.exp(9 * images[i] @ words[i])
        total -= torch.log(right / sum(torch.exp(9 * images[i] @ words[j]) for j in others)) / 8
        total -= torch.log(right / sum(torch.exp(9 * images[j] @ words[i]) for j in others)) / 8
    assert float(clip_loss(images, words, torch.tensor(9.0), texts)) == pytest.approx(float(total), rel=1e-5)


def test_accumulated_batches_are_the_mean(tiny_config, encoders, pairs):
    run = Run(StudyConfig(**{**vars(tiny_config), "accumulate": 3}), "D", 0, encoders["clip"], CPU)
    with torch.no_grad():
        wanted = sum(float(run.loss(*pairs.batch(0, number, 4))) for number in range(3)) / 3
    assert run.take_step(pairs) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("setting", "CD")
def test_a_stopped_run_goes_on_as_if_it_had_not(study, setting, tmp_path):
    whole = list(study("whole").run([setting], [1]))
    for state in study("stopped", save_every=0.0).run([setting], [1]):
        if state.step == 2:
            break
    folder = tmp_path / "stopped" / "runs" / f"{setting}-1"
    assert (folder / "state.pt").is_file() and not (folder / "run.json").exists()
    rest = list(study("stopped").run([setting], [1]))
    assert [state.step for state in rest] == [3, 4, 4]
    assert rest[-1].figures == whole[-1].figures
    a, b = (load_file(tmp_path / name / "runs" / f"{setting}-1" / "model.safetensors") for name in ("whole", "stopped"))
    assert set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
    assert not (folder / "state.pt").exists()


def test_finished_runs_are_skipped_and_others_refused(study, tmp_path):
    first = list(study().run(["A"], [0, 1]))
    assert not any(state.skipped for state in first)
    again = list(study().run(["A"], [0, 1]))
    assert [state.skipped for state in again] == [True, True]
    assert again[0].figures == next(state.figures for state in first if state.figures)
    with pytest.raises(SSRError, match="A-1 is a run with steps 4, not 5; give another --output, or delete it"):
        list(study(steps=5).run(["C", "A"], [1]))
    assert not (tmp_path / "study" / "runs" / "C-1").exists()  # nothing was begun
    (tmp_path / "study" / "runs" / "A-0" / "run.json").write_text("{")
    with pytest.raises(SSRError, match="damaged"):
        list(study().run(["A"], [0]))


def test_another_encoder_is_another_study(study, encoders):
    list(study().run(["A"], [0]))
    with torch.no_grad():
        encoders["clip"].visual_projection[0, 0] += 1
    with pytest.raises(SSRError, match="encoder_sha256"):
        list(study().run(["A"], [0]))


def test_a_damaged_state_says_what_to_do(study, tmp_path):
    for state in study(save_every=0.0).run(["A"], [0]):
        if state.step == 2:
            break
    (tmp_path / "study" / "runs" / "A-0" / "state.pt").write_bytes(b"no")
    with pytest.raises(SSRError, match="remove it to begin this run again"):
        list(study().run(["A"], [0]))


def test_the_figures_of_each_setting(study, tmp_path):
    found = {state.setting: state.figures for state in study().run(list("ABCD"), [0]) if state.figures}
    assert set(found["A"]) == set(found["C"]) == set(found["D"]) == {"ps", "psnr", "clip_t", "zero_shot"}
    assert set(found["B"]) == {"ps", "psnr"}  # it reads no text
    for name in ("clip_t", "zero_shot"):
        assert found["A"][name] == found["D"][name]  # the same, untouched encoder
    assert found["C"]["clip_t"] != found["A"]["clip_t"]
    settings = {s: json.loads((tmp_path / f"study/runs/{s}-0/settings.json").read_text()) for s in "ABCD"}
    assert [settings[s]["hidden_layers"] for s in "ABCD"] == [[3], [2], [3], [1, 2, 3]]


def test_unknown_names_are_refused():
    with pytest.raises(SSRError, match="did you mean learning_rate"):
        StudyConfig.load("mini", ["lerning_rate=1"])
    with pytest.raises(SSRError, match="known: mini, paper"):
        StudyConfig.load("big")
    with pytest.raises(SSRError, match="multiples of groups"):
        StudyConfig.load("mini", ["channels=[8, 12]"])
    assert StudyConfig.load("paper", ["learning_rate=3e-5"]).learning_rate == 3e-5


def test_the_paper_preset_is_section_b2():
    config = StudyConfig.load("paper")
    assert (config.steps, config.batch_size, config.accumulate) == (100_000, 32, 4)
    assert (config.learning_rate, config.encoder_rate) == (3e-4, 0.1)
