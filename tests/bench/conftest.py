import pytest

from ssr_encoder.cli import main


@pytest.fixture
def ssr(capsys):
    """A function (*words) -> (exit code, stdout, stderr)."""

    def run(*words):
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return run
