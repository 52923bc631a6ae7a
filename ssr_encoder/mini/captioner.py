"""A small captioner of the embedded world: a GPT-2 that looks at the embedded vision encoder's patches.

It stands where BLIP-2 stands at full scale: pictures in, plain English out, so that curation runs end to end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from .models import MiniConfig

POOL = 2  # patches a side that are averaged: 16 x 16 patches become 8 x 8


def make_captioner(config: MiniConfig, tokenizer: CLIPTokenizer) -> GPT2LMHeadModel:
    """Two layers with cross-attention, as wide as the vision encoder; 1.4 M parameters at the default sizes."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.text_length,
            n_embd=config.vision_width,
            n_layer=2,
            n_head=config.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            add_cross_attention=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def look(image_encoder: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, size, size) in [-1, 1] to what the captioner attends to: the class token and the pooled patches,
    (B, 1 + (grid / POOL)^2, width)."""
    hidden = image_encoder.post_layernorm(image_encoder(pixels).last_hidden_state)
    patches = hidden[:, 1:].transpose(1, 2)
    side = int(patches.shape[2] ** 0.5)
    pooled = F.avg_pool2d(patches.unflatten(2, (side, side)), POOL).flatten(2).transpose(1, 2)
    return torch.cat([hidden[:, :1], pooled], 1)


def caption_loss(captioner: GPT2LMHeadModel, seen: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of the next token, from the start mark up to the first end mark; ids (B, length)."""
    end = captioner.config.eos_token_id
    past = (ids == end).cumsum(1) > 1
    ids = ids[:, : int((~past).sum(1).max())]  # no longer than the longest caption
    labels = ids.masked_fill(past[:, : ids.shape[1]], -100)
    logits = captioner(ids, encoder_hidden_states=seen).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


@torch.no_grad()
def write(captioner: GPT2LMHeadModel, tokenizer: CLIPTokenizer, seen: Tensor) -> list[str]:
    """The likeliest caption, word by word, of each picture in ``seen`` (see :func:`look`)."""
    start = torch.full((len(seen), 1), captioner.config.bos_token_id, device=seen.device)
    ids = captioner.generate(
        start,
        encoder_hidden_states=seen,
        attention_mask=torch.ones_like(start),
        max_length=captioner.config.n_positions,
        do_sample=False,
        pad_token_id=captioner.config.eos_token_id,
    )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [" ".join(text.replace(" ,", ",").split()) for text in texts]
