"""What a result says about the software that made it."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from .version import __version__


def versions() -> dict[str, str]:
    """Of this package and of what computes the pictures."""
    libraries = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"ssr-encoder": __version__, **libraries, "python": platform.python_version()}


def commit() -> str | None:
    """Of the working copy that the package runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
