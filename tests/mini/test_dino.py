"""The self-supervised recipe: views, loss, teacher and centre, and what it leaves behind."""

import math
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Model

from ssr_encoder.mini.models import MiniConfig
from ssr_encoder.mini.recipes import RECIPES
from ssr_encoder.mini.recipes.base import TrainConfig
from ssr_encoder.mini.recipes.dino import DINORecipe, distillation, make_dino, neighbours, random_views
from ssr_encoder.mini.train import parse

SMALL = MiniConfig(vision_width=32, vision_layers=2, patch_size=16, heads=2)


@pytest.fixture(autouse=True)
def _one(one_thread):
    pass


def recipe(weights: Path | None = None, **train) -> DINORecipe:
    return DINORecipe(SMALL, TrainConfig(batch_size=4, warmup=1, **train), torch.device("cpu"), weights)


def test_the_stage_is_known():
    assert RECIPES["dino"] is DINORecipe
    assert parse(["dino", "--out", "x", "--time-limit", "5m"]).time_limit == 300


def test_it_has_the_size_of_the_embedded_vision_encoder():
    from ssr_encoder.mini.models import make_image_encoder

    with torch.device("meta"):
        ours, clips = (
            sum(p.numel() for p in make(MiniConfig()).parameters()) for make in (make_dino, make_image_encoder)
        )
    assert abs(ours / clips - 1) < 0.01


def test_views_are_crops_of_their_own_picture():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(64, 3, 32, 32)
    pictures[:32, :, :, :16], pictures[32:] = 1.0, 0.5  # half white; all grey
    views = random_views(pictures, 16, (0.2, 0.4), generator)
    assert views.shape == (64, 3, 16, 16) and views.min() >= -1 and views.max() <= 1
    inside = views[:32].flatten(1)
    share = (inside > 0).float().mean(1)
    assert share.min() < 0.2 and share.max() > 0.8 and len(share.unique()) > 10  # here the one half, there the other
    assert views[32:].flatten(1).std(1).max() < 1e-4  # of an even picture, even views, in different light
    assert views[32:].mean((1, 2, 3)).std() > 0.05
    again = random_views(pictures, 16, (0.2, 0.4), torch.Generator().manual_seed(0))
    assert torch.equal(views, again)


def test_the_loss_pairs_every_crop_with_the_teachers_other_one():
    torch.manual_seed(0)
    answers, said, centre = [torch.randn(3, 5) for _ in range(3)], [torch.randn(3, 5) for _ in range(2)], torch.randn(5)
    loss, figures = distillation(answers, said, centre, 0.1, 0.04)
    total, n = 0.0, 0
    for i in range(2):
        for j in range(3):
            if i != j:
                p, q = torch.softmax((said[i] - centre) / 0.04, 1), torch.softmax(answers[j] / 0.1, 1)
                total, n = total - float((p * q.log()).sum(1).mean()), n + 1
    assert n == 4 and float(loss) == pytest.approx(total / 4, rel=1e-4)
    same = [torch.zeros(3, 5)] * 2
    _, flat = distillation(answers, same, torch.zeros(5), 0.1, 0.04)
    assert float(flat["entropy"]) == pytest.approx(math.log(5)) and float(flat["spread"]) == pytest.approx(math.log(5))
    assert 0 <= figures["entropy"] <= figures["spread"] <= math.log(5)


def test_student_learns_teacher_follows_centre_moves():
    made = recipe()
    models = made.trained
    student, teacher = ([p.clone() for p in net.parameters()] for net in (models.student, models.teacher))
    made._step(0.0, 0, {})
    moved = list(models.student.parameters())
    assert all(not torch.equal(now, was) for now, was in zip(moved, student, strict=True) if was.numel() > 32 * 32)
    for now, was, leader in zip(models.teacher.parameters(), teacher, moved, strict=True):
        assert now.grad is None and torch.allclose(now, 0.99 * was + 0.01 * leader, atol=1e-7)
    assert models.centre.abs().sum() > 0


def test_it_saves_resumes_and_ships_the_teacher(tmp_path):
    first = recipe(max_steps=2)
    assert [progress.finished for progress in first.run()][-1]
    first.save(tmp_path)
    second = recipe(max_steps=1)
    second.resume(tmp_path)
    for key, value in first.trained.state_dict().items():
        assert torch.equal(value, second.trained.state_dict()[key])
    list(second.run())
    assert second.steps == 3
    shipped = Dinov2Model.from_pretrained(tmp_path / "dino", dtype=torch.float32)
    for key, value in first.trained.teacher.backbone.state_dict().items():
        assert torch.allclose(shipped.state_dict()[key], value, atol=1e-3)
    assert (tmp_path / "dino" / "model.safetensors").is_file()
    third = recipe(tmp_path)  # --weights: begins with what was shipped
    assert torch.allclose(third.trained.student.backbone.layernorm.weight, shipped.layernorm.weight)


def test_neighbours_vote():
    torch.manual_seed(0)
    centres = torch.eye(3, 8) * 5
    labels = torch.arange(3).repeat(20)
    known, new = centres[labels] + 0.3 * torch.randn(60, 8), centres + 0.3 * torch.randn(3, 8)
    assert neighbours(known, labels, new).tolist() == [0, 1, 2]
