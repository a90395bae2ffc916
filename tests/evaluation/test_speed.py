import itertools
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mtdistill.decoding import Translation, Translator
from mtdistill.evaluation import cpu_name, measure_speed

SOURCES = ["one", "two", "three"]


class Clock:
    """Time that passes only when someone translates."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Timed(Translator):
    engine = "scripted"

    def __init__(self, name: str, clock: Clock, seconds: Sequence[float], calls: list[tuple[object, ...]]) -> None:
        self.name, self.clock, self.calls = name, clock, calls
        self.seconds: Iterator[float] = itertools.chain([1000.0], seconds)  # the first run warms up
        self.precision = f"{name} precision"

    @property
    def threads(self) -> int:
        return len(self.name)

    def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
        self.calls.append((self.name, list(sources), beam_size, batch_size))
        self.clock.now += next(self.seconds)
        return [Translation("") for _ in sources]

    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        raise NotImplementedError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mtdistill.evaluation.speed.time", clock)
    return clock


def test_ratios_are_taken_pair_by_pair(clock: Clock) -> None:
    # The second pair is slowed down as a whole; the third only on one side.
    teacher = Timed("teacher", clock, [6.0, 30.0, 60.0], [])
    student = Timed("student", clock, [2.0, 10.0, 2.0], [])
    speed = measure_speed(student, teacher, SOURCES, repeats=3)
    assert (speed.ratio, speed.low, speed.high) == (3.0, 3.0, 30.0)
    assert (speed.teacher_seconds, speed.student_seconds) == (30.0, 2.0)


def test_both_warm_up_and_take_turns_in_changing_order(clock: Clock) -> None:
    calls: list[tuple[object, ...]] = []
    teacher, student = (Timed(name, clock, [1.0] * 3, calls) for name in ("teacher", "student"))
    measure_speed(student, teacher, SOURCES, repeats=3)
    names = [call[0] for call in calls]
    assert names[:2] == ["teacher", "student"]
    assert names[2:] == ["teacher", "student", "student", "teacher", "teacher", "student"]


def test_conditions_reach_the_translators_and_the_result(clock: Clock) -> None:
    calls: list[tuple[object, ...]] = []
    teacher, student = Timed("teacher", clock, [1.0] * 2, calls), Timed("pupil", clock, [1.0] * 2, calls)
    speed = measure_speed(student, teacher, SOURCES, batch_size=7, beam_size=4, repeats=2)
    assert {call[1:] for call in ((name, tuple(texts), *rest) for name, texts, *rest in calls)} == {  # type: ignore[arg-type,misc]
        (tuple(SOURCES), 4, 7)
    }
    assert (speed.batch_size, speed.beam_size, speed.repeats, speed.sentences) == (7, 4, 2, 3)
    assert (speed.teacher_precision, speed.student_precision) == ("teacher precision", "pupil precision")
    assert (speed.teacher_threads, speed.student_threads) == (7, 5)
    assert (speed.teacher_engine, speed.student_engine) == ("scripted", "scripted")
    assert speed.cpu == cpu_name()


def test_a_comparison_across_conditions_shows_as_one(clock: Clock) -> None:
    teacher, student = Timed("teacher", clock, [1.0], []), Timed("student", clock, [1.0], [])
    assert not measure_speed(student, teacher, SOURCES, repeats=1).same_conditions
    twins = [Timed("teacher", clock, [1.0], []) for _ in range(2)]
    assert measure_speed(twins[0], twins[1], SOURCES, repeats=1).same_conditions


class TestCpuName:
    def test_is_one_line(self) -> None:
        assert cpu_name()
        assert "\n" not in cpu_name()

    def test_comes_from_the_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "processor\t: 0\nmodel name\t: Examplium: 9000\nprocessor\t: 1\nmodel name\t: Examplium: 9000\n"
        monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: text)
        assert cpu_name() == "Examplium: 9000"

    def test_is_the_architecture_where_nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_arguments: object, **_options: object) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(Path, "read_text", missing)
        monkeypatch.setattr(platform, "system", lambda: "Plan 9")
        monkeypatch.setattr(platform, "processor", lambda: "")
        monkeypatch.setattr(platform, "machine", lambda: "toaster")
        assert cpu_name() == "toaster"
