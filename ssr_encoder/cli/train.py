"""``ssr train``: train the subject encoder on shards of pictures and captions."""

from __future__ import annotations

import json
import os

from . import options
from .terminal import note, progress, silence_loading_bars

EPILOG = """\
examples:
  ssr train mini data.shards=shards/                    the embedded model, on your shards, on a CPU
  ssr train my.yaml                                     and the same command again: it goes on where it stopped
  ssr train my.yaml optim.micro_batch=8 run.gradient_checkpointing=true
  ssr train paper --print-config > my.yaml              a preset with every key: paper, release-finetune, mini
  ssr train my.yaml --estimate                          how much room the feature cache takes
  ssr train my.yaml data.cache=features/ --cache        make it; then train with data.cache=features/
  accelerate launch -m ssr_encoder.training my.yaml     on several GPUs

Shards are webdataset tar files (KEY.jpg, KEY.txt, KEY.json), in a folder or behind URLs. The run's folder run.out has
checkpoints/, metrics.jsonl, tensorboard/, bad_samples.jsonl and, at the end, encoder/ for `ssr generate --model`.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "train",
        help="train a subject encoder on your own data",
        description="Train the subject encoder with the paper's objective. Kill it at any time: the same command goes "
        "on as if it had never stopped.",
        epilog=EPILOG,
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a preset: paper, release-finetune, mini")
    parser.add_argument("overrides", metavar="SECTION.KEY=VALUE", nargs="*", help="settings over the config's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print-config", action="store_true", help="print the whole config as YAML and stop")
    what.add_argument("--estimate", action="store_true", help="print the size of the feature cache and stop")
    what.add_argument("--cache", action="store_true", help="compute the feature cache in data.cache and stop")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="figures as JSON lines")
    options.add_loudness(group)
    # argparse takes the words of "*" from one place only; no option here has a value, so the options may go last.
    parse = parser.parse_known_args
    parser.parse_known_args = lambda words, namespace=None: parse(sorted(words, key=_is_option), namespace)
    return parser


def _is_option(word: str) -> bool:
    return word.startswith("-")


def run(args) -> None:
    from ..training.config import TrainingConfig

    config = TrainingConfig.load(args.config, args.overrides)
    if args.print_config:
        print(config.to_yaml(), end="")
        return
    silence_loading_bars(args)
    if args.estimate:
        _estimate(args, config)
    elif args.cache:
        _cache(args, config)
    else:
        _train(args, config)


def _train(args, config) -> None:
    from ..training import train

    first = os.environ.get("RANK", "0") == "0"  # accelerate's processes: one of them speaks
    with progress(args) as start:
        advance = None
        for done in train(config, lambda text: note(args, text)):
            if advance is None:
                advance = start("training", config.optim.steps)
                for _ in range(done.step - 1):
                    advance()
            advance()
            if done.figures and first and not args.quiet:
                print(json.dumps({"step": done.step, **done.figures}) if args.json else _line(done, config), flush=True)
    if first and not args.json:
        print(os.path.join(config.run.out, "encoder"))


def _line(done, config) -> str:
    figures = done.figures
    words = [f"step {done.step}/{config.optim.steps}", f"loss {figures['loss']:.4f}"]
    words += [f"denoising {figures['denoising']:.4f}", f"regularisation {figures['regularisation']:.4f}"]
    words += [f"gradient {figures['gradient_norm']:.3g}", f"{figures['samples_per_second']:.1f} samples/s"]
    words += [f"{figures['memory_gb']:.1f} GB", f"{_duration(figures['seconds_left'])} left"]
    if "attention_in_mask" in figures:
        words.append(f"attention in mask {figures['attention_in_mask']:.3f}")
    if figures["bad_samples"]:
        words.append(f"{figures['bad_samples']} bad samples")
    return "  ".join(words)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours}:{minutes:02d}:{seconds:02d}"


def _estimate(args, config) -> None:
    from ..training import estimate_cache

    size, samples = estimate_cache(config)
    if args.json:
        print(json.dumps({"bytes": size, "samples": samples}))
    else:
        print(f"{size / 1e9:.3g} GB for {samples} samples ({size / max(1, samples) / 1e6:.3g} MB each)")


def _cache(args, config) -> None:
    from ..training import build_cache

    if not args.quiet:
        _estimate(args, config)
    with progress(args) as start:
        advance = None
        for _, total in build_cache(config):
            advance = advance or start("features", total)
            advance()
    if not args.json:
        print(config.data.cache)
