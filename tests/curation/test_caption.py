"""Recaptioning: the step with any captioner, the path through BLIP-2, and the embedded world's own captioner."""

import random

import pytest
import torch
from PIL import Image
from shards_made import contents, encoded, picture, read_folder, sample, write_folder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    PreTrainedTokenizerFast,
)

from ssr_encoder.curation import run_step
from ssr_encoder.curation.caption import MINI, BLIP2Captioner, CaptionStep, SmallCaptioner
from ssr_encoder.errors import SSRError
from ssr_encoder.mini.captioner import caption_loss
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.recipes.captioner import naming, told_concepts
from ssr_encoder.mini.world import captions, load_world, sample_scenes

WORDS = ["</s>", "<pad>", "<unk>", "a", "cat", "photo", "of", "dog", "snow", "in", "the", "red", "blue"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def blip2(tmp_path_factory) -> str:
    """The folder of a BLIP-2 with random weights, its tokenizer and image processor, in the layout of the hub."""
    folder = str(tmp_path_factory.mktemp("blip2"))
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    images = BlipImageProcessor(size={"height": 28, "width": 28})
    processor = Blip2Processor(images, tokenizer, num_query_tokens=4)
    common = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**common, "intermediate_size": 32, "image_size": 28, "patch_size": 7},
        qformer_config={
            **common, "intermediate_size": 32, "encoder_hidden_size": 16, "cross_attention_frequency": 1,
            "vocab_size": len(tokenizer),
        },
        text_config={
            **common, "model_type": "opt", "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64,
            "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():  # so that pictures make a difference and the text does not end at once
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 if "language_model" in name else 1.0)
    model.generation_config.update(eos_token_id=0, pad_token_id=1, bos_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def shards(folder, n=12):
    return write_folder(
        folder, [[sample(k, f"web text {k}") for k in range(start, start + 6)] for start in range(0, n, 6)]
    )


class Sizes:
    """A captioner that is no neural net: how large a picture is."""

    def __call__(self, images):
        return [f"{image.width} by {image.height}" if image.width > 40 else "" for image in images]


def test_any_captioner_will_do_and_the_old_caption_is_kept(tmp_path):
    samples = [sample(0, "old"), sample(1, "older"), sample(2, "cut"), sample(3, "tiny")]
    samples[1].meta["original_caption"] = "oldest"
    samples[2].image = samples[2].image[:100]
    samples[3].image = encoded(picture(3, 20))
    source = write_folder(tmp_path / "in", [samples])
    (report,) = run_step(CaptionStep("sizes", captioner=Sizes), source, tmp_path / "out")
    kept = read_folder(tmp_path / "out")
    assert {key: one.caption for key, one in kept.items()} == {"000000": "72 by 72", "000001": "72 by 72"}
    assert kept["000000"].meta == {"original_caption": "old", "captioner": "sizes"}
    assert kept["000001"].meta["original_caption"] == "oldest"
    assert report.dropped_keys == [("000002", "corrupt"), ("000003", "no caption")]
    assert kept["000000"].image == samples[0].image


def test_blip2_describes_batches_as_it_describes_single_pictures(blip2):
    captioner = BLIP2Captioner(blip2, device="cpu", max_new_tokens=8)
    images = [picture(k, 20 + 9 * k) for k in range(6)]
    texts = captioner(images)
    assert texts == [captioner([image])[0] for image in images]
    assert len(set(texts)) > 1 and all(word in WORDS for text in texts for word in text.split())


def test_blip2_goes_on_from_a_prompt(blip2):
    captioner = BLIP2Captioner(blip2, device="cpu", prompt="a photo of", max_new_tokens=4)
    captioner.model.language_model.generation_config.suppress_tokens = [0, 1, 2, len(WORDS)]  # marks say nothing
    for text in captioner([picture(0), picture(1)]):
        assert text.startswith("a photo of") and len(text.split()) > 3


def test_blip2_over_shards_stops_and_goes_on(blip2, tmp_path):
    source = shards(tmp_path / "in", 18)
    step = CaptionStep(blip2, device="cpu")
    list(run_step(step, source, tmp_path / "whole", batch_size=4))
    stopped = run_step(CaptionStep(blip2, device="cpu"), source, tmp_path / "stopped", batch_size=4)
    next(stopped)
    stopped.close()
    reports = list(run_step(CaptionStep(blip2, device="cpu"), source, tmp_path / "stopped", batch_size=4))
    assert [report.skipped for report in reports] == [True, False, False]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert all(one.meta["original_caption"].startswith("web text") for one in read_folder(tmp_path / "whole").values())


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(SSRError, match="cannot be loaded .*; give a BLIP-2 folder or hub id"):
        BLIP2Captioner(str(tmp_path / "none"), device="cpu")
    with pytest.raises(SSRError, match="takes no prompt"):
        CaptionStep(MINI, prompt="a photo of")


@pytest.fixture(scope="module")
def world():
    return load_world("cpu", weights_dir())


def scenes_and_pictures(world, n, split="holdout"):
    scenes = sample_scenes(world, n, torch.Generator().manual_seed(11), split=split, subjects=(0.5, 0.5, 0.0))
    pixels = (world.render(scenes, 128)[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return scenes, [Image.fromarray(one) for one in pixels]


def test_the_shipped_captioner_names_held_out_subjects(world):
    scenes, images = scenes_and_pictures(world, 32)
    captioner = SmallCaptioner(device="cpu")
    texts = [text for start in range(0, 32, 16) for text in captioner(images[start : start + 16])]
    figures = naming(world, scenes, texts)
    assert figures["exact_subjects"] > 0.65  # 0.82 of one or two subjects when it was trained, n = 344
    assert figures["named_place_right"] > 0.9


def test_naming_counts_exactly(world):
    scenes, _ = scenes_and_pictures(world, 12)
    truth = captions(world, scenes, random.Random(0), drop_attributes=0.0)
    figures = naming(world, scenes, truth)
    assert figures["subjects_named"] == figures["named_are_shown"] == figures["exact_subjects"] == 1
    assert naming(world, scenes, ["a fish"] * 12)["exact_subjects"] == 0
    assert told_concepts({"cat": 1, "cats": 1, "fox": 2}, "two cats and a fox") == [1, 1, 2]


def test_the_loss_ends_at_the_first_end_mark():
    """What stands behind a caption's end mark is padding, and teaches nothing."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=9, n_positions=6, n_embd=8, n_layer=1, n_head=1, add_cross_attention=True, bos_token_id=7,
        eos_token_id=8, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    model, seen = GPT2LMHeadModel(config).eval(), torch.randn(1, 3, 8)
    short = torch.tensor([[7, 1, 2, 8]])
    padded = torch.tensor([[7, 1, 2, 8, 8, 8]])
    assert torch.equal(caption_loss(model, seen, short), caption_loss(model, seen, padded))
    logits = model(short, encoder_hidden_states=seen).logits[0, :-1]
    torch.testing.assert_close(
        caption_loss(model, seen, short), torch.nn.functional.cross_entropy(logits, short[0, 1:])
    )


def test_the_recipe_trains_saves_and_is_loaded_again(tmp_path):
    from ssr_encoder.mini.models import MiniConfig
    from ssr_encoder.mini.recipes import RECIPES
    from ssr_encoder.mini.recipes.base import TrainConfig

    train = TrainConfig(batch_size=4, max_steps=2, warmup=1, learning_rate=1e-5)
    recipe = RECIPES["captioner"](MiniConfig(), train, torch.device("cpu"), weights_dir())
    losses = [progress.figures["loss"] for progress in recipe.run()]
    assert losses[0] < 0.6  # it starts from the shipped weights: from random ones it would be above 6
    recipe.save(tmp_path)
    assert recipe.evaluate(6)["exact_subjects"] > 0.3
    for name in ("image_encoder", "tokenizer"):
        (tmp_path / name).symlink_to(weights_dir() / name)
    assert len(SmallCaptioner(tmp_path, device="cpu")([picture(0, 128)])) == 1
    assert sum(path.stat().st_size for path in (tmp_path / "captioner").iterdir()) < 3 * 2**20
