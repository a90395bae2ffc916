"""The command line, called in this process."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mtdistill.cli import main


@dataclass(frozen=True)
class Called:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Called]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls `main` in a terminal of 80 columns, with a text or a stream as its standard input."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str, stdin: str | io.TextIOBase = "") -> Called:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        code = main(list(arguments))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Called(code, printed.out, printed.err)

    return call
