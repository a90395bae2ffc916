"""What a person sees while something long runs: steps, a progress bar with the time left, and log lines.

On a terminal the bar is live; in a file or a pipe a plain line is written now and then instead. Below the command line
nothing else prints. Imported by cli, distillation, export, health, report, student, teacher and training.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtdistill.messages import tr

PLAIN_LINE_SECONDS = 15.0  # between two lines of progress where there is no live bar


class Terminal(Console):
    """What a command writes to; when its reader has gone, as `head` does, the work goes on in silence."""

    def on_broken_pipe(self) -> None:
        """Turn quiet; rich would end the process."""
        with suppress(SystemExit):
            super().on_broken_pipe()


class Display:
    """Where messages and progress go.

    Args:
        console: rich console; None writes nothing at all.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(quiet=True)

    def say(self, message: RenderableType) -> None:
        """One message, above a bar if there is one.

        A string is shown as it is: it may hold a path or a translation, and brackets in those are no markup. For
        colours give a `rich.text.Text`.
        """
        if isinstance(message, str):
            self.console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            self.console.print(message, highlight=False)

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator["Bar"]:
        """A progress bar for the length of the block.

        Args:
            label: what is being done.
            total: units of work in all.
            done: units that an earlier, interrupted run has done.
        """
        if self.console.quiet:  # a live bar would also swallow what others write to the terminal
            yield Bar()
            return
        if not self.console.is_terminal:
            yield _PlainBar(self, label, total, done)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn(tr(en="left", zh="剩余")),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console, expand=True) as progress:
            yield _LiveBar(progress, label, total, done)


class Bar:
    """A bar that shows nothing."""

    def advance_to(self, done: int, note: str = "") -> None:
        """Show that ``done`` units are done, with a short note such as the loss; without one the last stays."""


class _LiveBar(Bar):
    def __init__(self, progress: Progress, label: str, total: int, done: int) -> None:
        self._progress, self._note = progress, ""
        self._task = progress.add_task(label, total=total, completed=done, note="")

    def advance_to(self, done: int, note: str = "") -> None:
        self._note = note or self._note
        self._progress.update(self._task, completed=done, note=self._note)


class _PlainBar(Bar):
    def __init__(self, display: Display, label: str, total: int, done: int) -> None:
        self._display, self._label, self._total, self._start = display, label, total, done
        self._started = self._shown = time.monotonic()
        self._note = ""

    def advance_to(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        self._note = note or self._note
        if now - self._shown < PLAIN_LINE_SECONDS and done < self._total:
            return
        self._shown = now
        left = duration((now - self._started) / max(1, done - self._start) * (self._total - done))
        parts = (f"{self._label} {done}/{self._total}", tr(en=f"{left} left", zh=f"剩余 {left}"), self._note)
        self._display.say(" · ".join(filter(None, parts)))


def duration(seconds: float) -> str:
    """``0:42``, ``12:05`` or ``2:03:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
