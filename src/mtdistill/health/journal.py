"""Where findings go: a line of health.jsonl each, the terminal, and TensorBoard.

Imported by distillation and health.monitor; imports health.finding and health.wording.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from rich.text import Text

from mtdistill.display import Display
from mtdistill.files import write_atomically
from mtdistill.health.finding import Finding
from mtdistill.health.wording import explain

HEALTH_FILE = "health.jsonl"
SAID_AGAIN_AFTER = 200  # updates; every finding is written, but one that repeats is not shown every time
_STYLES = {"warning": "yellow", "failure": "bold red"}


class TextWriter(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Show a text beside the curves."""


class Journal:
    """Records findings as they come.

    Args:
        path: of health.jsonl; None writes no file.
        display: for the terminal.
        writer: for TensorBoard; may be set later.
    """

    def __init__(self, path: Path | None, display: Display | None = None, writer: TextWriter | None = None) -> None:
        self._path, self._display, self.writer = path, display or Display(), writer
        self._said: dict[tuple[str, str], int] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.lines = 0

    def record(self, finding: Finding) -> None:
        """Write it down, and show it unless the same was shown shortly before."""
        self.lines += 1
        self.counts[finding.check] += 1
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps(finding.as_dict(), ensure_ascii=False)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        key = finding.check, finding.action
        if finding.update - self._said.get(key, -SAID_AGAIN_AFTER) < SAID_AGAIN_AFTER:
            return
        self._said[key] = finding.update
        text = explain(finding)
        self._display.say(Text(text, style=_STYLES[finding.severity]))
        if self.writer is not None:
            self.writer.add_text(f"health/{finding.check}", text, finding.update)

    def begin(self, lines: int) -> None:
        """Drop what was written after the state that a run goes on from.

        Args:
            lines: how many had been written then; 0 begins anew.
        """
        self.lines = lines
        self._said = {}  # what comes again after a return is news
        if self._path is None:
            return
        kept = _lines(self._path)[:lines]
        write_atomically(self._path, "".join(f"{line}\n" for line in kept))


def read_findings(path: Path) -> list[Finding]:
    """What a run has found; empty where there is no file.

    Lines that cannot be explained are left out: cut short by a kill, of a newer version, or not of ours.
    """
    found = []
    for line in _lines(path):
        try:
            finding = Finding(**json.loads(line))
            explain(finding)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
        found.append(finding)
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
