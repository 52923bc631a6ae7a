"""``ssr info``: what a model or a subject file is, and what it runs on."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from ..errors import SSRError
from ..version import __version__
from . import options
from .sources import is_subject_file, load_subject

EPILOG = """\
examples:
  ssr info                      the model that ships with the package
  ssr info ssr-sd15/            a folder, or a hub id
  ssr info cat.safetensors      a subject from `ssr encode`
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "info",
        help="sizes and fingerprint of a model or a subject file, versions, device",
        description="Show what a model or a subject file is, and what it would run on.",
        epilog=EPILOG,
    )
    parser.add_argument("what", metavar="MODEL|SUBJECT_FILE", nargs="?", default="mini", help='default "mini"')
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options.add_loudness(parser)
    return parser


def run(args) -> None:
    figures = _subject(args.what) if is_subject_file(args.what) else _model(args.what)
    figures["runs on"] = _system()
    if args.json:
        print(json.dumps({key.replace(" ", "_"): value for key, value in figures.items()}, indent=1))
        return
    for key, value in figures.items():
        if isinstance(value, dict) and value:
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name:<14}  {_shown(inner)}")
        else:
            print(f"{key:<16}  {_shown(value)}")


def _model(name: str) -> dict:
    from ..checkpoint import load_model
    from ..loading import resolve

    folder = resolve(name)
    model = load_model(folder)
    config = model.config
    return {
        "model": name,
        "folder": str(folder),
        "fingerprint": model.fingerprint(),
        "base model": config.base_model,
        "image encoder": config.image_encoder,
        "parameters": {
            "aligner": sum(parameter.numel() for parameter in model.aligner.parameters()),
            "key_values": sum(parameter.numel() for parameter in model.key_values.parameters()),
        },
        "bytes": {path.name: path.stat().st_size for path in _weights(folder)},
        "scales": config.hidden_layers,
        "subject scale": config.subject_scale,
        "subject scale of several": config.default_scale(2),
        "guidance scale": config.guidance_scale,
        "subject guidance": config.subject_guidance,
        "layers": dict(config.layers),
    }


def _weights(folder: Path) -> list[Path]:
    """The encoder's own files, as published or as ours."""
    from ..checkpoint import RELEASED, WEIGHTS

    return [folder / name for name in (WEIGHTS, *RELEASED) if (folder / name).is_file()]


def _subject(name: str) -> dict:
    if not Path(name).is_file():
        raise SSRError(f"subject file {name} does not exist; make one with `ssr encode`")
    subject = load_subject(name)
    region = subject.region
    if hasattr(region, "shape"):
        region = f"mask {' x '.join(map(str, region.shape))}"
    return {
        "subject file": name,
        "query": subject.query,
        "fingerprint": subject.fingerprint,
        "picture size": list(subject.size),
        "tokens": list(subject.tokens.shape),
        "scale": subject.scale,
        "layer scales": subject.layer_scales,
        "steps": list(subject.steps),
        "region": region,
    }


def _system() -> dict:
    import diffusers
    import torch
    import transformers

    from ..loading import best_device

    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "ssr": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "device": f"{device} ({name}, {torch.get_num_threads()} threads)",
    }


def _shown(value) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value in (None, {}) else str(value)
