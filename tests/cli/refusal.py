"""What every refusal has in common."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

# A model that is not there: what can be known without one must be said before one is loaded.
NOWHERE = "./no/such/model"


def files_below(folder) -> set[Path]:
    return set(Path(folder).rglob("*"))


def check_refused(result, *names) -> None:
    """One line on stderr with all names in it and a mend, nothing on stdout."""
    assert result.code == 2, (result.out, result.err)
    assert result.out == ""
    assert result.err.startswith("ssr: error: ") and result.err.count("\n") == 1 and result.err.endswith("\n")
    for name in names:
        assert str(name) in result.err
    assert "; " in result.err or "(see `ssr" in result.err  # the mend
    assert "Traceback" not in result.err and "no/such/model" not in result.err


@contextlib.contextmanager
def without_rights():
    """A folder that anybody may write to, as an ordinary user: permissions do not bind root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    before, user = os.getcwd(), os.geteuid()
    os.chdir(folder)
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if user == 0:
            os.seteuid(0)
        os.chdir(before)
        (folder / "closed").exists() and (folder / "closed").chmod(0o755)
        shutil.rmtree(folder)
