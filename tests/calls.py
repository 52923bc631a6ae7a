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


def make_clip(ssr, pipe, num_frames: int, **arguments) -> np.ndarray:
    """One clip by ``SSREncoder.generate``, (num_frames, H, W, 3)."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "seed": 3, "output_type": "np"} | arguments
    return np.asarray(ssr.generate("a cat", pipe=pipe, num_frames=num_frames, **settings)[0])
