import itertools
import math
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.decoding import HuggingFaceTranslator, Translation, Translator
from mtdistill.evaluation import cpu_name, measure_speed
from mtdistill.evaluation.speed import SENTENCES_OF_A_TURN

SOURCES = ["one", "two 个", "three"]
few_examples = settings(max_examples=50)


class Clock:
    """Time that passes only when someone translates."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Timed(Translator):
    """Says nothing, in a number of tokens that is fixed for each source, and takes the time it is told to take."""

    engine = "scripted"

    def __init__(
        self, name: str, clock: Clock, seconds: Sequence[float], calls: list[tuple[object, ...]] | None = None,
        warm_up: int = 1,
    ) -> None:  # fmt: skip
        self.name, self.clock, self.calls = name, clock, [] if calls is None else calls
        self.seconds: Iterator[float] = itertools.chain([1000.0] * warm_up, seconds)
        self.precision = f"{name} precision"

    @property
    def threads(self) -> int:
        return len(self.name)

    def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
        self.calls.append((self.name, list(sources), beam_size, batch_size))
        self.clock.now += next(self.seconds)
        return [Translation("", tokens=len(source)) for source in sources]

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        raise NotImplementedError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mtdistill.evaluation.speed.time", clock)
    return clock


def test_ratios_are_taken_pair_by_pair(clock: Clock) -> None:
    # The second pair is slowed down as a whole; the third only on one side.
    teacher = Timed("teacher", clock, [6.0, 30.0, 60.0])
    student = Timed("student", clock, [2.0, 10.0, 2.0])
    speed = measure_speed(student, teacher, SOURCES, repeats=3)
    assert (speed.ratio, speed.low, speed.high) == (3.0, 3.0, 30.0)
    assert (speed.teacher.seconds, speed.student.seconds) == (30.0, 2.0)


def test_of_two_pairs_the_geometric_mean_counts(clock: Clock) -> None:
    teacher, student = Timed("teacher", clock, [4.0, 9.0]), Timed("student", clock, [1.0, 1.0])
    assert measure_speed(student, teacher, SOURCES, repeats=2).ratio == 6.0


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
    assert (speed.teacher.precision, speed.student.precision) == ("teacher precision", "pupil precision")
    assert (speed.teacher.threads, speed.student.threads) == (7, 5)
    assert (speed.teacher.engine, speed.student.engine) == ("scripted", "scripted")
    assert speed.cpu == cpu_name()


def test_how_much_was_translated(clock: Clock) -> None:
    for batch_size in (1, 32):
        teacher, student = (Timed("model", clock, [1.0] * 6, warm_up=3) for _ in range(2))
        speed = measure_speed(student, teacher, SOURCES, batch_size=batch_size, repeats=2)
        assert speed.source_words == 3.5  # a Chinese character is half a word
        assert speed.teacher.target_tokens == speed.student.target_tokens == sum(map(len, SOURCES))  # of one run


def test_tokens_and_words_of_a_model(tiny_teacher: Any, tiny_corpus: list[tuple[str, str]]) -> None:
    model, tokenizer = tiny_teacher
    pairs = tiny_corpus[::20]
    translator = HuggingFaceTranslator(model, tokenizer, source_lang="zh")
    # As a baseline a model runs against itself.
    speed = measure_speed(translator, translator, [source for source, _ in pairs], batch_size=4, repeats=1)
    assert speed.student.target_tokens == sum(map(len, tokenizer([target for _, target in pairs])["input_ids"]))
    assert speed.source_words == sum(len(source) - 1 for source, _ in pairs) / 2  # without the full stop
    assert speed.low == speed.ratio == speed.high == speed.teacher.seconds / speed.student.seconds > 0
    assert (speed.student.engine, speed.student.precision) == ("PyTorch", "float32")


class TestSameObjectTwice:
    def test_runs_and_times_stay_apart(self, clock: Clock) -> None:
        calls: list[tuple[object, ...]] = []
        # Warm-up twice; teacher and student; student and teacher; teacher and student.
        model = Timed("model", clock, [8.0, 2.0, 5.0, 15.0, 10.0, 1.0], calls, warm_up=2)
        speed = measure_speed(model, model, SOURCES, repeats=3)
        assert len(calls) == 8
        assert (speed.low, speed.ratio, speed.high) == (3.0, 4.0, 10.0)
        assert (speed.teacher.seconds, speed.student.seconds) == (10.0, 2.0)


class TestLatency:
    def test_at_batch_1_every_sentence_is_a_call_of_its_own(self, clock: Clock) -> None:
        calls: list[tuple[object, ...]] = []
        teacher, student = (Timed(name, clock, [1.0] * 3, calls, warm_up=3) for name in ("teacher", "student"))
        measure_speed(student, teacher, SOURCES, batch_size=1, beam_size=2, repeats=1)
        warm_up = [(name, [source], 2, 1) for name in ("teacher", "student") for source in SOURCES]
        assert calls == warm_up * 2

    def test_a_run_takes_the_sum_of_its_calls(self, clock: Clock) -> None:
        teacher = Timed("teacher", clock, [1.0, 2.0, 6.0, 10.0, 20.0, 30.0], warm_up=3)
        student = Timed("student", clock, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0], warm_up=3)
        speed = measure_speed(student, teacher, SOURCES, batch_size=1, repeats=2)
        assert (speed.low, speed.ratio, speed.high) == (3.0, pytest.approx(30**0.5), 10.0)
        assert (speed.teacher.seconds, speed.student.seconds) == (34.5, 4.5)

    def test_the_models_take_turns_every_few_sentences(self, clock: Clock) -> None:
        calls: list[tuple[object, ...]] = []
        count = 2 * SENTENCES_OF_A_TURN + 1
        teacher, student = (Timed(name, clock, [1.0] * 2 * count, calls, count) for name in ("teacher", "student"))
        sources = [str(number) for number in range(count)]
        measure_speed(student, teacher, sources, batch_size=1, repeats=2)
        turns = [(name, len([*same])) for name, same in itertools.groupby(call[0] for call in calls[2 * count :])]
        some = SENTENCES_OF_A_TURN
        first = [("teacher", some), ("student", 2 * some), ("teacher", some + 1), ("student", 1 + some)]
        assert turns == [*first, ("teacher", 2 * some), ("student", some + 1), ("teacher", 1)]
        for run in (calls[2 * count : 4 * count], calls[4 * count :]):
            for name in ("teacher", "student"):
                assert [call[1] for call in run if call[0] == name] == [[source] for source in sources]

    @few_examples
    @given(st.integers(1, 5), st.integers(1, 4), st.data())
    def test_median_and_95th_percentile_are_over_the_calls_of_all_runs(
        self, sentences: int, repeats: int, data: st.DataObject
    ) -> None:
        times = st.integers(1, 1000).map(lambda milliseconds: milliseconds / 1000)
        teacher_times, student_times = (
            data.draw(st.lists(times, min_size=sentences * repeats, max_size=sentences * repeats)) for _ in range(2)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mtdistill.evaluation.speed.time", clock := Clock())
            speed = measure_speed(
                Timed("student", clock, student_times, warm_up=sentences),
                Timed("teacher", clock, teacher_times, warm_up=sentences),
                ["a"] * sentences,
                batch_size=1,
                repeats=repeats,
            )
        for timing, seconds in ((speed.teacher, teacher_times), (speed.student, student_times)):
            assert timing.latency_ms == pytest.approx(1000 * statistics.median(seconds))
            assert timing.latency_p95_ms == pytest.approx(1000 * percentile(seconds, 95))

    @pytest.mark.parametrize("batch_size", [2, 32])
    def test_of_larger_batches_there_is_none(self, batch_size: int, clock: Clock) -> None:
        teacher, student = (Timed(name, clock, [1.0]) for name in ("teacher", "student"))
        speed = measure_speed(student, teacher, SOURCES, batch_size=batch_size, repeats=1)
        assert {speed.teacher.latency_ms, speed.student.latency_ms} == {None}
        assert {speed.teacher.latency_p95_ms, speed.student.latency_p95_ms} == {None}


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two ranks it lies between, in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


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
