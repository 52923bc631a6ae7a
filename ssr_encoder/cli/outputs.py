"""Where results go: checked before any work is done, and never over a file that somebody else made."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import SSRError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

# For the help of every command that writes a file.
POLICY = "files that exist are kept: a name that is taken is an error unless --overwrite is given"


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not there or in which no file can be made.

    Raises:
        SSRError: names the folder.
    """
    try:
        with tempfile.TemporaryFile(
            dir=folder
        ):  # asking for permissions tells too little: root, /proc, read-only disks
            pass
    except FileNotFoundError:
        if folder.is_dir():
            raise SSRError(f"cannot write into {folder}; choose another folder") from None
        raise SSRError(f"folder {folder} does not exist; make it first, or choose another") from None
    except NotADirectoryError:
        raise SSRError(f"{folder} is not a folder; choose another place") from None
    except OSError as error:
        raise SSRError(f"cannot write into {folder} ({error.strerror}); choose another folder") from None


def check_file(path: str | os.PathLike, overwrite: bool, suffixes: tuple[str, ...] = ()) -> Path:
    """A file that may be written, as a path.

    Raises:
        SSRError: a wrong ending, taken, not a file, or in a folder that cannot be written.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise SSRError(f"output {path} must end in {' or '.join(suffixes)}; give such a name")
    if path.exists() and not path.is_file():
        raise SSRError(f"output {path} is not a regular file; give another name")
    if path.exists() and not overwrite:
        raise SSRError(f"output {path} exists already; give another name, or --overwrite")
    check_folder(path.parent)
    return path


class PictureFiles:
    """File names for pictures, by what ``-o`` said.

    * nothing, or a folder: ``ssr-0001.png`` and on in it, from the first number that is free;
    * a pattern with ``{n}`` (0001, 0002, ...) or ``{seed}`` in it;
    * a file name: for one picture that file, for several ``name-0001.png`` and on.

    Args:
        where: the value of ``-o``, or None.
        seeds: of each picture.
        overwrite: whether named files may be replaced; numbered ones never are.
        stem: of numbered files.
        suffixes: that names may end in; numbered files have the first.

    Raises:
        SSRError: not a place where these pictures can be written.
    """

    def __init__(
        self,
        where: str | None,
        seeds: list[int],
        overwrite: bool = False,
        stem: str = "ssr",
        suffixes: tuple[str, ...] = PICTURES,
    ):
        self.count, self.stem, self.suffix = len(seeds), stem, suffixes[0]
        place = Path(where or ".")
        self.folder = place if place.is_dir() or (where or "").endswith(("/", os.sep)) else None
        if self.folder is not None:
            check_folder(self.folder)
            return
        if "{n}" not in where and "{seed}" not in where and len(seeds) > 1:
            where = str(place.with_name(f"{place.stem}-{{n}}{place.suffix}"))
        names = [where.replace("{n}", f"{i:04}").replace("{seed}", str(seed)) for i, seed in enumerate(seeds, 1)]
        if len(set(names)) < len(names):
            raise SSRError(f"output {where} gives several pictures one name; put {{n}} into it")
        self.named = [check_file(name, overwrite, suffixes) for name in names]

    def paths(self) -> list[Path]:
        """The names; numbers are chosen anew at each call, as another run may have taken some."""
        if self.folder is None:
            return self.named
        start = len(f"{self.stem}-")
        taken = [p.stem[start:] for p in self.folder.glob(f"{self.stem}-*") if p.stem[start:].isdecimal()]
        first = 1 + max(map(int, taken), default=0)
        return [self.folder / f"{self.stem}-{first + i:04}{self.suffix}" for i in range(self.count)]

    def write(self, pictures: list, encode: Callable[..., bytes] | None = None) -> list[Path]:
        """Write pictures, all of them or none, and return the names.

        Args:
            encode: (picture, suffix) -> the file's bytes; default for PIL pictures.

        Raises:
            SSRError: the disk is full, or another error in writing.
        """
        from ..files import written_beside

        paths, encode = self.paths(), encode or picture_bytes
        with contextlib.ExitStack() as stack:
            for picture, path in zip(pictures, paths, strict=True):
                # Not straight to the file: Pillow takes a write that a full disk cut short for a whole one.
                data = encode(picture, path.suffix)
                stack.enter_context(written_beside(path)).write_bytes(data)
        return paths


def picture_bytes(picture, suffix: str) -> bytes:
    """A PIL picture as the bytes of a file with this ending."""
    from io import BytesIO

    from PIL import Image

    data = BytesIO()
    picture.save(data, Image.registered_extensions()[suffix.lower()], quality=95)  # PNG ignores it
    return data.getvalue()
