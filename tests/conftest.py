"""Tiny real components with random weights: a whole Stable Diffusion in a few hundred thousand parameters."""

import importlib.util
import signal
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from ssr_encoder import SSREncoder, SubjectConfig, SubjectModel
from ssr_encoder.attention import subject_layers
from ssr_encoder.mini.models import make_tokenizer

# A suite started in the background of a shell inherits an ignored Ctrl-C, and the interrupt tests would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = ["a", "an", "the", "cat", "dog", "fox", "red", "blue", "in", "on", "of", "and", "snow", "beach", "forest"]
TEXT_WIDTH, VISION_WIDTH, TOKENS = 32, 48, 12
SIZE = 64  # pixels a side of what is generated; latents of 16 x 16
VISION_SIZE, PATCH = 48, 6  # 8 x 8 patches


@pytest.fixture(autouse=True)
def repeatable(request):
    """The same random numbers in every test; one thread for the tiny tensors of this folder's own tests, to which a
    second one costs more than it brings."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if request.path.parent == Path(__file__).parent else threads)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread():
    """On a busy machine more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer(WORDS, TOKENS)


@pytest.fixture(scope="session")
def text_encoder(tokenizer) -> CLIPTextModel:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


@pytest.fixture(scope="session")
def image_encoder() -> CLIPVisionModel:
    torch.manual_seed(2)
    config = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=64,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=VISION_SIZE,
        patch_size=PATCH,
    )
    return CLIPVisionModel(config).eval()


@pytest.fixture(scope="session")
def vae() -> AutoencoderKL:
    torch.manual_seed(3)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE,
        mid_block_add_attention=False,
    ).eval()


UNET_CONFIG = dict(
    sample_size=16,
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=(2, 4),  # the number of heads, in diffusers' naming
    cross_attention_dim=TEXT_WIDTH,
    norm_num_groups=8,
)


def make_unet(**changes) -> UNet2DConditionModel:
    torch.manual_seed(4)
    return UNet2DConditionModel(**{**UNET_CONFIG, **changes}).eval()


@pytest.fixture(scope="session")
def new_unet():
    """The function that makes the tiny UNet, with changes to its configuration."""
    return make_unet


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """A UNet of its own for every test: same weights, free to be changed."""
    return make_unet()


@pytest.fixture(scope="session")
def controlnet() -> ControlNetModel:
    torch.manual_seed(5)
    model = ControlNetModel.from_unet(make_unet(), conditioning_embedding_out_channels=(8, 8, 16))
    for parameter in model.controlnet_down_blocks.parameters():  # zero at birth: it would control nothing
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def motion_adapter() -> MotionAdapter:
    torch.manual_seed(6)
    return MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=8,
    ).eval()


@pytest.fixture
def still_adapter(motion_adapter) -> MotionAdapter:
    """Through it no frame sees another: a clip is pictures that know nothing of one another."""
    still = MotionAdapter.from_config(motion_adapter.config)
    for name, parameter in still.named_parameters():
        if "proj_out" in name:
            torch.nn.init.zeros_(parameter)
    return still.eval()


@pytest.fixture(scope="session")
def subject_config() -> SubjectConfig:
    return SubjectConfig(
        query_dim=TEXT_WIDTH,
        image_dim=VISION_WIDTH,
        heads=3,
        head_dim=8,
        hidden_layers=[1, 3],
        layers=subject_layers(make_unet()),
        base_model=".",
        image_encoder="./image_encoder",
        subject_scale=0.8,
        guidance_scale=3.0,
    )


@pytest.fixture(scope="session")
def subject_model(subject_config) -> SubjectModel:
    """Random weights, large enough that a subject changes the picture."""
    torch.manual_seed(7)
    model = SubjectModel(subject_config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def encoder(subject_model, text_encoder, tokenizer, image_encoder) -> SSREncoder:
    return SSREncoder(subject_model, text_encoder, tokenizer, image_encoder)


@pytest.fixture(scope="session")
def new_pipe(text_encoder, tokenizer, vae):
    """A function (pipeline class, unet, **more parts) -> pipeline."""
    return lambda kind, unet, **parts: make_pipe(kind, unet, text_encoder, tokenizer, vae, **parts)


@pytest.fixture
def pipe(unet, new_pipe) -> StableDiffusionPipeline:
    return new_pipe(StableDiffusionPipeline, unet)


def make_pipe(kind, unet, text_encoder, tokenizer, vae, **parts):
    """A stock pipeline of the tiny parts."""
    if kind.__name__ != "AnimateDiffPipeline":
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    parts.setdefault("feature_extractor", None)
    pipe = kind(
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        vae=vae,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A picture 96 x 64 with a red disc on the left and a blue square on the right."""
    image = Image.new("RGB", (96, 64), (220, 220, 200))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 16, 40, 48), fill=(220, 30, 30))
    draw.rectangle((56, 16, 88, 48), fill=(30, 30, 220))
    return image


@pytest.fixture(scope="session")
def subjects(encoder, picture):
    """Two subjects of one picture."""
    return [encoder.encode(picture, "cat", box=(8, 16, 40, 48)), encoder.encode(picture, "dog", box=(56, 16, 88, 48))]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, subject_model, text_encoder, tokenizer, vae, image_encoder) -> Path:
    """An encoder with its base pipeline and vision encoder beside it, as `mini` ships."""
    from ssr_encoder.checkpoint import save_model

    path = tmp_path_factory.mktemp("encoder")
    make_pipe(StableDiffusionPipeline, make_unet(), text_encoder, tokenizer, vae).save_pretrained(path)
    image_encoder.save_pretrained(path / "image_encoder")
    save_model(subject_model, path)
    return path


@pytest.fixture(scope="session")
def conformance():
    """The module that fills released state dicts and inputs from seeds."""
    path = Path(__file__).parent / "conformance" / "weights.py"
    spec = importlib.util.spec_from_file_location("conformance_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
