"""Results that are a folder: made beside its place and moved there when complete, never over other people's files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import SSRError
from .outputs import check_folder


def check_own_folder(where: str, sign: str) -> Path:
    """A folder that may be made, or filled again because ``sign``, a file in it, shows that this command made it.

    Raises:
        SSRError: not a folder, one with other files in it, or in a place that cannot be written.
    """
    folder = Path(where)
    if not folder.exists():
        if folder.is_symlink():
            raise SSRError(f"output {folder} is a link to nowhere; give another name")
        check_folder(folder.parent)
        return folder
    if not folder.is_dir():
        raise SSRError(f"output {folder} is a file; give the name of a folder")
    check_folder(folder)
    if any(folder.iterdir()) and not (folder / sign).is_file():
        raise SSRError(f"folder {folder} has other files in it; give a new or an empty one")
    return folder


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends without an error its files become ``folder``'s.

    Raises:
        SSRError: the disk is full, or the place cannot be written.
    """
    inside = folder if folder.is_dir() else folder.parent
    temporary = inside / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        try:
            temporary.mkdir(mode=0o700)  # within: an interrupt may come before the next line
            yield temporary
            for path in sorted(temporary.rglob("*")):
                place = folder / path.relative_to(temporary)
                if path.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise SSRError(
            f"cannot write {folder} ({error.strerror or error}); choose another place with enough room"
        ) from None
