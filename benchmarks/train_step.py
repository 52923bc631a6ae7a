"""Samples a second and peak memory of a training step, against a plain loop and against the UNet alone.

    python benchmarks/train_step.py [--model mini|sd15] [--batch 16] [--micro-batch 4] [--rounds 5] [--device cpu]
                                    [--precision float32|bfloat16] [--json]

    plain   what the release's trainer does: frozen encoders recomputed at every step, float32, anomaly detection on,
            the whole batch at once
    ours    the step of `ssr train`: features from a cache, micro-batches, fused AdamW, --precision
    unet    the frozen UNet's forward and its backward to the subjects' keys and values, in our precision and
            micro-batches: what no training of a subject encoder can do without
    base    the same without subjects: backward to the prompt's embeddings

All work on the same pictures, texts, noise and timesteps. Times are taken in turns, so that a slow moment hits all, and
the ratio is the median over the rounds. On the CPU the time is the process's own, which other processes on the machine
disturb less than the clock. Memory: each case in a process of its own; on the CPU the resident set above what it was
with the libraries imported, on CUDA the allocator's peak. "sd15" has random weights of the true shapes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from ssr_encoder.model import SubjectModel
from ssr_encoder.training.bases import Base
from ssr_encoder.training.config import BaseConfig, ObjectiveConfig
from ssr_encoder.training.features import Features, encode, make_blank
from ssr_encoder.training.objective import losses

CASES = ("plain", "ours", "unet", "base")
SIZE = {"mini": 128, "sd15": 512}


class Bench:
    """The models and one batch, for one or all cases."""

    def __init__(self, args):
        torch.manual_seed(0)
        self.args, self.device = args, torch.device(args.device)
        self.half = args.precision == "bfloat16"
        self.base = make_base(args.model).to(self.device)
        self.objective = ObjectiveConfig()
        size, vision = SIZE[args.model], self.base.views.vision_size
        self.items = [
            {
                "target": torch.rand(3, size, size) * 2 - 1, "reference": torch.rand(3, vision, vision) * 2 - 1,
                "prompt": f"a cat number {i} in the snow", "query": "cat", "position": i, "weight": 1.0,
                "no_prompt": False, "no_subject": False,
            }
            for i in range(args.batch)
        ]  # fmt: skip
        self.blank = make_blank(self.base)
        self.features: list[Features] = []

    def prepare(self, case: str) -> None:
        """What is there before the first step."""
        self.model = SubjectModel(self.base.config).to(self.device)
        fused = case == "ours"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-5, weight_decay=0.01, fused=fused or None)
        if case == "plain" or self.features:
            return
        cuts = [self.items[i : i + self.args.micro_batch] for i in range(0, len(self.items), self.args.micro_batch)]
        dtype = torch.bfloat16 if self.half else torch.float32  # of the cache
        self.features = [self._stored(encode(self.base, cut, self.blank), dtype) for cut in cuts]
        if self.args.only:  # alone in its process: as a run from a cache is
            self.base.drop_encoders()

    def _stored(self, features: Features, dtype: torch.dtype) -> Features:
        for name in ("mean", "std", "hidden", "prompt", "query"):
            setattr(features, name, getattr(features, name).to(dtype).cpu())
        return features

    def _loaded(self, features: Features) -> Features:
        values = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in vars(features).items()}
        for name in ("mean", "std", "hidden", "prompt", "query"):
            values[name] = values[name].float()
        return Features(**values)

    def plain(self) -> None:
        with torch.autograd.set_detect_anomaly(True):
            features = encode(self.base, self.items, self.blank)
            found = losses(self.model, self.base, features, self.objective, 0)
            (found.total / len(self.items)).backward()
        self._update()

    def ours(self) -> None:
        for stored in self.features:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                found = losses(self.model, self.base, self._loaded(stored), self.objective, 0)
            (found.total / len(self.items)).backward()
        self._update()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def unet(self) -> None:
        tokens = len(self.base.config.hidden_layers) * self.features[0].query.shape[1]
        columns = 2 * sum(self.base.config.layers.values())
        for stored in self.features:
            pack = torch.zeros(1, len(stored.positions), tokens, columns, device=self.device, requires_grad=True)
            self._predict(stored, stored.prompt.to(self.device).float(), {"image_embeds": [pack]})

    def plain_unet(self) -> None:
        for stored in self.features:
            self._predict(stored, stored.prompt.to(self.device).float().requires_grad_(), {})

    def _predict(self, stored: Features, prompt: Tensor, added: dict) -> None:
        noisy = stored.mean.to(self.device).float()
        timesteps = torch.arange(len(noisy), device=self.device) * 31 % 1000
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            made = self.base.unet(noisy, timesteps, prompt, added_cond_kwargs=added, return_dict=False)[0]
        made.float().square().mean().backward()

    def timed(self, case: str) -> float:
        """Seconds of a step."""
        step = {"plain": self.plain, "ours": self.ours, "unet": self.unet, "base": self.plain_unet}[case]
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        _wait(self.device)
        start = clock()
        step()
        _wait(self.device)
        return clock() - start


def make_base(model: str) -> Base:
    if model == "mini":
        from ssr_encoder.training.bases import load_base

        return load_base(BaseConfig(model="mini", image_encoder="", hidden_layers=[1, 2, 4, 6], heads=8, head_dim=32))
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    from ssr_encoder.checkpoint import sd15_config
    from ssr_encoder.mini.models import make_tokenizer

    tokenizer = make_tokenizer(["a", "cat", "number", "in", "the", "snow"], 77)
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # diffusers' defaults are its other sizes
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    texts = [(tokenizer, CLIPTextModel(text))]
    return Base(unet, vae, texts, CLIPVisionModel(vision), scheduler, sd15_config())


def memory(args, case: str) -> float:
    """Peak memory of a case in MB, in a process of its own."""
    words = [sys.executable, __file__, "--only", case, "--model", args.model, "--batch", args.batch, "--device"]
    words += [args.device, "--micro-batch", args.micro_batch, "--precision", args.precision]
    return json.loads(subprocess.run([str(w) for w in words], capture_output=True, check=True).stdout)


def only(args) -> float:
    device = torch.device(args.device)
    before = _resident()
    bench = Bench(args)
    bench.prepare(args.only)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        _reset_peak()
    for _ in range(2):
        bench.timed(args.only)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return _peak() - before


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _reset_peak() -> None:
    """The peak from here on: building models, which a run does once, is not part of a step's memory. What the C
    library holds back of what was freed is not either."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak() -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def _wait(device: torch.device) -> None:
    torch.get_device_module(device).synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZE, default="mini")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(only(args)))
        return
    bench = Bench(args)
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(args.rounds + 1):
        for case in CASES:
            bench.prepare(case)
            bench.timed(case)
            taken = bench.timed(case)
            if number:  # the first round warms up
                seconds[case].append(taken)
    report = {"model": args.model, "device": args.device, "batch": args.batch, "precision": args.precision}
    report["samples_per_second"] = {c: args.batch / statistics.median(s) for c, s in seconds.items()}
    ratio = lambda a, b: statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))  # noqa: E731
    report["plain/ours"], report["ours/unet"], report["ours/base"] = (
        ratio(*pair) for pair in (("plain", "ours"), ("ours", "unet"), ("ours", "base"))
    )
    if not args.json:  # at once: memory takes as long again
        print(f"{args.model} on {args.device}, batch {args.batch}, micro-batch {args.micro_batch}, {args.precision}")
        for case, rate in report["samples_per_second"].items():
            print(f"  {case:6} {rate:8.2f} samples/s")
        faster, over, bare = (report[name] for name in ("plain/ours", "ours/unet", "ours/base"))
        print(f"  ours is {faster:.2f} x plain (goal 4)")
        print(
            f"  and takes {over:.2f} x the time of the UNet alone (goal 1.15; {bare:.2f} x without subjects)",
            flush=True,
        )
    report["memory_mb"] = {case: memory(args, case) for case in CASES}
    report["memory ours/plain"] = report["memory_mb"]["ours"] / report["memory_mb"]["plain"]
    if args.json:
        print(json.dumps(report, indent=1))
        return
    for case, used in report["memory_mb"].items():
        print(f"  {case:6} {used:8.0f} MB")
    print(f"  ours needs {report['memory ours/plain']:.2f} x the memory of plain (goal 0.6)")


if __name__ == "__main__":
    main()
