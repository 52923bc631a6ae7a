"""``ssr generate``: subjects of pictures, in new pictures."""

from __future__ import annotations

import json
import math
import os
import secrets
import time

from ..errors import SSRError
from . import options, outputs
from .sources import Source, is_subject_file, load_encoder, load_subject, read_reference, read_subject
from .terminal import note, progress

STEPS, CLIP_STEPS = 30, 20  # a clip costs as much as its frames
EPILOG = f"""\
examples:
  ssr generate pets.jpg --query cat --prompt "a cat in the snow"
  ssr generate pets.jpg --query cat --prompt "a cat at the beach" --num-images 4 --seed 7 -o "cat-{{n}}.png"
  ssr generate pets.jpg --box 40,30,210,240 --prompt "a cat in the library" -o cat.png
  ssr generate --subject "pets.jpg::cat" --subject "hats.jpg::red hat::0.7" --prompt "a cat wearing a red hat"
  ssr generate cat.safetensors --scale 0.8 --prompt "a cat at night"      (a file from `ssr encode`)
  ssr generate pets.jpg --query cat --prompt "a cat on the beach" --control layout.png
  ssr generate pets.jpg --query cat --prompt "a cat on the beach" --few-steps
  ssr generate pets.jpg --query cat --prompt "a cat on the beach" --frames 16 -o cat.gif      (or .webp, .mp4)
  ssr generate pets.jpg --query cat --prompt "a cat on the beach" --frames 16 --motion bounce

Picture i of a prompt has the seed SEED + i, alone or among others, so that any one can be made again.
{outputs.POLICY[0].upper()}{outputs.POLICY[1:]};
numbered files (the default) take the next free number.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "generate",
        help="generate pictures and clips with subjects of other pictures in them",
        description="Pick subjects out of pictures and generate them as a prompt says.",
        epilog=EPILOG,
    )
    options.add_reference(parser, optional=True)
    group = parser.add_argument_group("what to generate")
    group.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="REF::QUERY[::SCALE]",
        help="a subject; repeat it for several. REF may be a file from `ssr encode`, which needs no QUERY",
    )
    group.add_argument("--prompt", action="append", type=options.words, required=True, help="repeat it for several")
    group.add_argument("--negative-prompt", type=options.words, metavar="TEXT", help="what to avoid")
    group.add_argument(
        "--scale", type=options.scale, help="strength of REF's subject, 0 to 10; 0 is without it (default the model's)"
    )
    group.add_argument("--num-images", type=options.whole(1, 1000), default=1, metavar="N", help="of each prompt")
    group.add_argument(
        "--seed", type=options.whole(0, 2**62), help="makes the result repeatable (default: a new one each time)"
    )
    group.add_argument(
        "--steps", type=options.steps, metavar="N", help=f"denoising steps (default {STEPS}, clips {CLIP_STEPS})"
    )
    group.add_argument(
        "--guidance-scale",
        type=options.number(0, 100, "3 to 8"),
        metavar="SCALE",
        help="how strictly to follow the prompt; 1 turns guidance off (default the model's)",
    )
    options.add_subject_guidance(group)
    options.add_few_steps(group)
    add_companions(parser)
    options.add_model(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PLACE",
        help="a file, a folder, or a pattern with {n} or {seed} in it (default: ssr-0001.png and on, here; "
        "clips: ssr-0001.gif and on)",
    )
    options.add_output(parser, "print files, prompts, seeds and subjects as JSON")
    return parser


def add_companions(parser) -> None:
    """A map for the layout, and frames for a clip."""
    group = parser.add_argument_group("layout and motion", "models for these lie beside the base model, or are given")
    group.add_argument("--control", metavar="MAP", help="a picture of the layout: edges or silhouettes, white on black")
    group.add_argument("--controlnet", metavar="MODEL", help="a ControlNet: a folder or a hub id (default the base's)")
    group.add_argument(
        "--control-scale",
        type=options.number(0, 2, "0.5 to 1"),
        metavar="SCALE",
        help="how strictly to follow MAP, 0 to 2 (default 1)",
    )
    group.add_argument(
        "--frames", type=options.whole(2, 32, "16"), metavar="N", help="make clips of N frames, 2 to 32, usually 16"
    )
    group.add_argument(
        "--motion-adapter", metavar="MODEL", help="a motion adapter: a folder or a hub id (default the base's)"
    )
    group.add_argument(
        "--motion",
        choices=("walk", "cross", "bounce", "still", "any"),
        help="how the subjects of a clip move; where and how far follows from the seed (default any, if the motion "
        "adapter was trained to follow)",
    )
    group.add_argument(
        "--shared-noise",
        type=options.number(0, 1, "0.75 to 0.97"),
        metavar="SHARE",
        help="part of the noise that the frames have in common, 0 to 1: more is calmer (default the motion adapter's)",
    )
    group.add_argument(
        "--smooth-noise",
        type=options.number(0, 1, "0.8 to 0.95"),
        metavar="X",
        help="how far the rest of a frame's noise follows that of the frame before, 0 to 1 (default the adapter's)",
    )
    group.add_argument("--fps", type=options.whole(1, 50, "8"), metavar="N", help="frames a second (default 8)")


def run(args) -> None:
    for prompt in args.prompt:
        if not prompt.strip():
            raise SSRError('the prompt is empty; say what to generate, e.g. --prompt "a cat in the snow"')
    from ..video import FPS, SUFFIXES, clip_bytes

    options.check_few_steps(args)
    _check_companions(args, SUFFIXES)
    fps = args.fps or FPS
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    jobs = [(prompt, seed + i) for prompt in args.prompt for i in range(args.num_images)]
    files = outputs.PictureFiles(
        args.output,
        [number for _, number in jobs],
        args.overwrite,
        suffixes=SUFFIXES if args.frames else outputs.PICTURES,
    )
    sources = read_sources(args)
    layout = None if args.control is None else _read_map(args)

    began = time.monotonic()
    with progress(args) as start:
        ssr = load_encoder(args, start)
        start("encoding the subjects")
        subjects = [source.encode(ssr) for source in sources]
        for prompt in args.prompt:
            _check_length(args, ssr.tokenizer, prompt)
        start("loading the base model")
        with options.few_steps(ssr, args) as settings:
            for name in ("guidance_scale", "subject_guidance", "shared_noise", "smooth_noise"):
                if getattr(args, name) is not None:
                    settings[name] = getattr(args, name)
            if args.motion is not None:
                settings["trajectories"] = args.motion
            steps = args.steps or settings.get("num_inference_steps") or (CLIP_STEPS if args.frames else STEPS)
            pipe, more = _pipeline(args, ssr, layout)
            pipe.set_progress_bar_config(disable=True)
            from ..pipeline import MAX_BATCH

            batches = len(jobs) if more else math.ceil(len(jobs) / MAX_BATCH)  # maps and clips go one by one
            advance = start("generating", total=steps * batches)
            made = ssr.generate(
                args.prompt,
                subjects,
                pipe=pipe,
                negative_prompt=args.negative_prompt,
                num_images=args.num_images,
                seed=seed,
                callback_on_step_end=lambda pipe, step, timestep, tensors: advance() or tensors,
                **(settings | {"num_inference_steps": steps}),
                **more,
            )
    if args.frames:
        paths = files.write(made, lambda frames, suffix: clip_bytes(frames, suffix, fps))
    else:
        paths = files.write(made)

    if not args.json:
        print("\n".join(map(str, paths)))
        return
    rows = [
        {"file": str(path), "prompt": text, "seed": number} for path, (text, number) in zip(paths, jobs, strict=True)
    ]
    figures = {"model": args.model, "fingerprint": ssr.fingerprint}
    figures |= {"clips" if args.frames else "images": rows, "subjects": _used(ssr, sources, subjects)}
    if layout is not None:
        figures["control"] = {"map": args.control, "scale": more["controlnet_conditioning_scale"]}
    if args.frames:
        figures |= {"frames": args.frames, "fps": fps}
    print(json.dumps(figures | {"steps": steps, "seconds": round(time.monotonic() - began, 2)}, indent=1))


def _used(ssr, sources: list[Source], subjects: list) -> list[dict]:
    from ..subject import subject_scales

    scales = subject_scales(ssr.config, subjects)
    return [
        {"reference": source.name, "query": subject.query, "scale": scale}
        for source, subject, scale in zip(sources, subjects, scales, strict=True)
    ]


def _check_companions(args, clips: tuple[str, ...]) -> None:
    """What can be known of ``--control``, ``--frames`` and theirs before a model is loaded; ``clips`` are endings."""
    for option, needed in (
        ("controlnet", "control"),
        ("control_scale", "control"),
        ("motion_adapter", "frames"),
        ("motion", "frames"),
        ("shared_noise", "frames"),
        ("smooth_noise", "frames"),
        ("fps", "frames"),
    ):
        if getattr(args, option) is not None and getattr(args, needed) is None:
            given = f"--{option.replace('_', '-')}"
            raise SSRError(f"{given} says something about --{needed}, which is missing; give it, or leave {given} out")
    if args.few_steps and args.frames:
        raise SSRError("--few-steps and --frames do not go together, as the LoRA is for still pictures; leave one out")
    from ..companions import check_place
    from ..extras import need

    check_place("controlnet", args.controlnet)
    check_place("motion_adapter", args.motion_adapter)
    ending = os.path.splitext(args.output or "")[1].lower()
    if ending in clips and ending not in outputs.PICTURES and not args.frames:
        raise SSRError(f"output {args.output} is a clip; say how many frames it shall have, e.g. --frames 16")
    if ending == ".mp4":
        need("av", "video")


def _read_map(args):
    from PIL import ImageStat

    from ..images import open_picture

    layout = open_picture(args.control, "control map", ground="black")
    if ImageStat.Stat(layout.convert("L")).mean[0] > 127:
        note(args, f"map {args.control} is mostly bright; it is used as it is, and should be white on black")
    return layout


def _pipeline(args, ssr, layout) -> tuple:
    """The stock pipeline that the arguments ask for, and what it is given beyond prompts and subjects."""
    if layout is None and not args.frames:
        return ssr.pipe, {}
    from .. import companions

    if not args.frames:
        pipe = companions.control_pipeline(ssr, args.controlnet)
        more = {"image": companions.fit_map(layout, pipe)}
    else:
        if layout is not None:
            pipe = companions.controlled_video_pipeline(ssr, args.motion_adapter, args.controlnet)
            more = {"conditioning_frames": [companions.fit_map(layout, pipe)] * args.frames}
        else:
            pipe, more = companions.video_pipeline(ssr, args.motion_adapter), {}
        companions.check_frames(pipe, args.frames)
        more["num_frames"] = args.frames
    if layout is not None:
        more["controlnet_conditioning_scale"] = 1.0 if args.control_scale is None else args.control_scale
    return pipe, more


def read_sources(args) -> list[Source]:
    """REF, if there is one, then every ``--subject``."""
    sources = []
    if args.reference is None:
        given = [f"--{name}" for name in ("query", "mask", "box", "point", "scale") if getattr(args, name) is not None]
        if given:
            raise SSRError(f"{' and '.join(given)} says something about REF, which is missing; name a picture first")
        if not args.subject:
            raise SSRError('there is no subject; give a picture and --query "cat", or --subject "REF::query"')
    elif is_subject_file(args.reference):
        given = [f"--{name}" for name in options.REGIONS if getattr(args, name) is not None]
        if given:
            raise SSRError(f"{args.reference} is encoded already, so {given[0]} is too late; give the picture instead")
        sources.append(Source(args.reference, subject=load_subject(args.reference), scale=args.scale))
    else:
        sources.append(read_reference(args))
        sources[0].scale = args.scale
    return sources + [read_subject(spec) for spec in args.subject]


def _check_length(args, tokenizer, prompt: str) -> None:
    count = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
    if count > tokenizer.model_max_length:
        note(args, f"prompt {prompt[:40]!r}... has {count} tokens; the model reads {tokenizer.model_max_length}")
