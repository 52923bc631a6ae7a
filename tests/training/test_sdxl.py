"""SDXL: two text encoders side by side, pooled embeddings and time ids."""

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ssr_encoder.training import Trainer, build_cache
from ssr_encoder.training.objective import losses

WIDTHS = (16, 24)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory, tokenizer, vae, new_unet, image_encoder):
    torch.manual_seed(8)
    encoders = [
        kind(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, projection_dim=24,
                num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=12,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        for kind, width in zip((CLIPTextModel, CLIPTextModelWithProjection), WIDTHS, strict=True)
    ]  # fmt: skip
    unet = new_unet(
        cross_attention_dim=sum(WIDTHS),
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    path = tmp_path_factory.mktemp("sdxl")
    StableDiffusionXLPipeline(
        vae, *encoders, tokenizer, tokenizer, unet, DDIMScheduler(beta_schedule="scaled_linear")
    ).save_pretrained(path)
    image_encoder.save_pretrained(path / "image_encoder")
    return path


def sdxl_config(new_config, sdxl, *words, **kwargs):
    words = (f'base.model="{sdxl}"', f'base.image_encoder="{sdxl}/image_encoder"', "optim.steps=2", *words)
    return new_config(*words, **kwargs)


def test_it_trains(new_config, sdxl):
    trainer = Trainer(sdxl_config(new_config, sdxl, "data.prompt_drop=0"))
    assert trainer.base.sdxl and trainer.base.config.query_dim == sum(WIDTHS)
    before = [p.detach().clone() for p in trainer.learned.parameters]
    list(trainer.run())
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer.learned.parameters, strict=True))


def test_texts_are_what_the_stock_pipeline_makes_of_them(new_config, sdxl):
    trainer = Trainer(sdxl_config(new_config, sdxl))
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl)
    expected, negative, pooled, negative_pooled = pipe.encode_prompt("a red cat", negative_prompt=None)
    found, found_pooled = trainer.base.encode_texts(["a red cat"])
    assert torch.allclose(found, expected, atol=1e-5) and torch.allclose(found_pooled, pooled, atol=1e-5)
    items = [trainer.dataset[p] | {"no_prompt": True, "no_subject": False} for p in range(2)]
    features = trainer.features(items)  # a dropped prompt is the pipeline's: zeros
    assert torch.equal(features.prompt[:1], negative) and torch.equal(features.pooled[:1], negative_pooled)
    assert features.query.abs().sum() > 0


def test_time_ids_and_pooled_embeddings_reach_the_unet(new_config, sdxl):
    trainer = Trainer(sdxl_config(new_config, sdxl, "data.prompt_drop=0"))
    features = trainer.features([trainer.dataset[p] for p in range(2)])
    assert features.time_ids[0].tolist()[:2] == [64, 72] and features.pooled.shape == (2, 24)

    def loss():
        return losses(trainer.model, trainer.base, features, trainer.config.objective, 0).total.item()

    whole = loss()
    features.time_ids = features.time_ids + 50
    moved = loss()
    features.pooled = features.pooled + 5
    assert len({whole, moved, loss()}) == 3


def test_from_the_cache(new_config, sdxl, tmp_path):
    words = (f'data.cache="{tmp_path / "cache"}"', 'data.cache_dtype="float32"')
    config = sdxl_config(new_config, sdxl, *words, out="cached")
    list(build_cache(config))
    there, here = Trainer(config), Trainer(sdxl_config(new_config, sdxl))
    a, b = (t.features([t.dataset[p] for p in range(6)]) for t in (here, there))
    for name in ("mean", "hidden", "prompt", "query", "pooled", "time_ids"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5), name
