"""Calls of stock pipelines, and how much their pictures differ."""

import numpy as np
import torch

CALL = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}


def call(pipe, prompt="a cat in the snow", seed=0, **arguments) -> np.ndarray:
    """(n, H, W, 3), frames in a row."""
    output = pipe(prompt=prompt, generator=torch.Generator().manual_seed(seed), **{**CALL, **arguments})
    found = np.asarray(output.frames if hasattr(output, "frames") else output.images)
    assert np.isfinite(found).all()
    return found.reshape(-1, *found.shape[-3:])


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())
