"""Encoding a subject once against encoding it for every picture, measured side by side in one run on ``mini``.

python benchmarks/encode_once.py [--rounds 5] [--steps 20]
"""

from __future__ import annotations

import argparse
import statistics
import time

from ssr_encoder import SSREncoder
from ssr_encoder.demo.scenes import load_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    ssr = SSREncoder.from_pretrained("mini")
    asked = load_scenes()[0][0].subjects[0]
    kept = ssr.encode(asked.picture.path, **asked.query)
    ssr.pipe.set_progress_bar_config(disable=True)

    def timed(again: bool) -> tuple[float, float]:
        start = time.perf_counter()
        subject = ssr.encode(asked.picture.path, **asked.query) if again else kept
        encoded = time.perf_counter()
        ssr.generate(asked.prompts[0], [subject], num_inference_steps=args.steps, seed=0)
        return encoded - start, time.perf_counter() - start

    timed(True)  # warms up
    rounds = [(timed(True), timed(False)) if i % 2 else (timed(False), timed(True))[::-1] for i in range(args.rounds)]
    encode = statistics.median(every[0] for every, _ in rounds)
    every = statistics.median(every[1] for every, _ in rounds)
    once = statistics.median(once[1] for _, once in rounds)
    ratio = statistics.median(every[1] / once[1] for every, once in rounds)
    print(f"mini, {ssr.device}, {args.steps} steps, {args.rounds} rounds: encoding {encode:.3f} s")
    print(f"a picture, encoding every time {every:.3f} s, once {once:.3f} s: {ratio:.3f} x")


if __name__ == "__main__":
    main()
