"""Writing files whole or not at all, and naming them by their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError

from .errors import SSRError

_UMASK = os.umask(0o022)  # to read it is to set it: once, before there are threads
os.umask(_UMASK)


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is no file or folder here could be a hub id: "owner/model". Nothing is looked up."""
    return name.count("/") == 1 and not name.startswith((".", "/"))


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
    # By its own name, so that what a killed process left is found, unless that would be longer than names may be.
    own = path.name if len(os.fsencode(path.name)) < 200 else path.name[:32]
    temporary = path.with_name(f".{own}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with contextlib.suppress(OSError):  # not every file system has permissions
            temporary.chmod(0o666 & ~_UMASK)  # safetensors (0.8) makes files that their owner alone can read
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error.strerror or error) from None
    except SafetensorError as error:  # how safetensors reports a full disk
        raise _cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):  # its folder may be a file, say: then the error above has said so
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value, sort_keys: bool = False) -> None:
    """A JSON file, whole or not at all."""
    with written_beside(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=sort_keys)
        temporary.write_text(text + "\n", encoding="utf-8")


def file_sha256(path: str | os.PathLike) -> str:
    """Hash of a file's bytes, read in parts."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cannot_write(path: Path, reason) -> SSRError:
    return SSRError(f"cannot write {path} ({reason}); choose another place with enough room")
