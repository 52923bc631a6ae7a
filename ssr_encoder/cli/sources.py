"""What commands read: pictures and subject files (before any model is loaded), then the encoder itself."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SSRError
from . import options
from .terminal import note, silence_loading_bars

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..encoder import SSREncoder
    from ..subject import Subject

SUBJECT_FILE = ".safetensors"


@dataclass
class Source:
    """A subject before the encoder is there: a picture with a query, or a subject that was encoded before."""

    name: str
    picture: Image | None = None
    query: dict = field(default_factory=dict)  # arguments of SSREncoder.encode
    subject: Subject | None = None
    scale: float | None = None

    def encode(self, ssr: SSREncoder) -> Subject:
        subject = self.subject or ssr.encode(self.picture, **self.query)
        return subject if self.scale is None else subject.with_(scale=self.scale)


def read_reference(args) -> Source:
    """REF with ``--query``, ``--mask``, ``--box`` and ``--point``.

    Raises:
        SSRError: not a picture, no query, or a mask that does not fit.
    """
    from ..images import open_mask

    query = {"query": args.query, "box": args.box, "point": args.point}
    region = any(getattr(args, name) is not None for name in options.REGIONS)
    if not (args.query or "").strip() and not region:
        raise SSRError(f'the query for {args.reference} is empty; give --query "cat", or --mask, --box or --point')
    picture = _open(args.reference)
    if args.mask is not None:
        try:
            query["mask"] = open_mask(args.mask, picture.size)
        except SSRError as error:
            raise _named(error, args.mask) from None
    return Source(args.reference, picture, query)


def read_subject(spec: str) -> Source:
    """``REF::query[::scale]``, or a subject file with an optional scale: ``cat.safetensors[::scale]``.

    Raises:
        SSRError: another form, or as :func:`read_reference`.
    """
    name, *rest = spec.split("::")
    example = '; write "REF::query" or "REF::query::scale", e.g. "pets.jpg::cat::0.8"'
    if is_subject_file(name):
        # A query between name and scale is allowed, so that a picture can be replaced by its subject file.
        last = rest[-1] if len(rest) == 2 or rest and _is_number(rest[0]) else None
        return Source(name, subject=load_subject(name), scale=None if last is None else _scale(spec, last))
    if not name or not 1 <= len(rest) <= 2 or not rest[0].strip():
        raise SSRError(f"subject {spec[:200]!r} names no picture or no query{example}")
    scale = _scale(spec, rest[1]) if len(rest) == 2 else None
    try:
        options.words(rest[0])
    except argparse.ArgumentTypeError as error:
        raise SSRError(f"the query of subject {name[:200]!r} is {error}") from None
    return Source(name, _open(name), {"query": rest[0]}, scale=scale)


def is_subject_file(name: str) -> bool:
    return name.lower().endswith(SUBJECT_FILE)


def load_subject(name: str) -> Subject:
    from ..subject import Subject

    return Subject.load(name)


def load_encoder(args, start) -> SSREncoder:
    """The encoder that ``--model``, ``--base``, ``--device`` and ``--dtype`` ask for; ``start`` is the progress bar's.

    Raises:
        SSRError: there is no such device or model.
    """
    start(f"loading {args.model}")
    import torch

    device = check_device(args.device)
    if args.base and args.base.startswith(("/", ".")) and not Path(args.base).exists():
        raise SSRError(f"base model {args.base} does not exist; check the path")
    from ..encoder import SSREncoder
    from ..loading import best_device

    on_cpu = (device or best_device()).type == "cpu"
    if args.dtype == "bfloat16" and on_cpu and torch.backends.cpu.get_cpu_capability() == "AVX2":
        note(args, "this processor (AVX2) has no bfloat16 arithmetic; on such a one float32 was some 40 times as fast")
    silence_loading_bars(args)
    return SSREncoder.from_pretrained(args.model, base=args.base, device=device, dtype=getattr(torch, args.dtype))


def check_device(name: str | None):
    """``--device`` as a torch device that is there, or None.

    Raises:
        SSRError: no such device, here or at all.
    """
    import torch

    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SSRError(f"device {name!r} is not there; use --device cpu, or leave --device out") from None
    if device.type == "meta":
        raise SSRError("device 'meta' computes nothing; use --device cpu, or leave --device out")
    return device


def _open(name: str) -> Image:
    from ..images import open_picture

    try:
        return open_picture(name)
    except SSRError as error:
        raise _named(error, name) from None


def _named(error: SSRError, name: str) -> SSRError:
    """The error with the file's name in it."""
    return error if name[:200] in str(error) else SSRError(f"{name[:200]}: {error}")


def _scale(spec: str, text: str) -> float:
    try:
        return options.scale(text)
    except argparse.ArgumentTypeError as error:
        raise SSRError(f"the scale of subject {spec[:200]!r} is {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
