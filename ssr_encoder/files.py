"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from safetensors import SafetensorError

from .errors import SSRError


@contextlib.contextmanager
def written_beside(path: str | os.PathLike):
    """Yield a temporary path beside ``path`` and rename it into place when the block ends without an error.

    Raises:
        SSRError: the folder does not exist or cannot be written, the disk is full, or ``path`` is something else
            than a file (a device such as ``/dev/null`` would be replaced).
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise SSRError(f"cannot write {path} (it is not a regular file); choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error.strerror or error) from None
    except SafetensorError as error:  # how safetensors reports a full disk
        raise _cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, reason) -> SSRError:
    return SSRError(f"cannot write {path} ({reason}); choose another place with enough room")
