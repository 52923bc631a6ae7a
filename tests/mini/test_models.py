"""Components of the embedded family, and the trick that normalises its latents."""

import torch

from ssr_encoder.mini.models import MiniConfig, make_tokenizer, make_vae, tokenize
from ssr_encoder.mini.recipes.vae import normalise_latents, psnr
from ssr_encoder.mini.world import World, caption_words


def test_every_word_of_the_world_is_one_token():
    words = caption_words(World.load())
    tokenizer = make_tokenizer(words, 20)
    for word in words:
        assert len(tokenizer(word).input_ids) == 3, word  # with start and end
    assert len(tokenizer("zyzzyva").input_ids) > 3  # an unknown word falls into pieces, none of them unknown


def test_tokenize_pads_and_cuts():
    ids = tokenize(make_tokenizer(["cat", "a"], 20), ["a cat", "cat " * 40, ""])
    assert ids.shape == (3, 20)
    assert ids[0, 3] == ids[1, -1] == ids[2, 1]  # the end token


def test_normalising_latents_changes_their_scale_and_not_the_picture():
    torch.manual_seed(0)
    vae = make_vae(MiniConfig(image_size=32, vae_channels=[16, 16, 32])).eval()
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        picture = vae.decode(before.mean).sample
        mean, std = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
        normalise_latents(vae, mean, std)
        after = vae.encode(pictures).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std * std[:, None, None], before.std, atol=1e-5, rtol=1e-4)
        # Inside the picture only: the decoder's convolutions see zero padding at the border of un-normalised latents.
        torch.testing.assert_close(vae.decode(after.mean).sample, picture, atol=1e-4, rtol=1e-3)


def test_psnr_of_a_known_error():
    assert abs(float(psnr(torch.tensor(0.004))) - 30.0) < 1e-4  # a range of 2: 10 log10(4 / 0.004)
