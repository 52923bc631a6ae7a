"""A complete tiny model folder, laid out like the shipped one, and a way to run commands in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from ssr_encoder.checkpoint import RELEASED, released_names, save_model, sd15_config
from ssr_encoder.cli import main
from ssr_encoder.mini import models
from ssr_encoder.model import SubjectModel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """These models are too small to share out: on a busy machine more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """The folder of an encoder with random weights and the base pipeline beside it: 32 x 32 pictures, 10 tokens."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = models.MiniConfig(
        image_size=32, vae_channels=[16, 16], text_width=32, text_layers=1, text_length=10, vision_width=32,
        vision_layers=2, heads=2, unet_channels=[32, 32, 32], unet_heads=[2, 2, 2], hidden_layers=[1, 2],
        aligner_heads=2, aligner_head_dim=16,
    )  # fmt: skip
    tokenizer = models.make_tokenizer(
        ["a", "an", "balloon", "cat", "dog", "in", "snow", "the", "umbrella"], config.text_length
    )
    unet = models.make_unet(config)
    for name, part in {
        "vae": models.make_vae(config),
        "unet": unet,
        "text_encoder": models.make_text_encoder(config, tokenizer),
        "tokenizer": tokenizer,
        "image_encoder": models.make_image_encoder(config),
        "scheduler": models.make_scheduler(),
    }.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(models.MODEL_INDEX))
    save_model(SubjectModel(models.make_subject_config(config, unet)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def companions(model, tmp_path_factory) -> str:
    """The same model with a ControlNet, a motion adapter (of up to 32 frames) and a few-step LoRA beside it, with
    random weights."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("companions") / "model")
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    for part in (controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):  # zero at birth
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    controlnet.save_pretrained(folder / "controlnet")
    config = models.MiniConfig(unet_channels=[32, 32, 32])
    models.make_motion_adapter(config).save_pretrained(folder / "motion_adapter")
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "conv1"], init_lora_weights=False))
    layers = peft.get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(folder / "few_step", unet_lora_layers=layers)
    return str(folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with pets.png (48 x 32), mask.png of its size, and empty-mask.png."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "pets.png")
    mask = np.zeros((32, 48), dtype=np.uint8)
    Image.fromarray(mask).save(folder / "empty-mask.png")
    mask[8:24, :16] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture(scope="session")
def released(tmp_path_factory) -> Path:
    """The two released files, with their names and shapes and made-up values: tensor i is filled with i."""
    folder = tmp_path_factory.mktemp("released")
    config = sd15_config()
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in SubjectModel(config).state_dict().items()}
    parts = ({}, {})
    for i, (ours, theirs) in enumerate(released_names(config).items()):
        parts[ours.startswith("key_values")][theirs] = torch.full(shapes[ours], float(i), dtype=torch.float16)
    for part, name in zip(parts, RELEASED, strict=True):
        torch.save(part, folder / name)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Result:
    """What a command returned and printed."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def ssr(here, capsys):
    """Run ``ssr`` with these arguments in this process, in an empty folder."""

    def run(*argv) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def start(here):
    """Start ``ssr`` with these arguments as a process of its own, in an empty folder."""
    started = []

    def run(*argv, **options) -> subprocess.Popen:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ssr_encoder.cli import main; sys.exit(main())"
        # Unbuffered, argparse swallows a failing write of the help itself.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        env["OMP_NUM_THREADS"] = "1"
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, argv)], text=True, env=env, **options)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
