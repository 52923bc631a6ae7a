"""``ssr proof``: what the model can do with subjects that no training stage has seen."""

from __future__ import annotations

import argparse
import json

from ..errors import SSRError
from . import options
from .folders import check_own_folder, whole_folder
from .sources import load_encoder
from .terminal import progress

LINES = ("text", "mask", "box", "point", "twin", "composed", "boxed")

EPILOG = """\
lines:
  text, mask, box, point   the same subjects in the same pictures, asked for in four ways
  twin                     one of two of the same class, by a box
  composed, boxed          two subjects of two pictures in one, by a word each, and by a word and a box each

examples:
  ssr proof                                     all lines, 300 cases each: some hours of a CPU core, minutes on a GPU
  ssr proof -n 50 --lines text,composed         a quick look
  ssr proof --few-steps                         the same in 8 steps, by the distilled LoRA
  ssr proof --device cuda --batch 64 -o proof-1

Each case is a scene with the subject and one or two others, and a prompt that puts the subject into a new place. A
recogniser trained apart judges the pictures; its own accuracy on real scenes is printed beside, and so, unless
--no-scale-0 is given, is every figure at subject scale 0, what the prompt alone explains. Writes proof.json and
proof.html after every line: a run that is stopped keeps the lines that it finished. A folder made by an earlier proof
is filled again.
"""


def lines(text: str) -> tuple[str, ...]:
    """An argument type: names of lines with commas between them."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in LINES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0][:40]!r}; give some of {','.join(LINES)}")
    return names


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "proof",
        help="measure the model on held-out identities: a table, a JSON file, a page of cases",
        description="Measure what the model does with identities that no training stage has seen.",
        epilog=EPILOG,
    )
    parser.add_argument("-n", type=options.whole(1, 100_000), default=300, help="cases a line (default 300)")
    parser.add_argument("--steps", type=options.steps, metavar="N", help="denoising steps (default 20)")
    parser.add_argument("--scale", type=options.scale, help="strength of the subjects, 0 to 10 (default the model's)")
    options.add_subject_guidance(parser)
    options.add_few_steps(parser)
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="of cases and noise (default 0)")
    parser.add_argument("--lines", type=lines, default=LINES, metavar="A,B", help="which lines (default all)")
    parser.add_argument(
        "--batch", type=options.whole(1, 1024), metavar="N", help="pictures at once (default 8, on a GPU 64)"
    )
    parser.add_argument(
        "--no-scale-0", action="store_true", help="leave out the same without a subject: half of the time of a line"
    )
    options.add_model(parser)
    parser.add_argument("-o", "--output", default="ssr-proof", metavar="FOLDER", help="default: ssr-proof")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print what proof.json holds instead of a table")
    options.add_loudness(group)
    return parser


def run(args) -> None:
    folder = check_own_folder(args.output, "proof.json")
    options.check_few_steps(args)
    if args.few_steps and args.subject_guidance:
        raise SSRError("--few-steps is without guidance, and so without --subject-guidance; leave one of them out")
    with progress(args) as start:
        ssr = load_encoder(args, start)
        if args.scale is not None:
            ssr.config.subject_scale = ssr.config.several_scale = args.scale
        if args.subject_guidance is not None:
            ssr.config.subject_guidance = args.subject_guidance
        from ..mini import proof_report
        from ..mini.judge import judge_accuracy
        from ..mini.proof import count_steps, prove

        start("judging the judge")
        judge = judge_accuracy(ssr.device, args.n)
        batch = args.batch or (8 if ssr.device.type == "cpu" else 64)
        with options.few_steps(ssr, args) as settings:
            steps = args.steps or settings.get("num_inference_steps", 20)
            guidance_scale = settings.get("guidance_scale")
            scale_0 = not args.no_scale_0
            pictures = start(
                f"{args.n} cases of {len(args.lines)} lines", count_steps(args.n, steps, args.lines, batch, scale_0)
            )
            few = (args.few_step_lora or "own") if args.few_steps else None
            results = []
            for result in prove(ssr, args.n, steps, args.seed, args.lines, batch, pictures, guidance_scale, scale_0):
                results.append(result)
                how = (args.model, args.n, steps, args.seed, guidance_scale, few)
                proof = proof_report.record(ssr, results, judge, *how)
                page = proof_report.proof_page(proof, results, ssr.config.point_radius)
                with whole_folder(folder) as temporary:
                    (temporary / "proof.json").write_text(json.dumps(proof, indent=1) + "\n", encoding="utf-8")
                    (temporary / "proof.html").write_text(page, encoding="utf-8")
    if args.json:
        print(json.dumps(proof))
        return
    from rich.console import Console

    console = Console()
    console.print(proof_report.table(proof), width=max(80, console.width))
    console.print(f"figures: {folder / 'proof.json'}", soft_wrap=True)
    console.print(f"cases:   {(folder / 'proof.html').resolve().as_uri()}", soft_wrap=True)
