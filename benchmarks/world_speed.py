"""Scenes a second of the mini world: sampling and drawing, on this machine.

python benchmarks/world_speed.py [--device cuda] [--size 128] [--batch 256] [--seconds 5]
"""

import argparse
import time

import torch

from ssr_encoder.mini.world import World, sample_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    started = time.perf_counter()
    world = World.load(args.device)
    generator = torch.Generator(args.device).manual_seed(0)
    world.render(sample_scenes(world, args.batch, generator), args.size)
    print(f"loading and first batch: {time.perf_counter() - started:.1f} s")

    def wait() -> float:
        torch.get_device_module(args.device).synchronize()
        return time.perf_counter()

    sampling = drawing = 0.0
    count = 0
    while sampling + drawing < args.seconds:
        a = wait()
        scenes = sample_scenes(world, args.batch, generator)
        b = wait()
        world.render(scenes, args.size)
        c = wait()
        sampling, drawing, count = sampling + b - a, drawing + c - b, count + args.batch
    print(f"{args.device}, {torch.get_num_threads()} threads, {args.size} px, batches of {args.batch}:")
    print(f"sampling {count / sampling:,.0f}/s, drawing {count / drawing:,.0f}/s, "
          f"both {count / (sampling + drawing):,.0f} scenes/s")  # fmt: skip


if __name__ == "__main__":
    main()
