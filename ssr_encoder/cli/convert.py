"""``ssr convert``: the released checkpoint as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import SSRError
from . import options, outputs
from .folders import whole_folder
from .terminal import progress

EPILOG = f"""\
examples:
  ssr convert downloads/ -o ssr-sd15/                                  a folder with the two released files
  ssr convert pytorch_model.bin pytorch_model_1.bin -o ssr-sd15/       the files themselves, in any order
  ssr generate pets.jpg --model ssr-sd15 --query cat --prompt "a cat in the snow"

OUT becomes a folder with config.json and model.safetensors. Pickles are read as tensors only: no code in them runs.
{outputs.POLICY[0].upper()}{outputs.POLICY[1:]}.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "convert",
        help="the released checkpoint to safetensors",
        description="Write the released files (pytorch_model.bin, pytorch_model_1.bin) as safetensors and config.json.",
        epilog=EPILOG,
    )
    parser.add_argument("files", metavar="FOLDER_OR_FILE", nargs="+", help="the folder, or its two files")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the folder to write")
    options.add_output(parser, "print what was written as JSON")
    return parser


def run(args) -> None:
    files = _released(args.files)
    out = Path(args.output)
    _check_place(out, args.overwrite)
    with progress(args) as start:
        start("reading")
        from ..checkpoint import load_released, save_model

        model = load_released(*files)
        start("writing")
        with whole_folder(out) as temporary:
            save_model(model, temporary)
    if args.json:
        count = sum(parameter.numel() for parameter in model.parameters())
        print(json.dumps({"folder": str(out), "fingerprint": model.fingerprint(), "parameters": count}, indent=1))
    else:
        print(out)


def _released(given: list[str]) -> list[Path]:
    """The two released files."""
    from ..checkpoint import RELEASED

    paths = [Path(name) for name in given]
    if len(paths) == 1 and paths[0].is_dir():
        paths = [paths[0] / name for name in RELEASED]
    if len(paths) != 2:
        raise SSRError(f"{given[0]} is not what to convert; give a folder with {' and '.join(RELEASED)}, or both files")
    for path in paths:
        if not path.is_file():
            raise SSRError(f"{path} does not exist; the released checkpoint is {' and '.join(RELEASED)}")
    return paths


def _check_place(out: Path, overwrite: bool) -> None:
    from ..checkpoint import CONFIG, WEIGHTS

    if not out.exists():
        outputs.check_folder(out.parent)
        return
    if not out.is_dir():
        raise SSRError(f"output {out} is a file; name a folder")
    for name in (CONFIG, WEIGHTS):
        outputs.check_file(out / name, overwrite)
