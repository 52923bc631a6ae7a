"""Time of a denoising step with subjects against the plain UNet, measured side by side in one run.

    python benchmarks/subjects.py [--model sd15|mini] [--rounds 5] [--device cpu] [--dtype float32]

Prints the median time of a step of plain Stable Diffusion and of 1, 2 and 4 subjects, the ratio to plain (median of
the ratios within each round: the cases take turns, so a slow moment of the machine hits all of them), and the size
of the packed keys and values. "sd15" builds the UNet of Stable Diffusion 1.5 with random weights, 64 x 64 latents.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import torch
from diffusers import UNet2DConditionModel

from ssr_encoder.attention import install, remove, subject_layers
from ssr_encoder.mini.models import MiniConfig, make_unet
from ssr_encoder.packing import SubjectKeyValues

SUBJECTS = (1, 2, 4)
TOKENS = {"sd15": (77, 6 * 77), "mini": (20, 4 * 20)}  # of the prompt and of a subject


def build(model: str, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    torch.manual_seed(0)
    if model == "mini":
        return make_unet(MiniConfig()).to(device, dtype).eval()
    # Stable Diffusion 1.5: diffusers' defaults, with that model's text width.
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768).to(device, dtype).eval()


def timed(call, device: torch.device) -> float:
    wait = torch.get_device_module(device).synchronize
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=TOKENS, default="sd15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    unet = build(args.model, args.device, dtype)
    width, size = unet.config.cross_attention_dim, unet.config.sample_size
    prompt_tokens, subject_tokens = TOKENS[args.model]
    layers = subject_layers(unet)
    key_values = SubjectKeyValues(layers, width).to(args.device, dtype)
    make = {"device": args.device, "dtype": dtype}
    latents = torch.randn(2, unet.config.in_channels, size, size, **make)  # two rows: guidance
    prompt_embeds = torch.randn(2, prompt_tokens, width, **make)
    timestep = torch.tensor(500, device=args.device)
    negative = key_values(torch.randn(1, 1, subject_tokens, width, **make), 0.65)[None]
    packs = {}
    for n in SUBJECTS:  # as SSREncoder.generate sends them: two halves where there are several subjects
        positive = key_values(torch.randn(1, n, subject_tokens, width, **make), 0.65)[None]
        packs[n] = (
            [torch.cat([negative, positive])] if n == 1 else [negative.repeat(2, 1, 1, 1), positive.repeat(2, 1, 1, 1)]
        )

    def plain():
        unet(latents, timestep, prompt_embeds)

    def subject(n):
        unet(latents, timestep, prompt_embeds, added_cond_kwargs={"image_embeds": packs[n]})

    times: dict[str, list[float]] = {}
    for i in range(args.rounds + 1):  # the first round warms up
        order = [("plain", plain)] + [(str(n), lambda n=n: subject(n)) for n in SUBJECTS]
        for name, call in order[i % 4 :] + order[: i % 4]:
            if name != "plain":
                install(unet, layers)
            seconds = timed(call, args.device)
            if name != "plain":
                remove(unet)
            if i:
                times.setdefault(name, []).append(seconds)
    table = {}
    for name in ("plain", *map(str, SUBJECTS)):
        ratios = [t / p for t, p in zip(times[name], times["plain"], strict=True)]
        table[name] = {
            "seconds": round(statistics.median(times[name]), 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(r, 3) for r in ratios],
            "pack_mb": 0 if name == "plain" else round(sum(pack.nbytes for pack in packs[int(name)]) / 1e6, 1),
        }
    peak = (
        torch.cuda.max_memory_allocated()
        if args.device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    if args.json:
        print(
            json.dumps(
                {
                    "model": args.model,
                    "device": str(args.device),
                    "dtype": args.dtype,
                    "steps": table,
                    "peak_mb": peak // 10**6,
                }
            )
        )
        return
    print(
        f"{args.model}, {args.device}, {args.dtype}, {torch.get_num_threads()} threads, {args.rounds} rounds, "
        f"2 rows of {size} x {size} latents, torch {torch.__version__}"
    )
    for name, row in table.items():
        label = "plain" if name == "plain" else f"{name} subject{'s' if name != '1' else ''}"
        print(
            f"{label:11}  {row['seconds']:8.3f} s a step   {row['ratio']:.3f} x   "
            f"({min(row['ratios']):.3f} to {max(row['ratios']):.3f})   pack {row['pack_mb']} MB"
        )
    print(f"peak memory {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
