"""What reaches a terminal, a pipe, or nobody."""

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtdistill import display as display_module
from mtdistill.display import Display, duration
from mtdistill.messages import set_language


class Clock:
    """Stands still until told otherwise."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    return clock


def test_work_goes_on_in_silence_when_the_reader_has_gone() -> None:
    program = (
        "import sys\nfrom mtdistill.display import Display, Terminal\nterminal = Terminal()\ndisplay = Display(terminal)\n"
        "sys.stdin.read()\n"  # until nobody reads any more
        "for number in range(3): display.say(str(number))\n"
        "with display.bar('on', 2) as bar: bar.advance_to(2)\n"
        "print('done', terminal.quiet, file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read().split() == [b"done", b"True"]
    assert process.returncode == 0


def pipe() -> tuple[Display, io.StringIO]:
    stream = io.StringIO()
    return Display(Console(file=stream, width=40, force_terminal=False)), stream


def terminal() -> tuple[Display, io.StringIO]:
    stream = io.StringIO()
    return Display(Console(file=stream, width=100, force_terminal=True, color_system=None)), stream


class TestSay:
    @pytest.mark.parametrize(
        "message", ["[翻译失败] 猫", "a [/b] c", "runs[1]/best", "12:cat:5", "x" * 200, "[bold]no[/]", "a\\[b"]
    )
    def test_a_string_is_shown_as_it_is(self, message: str) -> None:
        display, stream = pipe()
        display.say(message)
        assert stream.getvalue() == f"{message}\n"

    def test_a_renderable_is_rendered(self) -> None:
        display, stream = pipe()
        table = Table.grid(padding=(0, 1))
        table.add_row(Text("a"), Text("b"))
        display.say(table)
        assert stream.getvalue() == "a b\n"

    def test_without_a_console_nothing_is_written(self, capfd: pytest.CaptureFixture[str]) -> None:
        display = Display()
        display.say("hello")
        with display.bar("work", 2) as bar:
            bar.advance_to(2)
        assert capfd.readouterr() == ("", "")


class TestPlainBar:
    def test_a_line_now_and_then_and_at_the_end(self, clock: Clock) -> None:
        display, stream = pipe()
        with display.bar("training", 100) as bar:
            for done in range(1, 101):
                clock.now += 1.0
                bar.advance_to(done, f"loss {done}")
        lines = stream.getvalue().splitlines()
        assert lines[0] == "training 15/100 · 1:25 left · loss 15"
        assert lines[-1] == "training 100/100 · 0:00 left · loss 100"
        assert len(lines) == 7

    def test_the_time_left_counts_this_run_only(self, clock: Clock) -> None:
        display, stream = pipe()
        with display.bar("training", 100, done=80) as bar:
            clock.now += 20.0
            bar.advance_to(90)
        assert stream.getvalue() == "training 90/100 · 0:20 left\n"

    def test_a_note_stays_until_the_next(self, clock: Clock) -> None:
        display, stream = pipe()
        with display.bar("training", 9) as bar:
            bar.advance_to(1, "loss 5")
            clock.now += 20.0
            bar.advance_to(2)
        assert stream.getvalue().rstrip().endswith("· loss 5")

    def test_in_chinese(self, clock: Clock) -> None:
        set_language("zh")
        display, stream = pipe()
        with display.bar("训练", 2) as bar:
            clock.now += 20.0
            bar.advance_to(1)
        assert stream.getvalue() == "训练 1/2 · 剩余 0:20\n"

    def test_no_progress_yet_is_no_division_by_zero(self, clock: Clock) -> None:
        display, stream = pipe()
        with display.bar("training", 10, done=5) as bar:
            clock.now += 20.0
            bar.advance_to(5)
        assert stream.getvalue().startswith("training 5/10 · ")


class TestLiveBar:
    def test_shows_label_count_and_note_as_they_are(self) -> None:
        display, stream = terminal()
        with display.bar("[training]", 8) as bar:
            bar.advance_to(3, "loss [nan]")
            bar.advance_to(4)
        last = stream.getvalue()
        for part in ("[training]", "4/8", "loss [nan]", "left"):
            assert part in last

    def test_messages_stand_above_it(self) -> None:
        display, stream = terminal()
        with display.bar("training", 8) as bar:
            display.say("a new best")
            bar.advance_to(8)
        assert stream.getvalue().index("a new best") < stream.getvalue().rindex("8/8")

    def test_a_quiet_terminal_is_left_to_others(self) -> None:
        stream = io.StringIO()
        display = Display(Console(file=stream, quiet=True, force_terminal=True))
        before = sys.stdout
        with display.bar("training", 8) as bar:
            assert sys.stdout is before
            bar.advance_to(8)
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (42.4, "0:42"), (59.6, "1:00"), (725, "12:05"), (3599.9, "1:00:00"), (7390, "2:03:10")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
