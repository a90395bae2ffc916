from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, Translation, Translator
from mtdistill.display import Display
from mtdistill.evaluation import ModelSize, corpus_quality, model_size, retention, success_rate
from mtdistill.presets import load_preset
from mtdistill.report import Contestant, Duel, ReportCard, build_report, building
from mtdistill.report import duels as duels_module

SENTENCES = EvaluationSet(
    sources=[f"第{number}个句子说了很多话。" for number in range(40)],
    references=[[f"Sentence number {number} says a lot of things today."] for number in range(40)],
)
STUDENT_SIZE, TEACHER_SIZE = ModelSize(400), ModelSize(1200)


class Clock:
    """Time that passes only when someone translates."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Scripted(Translator):
    engine = "scripted"
    precision = "float32"
    threads = 1

    def __init__(self, clock: Clock, texts: Sequence[str], seconds: dict[int, float]) -> None:
        self.source_lang = "zh"
        self.texts, self.clock, self.seconds = dict(zip(SENTENCES.sources, texts, strict=True)), clock, seconds
        self.calls: list[tuple[int, int, int]] = []

    def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
        self.calls.append((len(sources), beam_size, batch_size))
        self.clock.now += self.seconds[batch_size] * len(sources)
        return [Translation(self.texts[source]) for source in sources]

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        raise NotImplementedError


class Lines(Display):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[object] = []

    def say(self, message: object) -> None:
        self.said.append(message)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mtdistill.evaluation.speed.time", clock)
    return clock


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_preset("quick").config


def teacher_of(clock: Clock, seconds: dict[int, float] | None = None) -> Scripted:
    return Scripted(clock, [refs[0] for refs in SENTENCES.references], seconds or {32: 6.0, 1: 6.0})


def student_of(clock: Clock, wrong: int = 8, seconds: dict[int, float] | None = None, loud: int = 0) -> Scripted:
    """Drops a word from the first sentences; the next ones loop."""
    texts = [
        refs[0].replace(" a lot of", "")
        if row < wrong
        else "go on go on go on go on go on"
        if row < wrong + loud
        else refs[0]
        for row, refs in enumerate(SENTENCES.references)
    ]
    return Scripted(clock, texts, seconds or {32: 2.0, 1: 2.0})


def built(student: Translator, teacher: Translator, config: RunConfig | None, **options: Any) -> ReportCard:
    rarest = options.pop("rarest_piece", None)
    return build_report(
        Contestant(student, STUDENT_SIZE, 41.5), Contestant(teacher, TEACHER_SIZE),
        building.TestSet("test", SENTENCES, "zh", "en", rarest), config, **options,
    )  # fmt: skip


def test_every_number_is_that_of_the_evaluation(clock: Clock, config: RunConfig) -> None:
    student, teacher = student_of(clock, loud=4), teacher_of(clock)
    card = built(student, teacher, config)
    texts = [list(translator.texts.values()) for translator in (student, teacher)]
    lines = [[Translation(text) for text in side] for side in texts]
    assert [each.beam_size for each in card.qualities] == [1, 4]
    assert card.quality.student == corpus_quality(texts[0], SENTENCES.references, "en")
    assert card.quality.teacher == corpus_quality(texts[1], SENTENCES.references, "en")
    assert card.quality.retention == retention(texts[0], texts[1], SENTENCES.references, "en")
    assert card.success == success_rate(SENTENCES.sources, lines[0], lines[1], SENTENCES.references, "en")
    assert card.success.failures == {"loop": 4}
    assert (card.compression_ratio, card.student.parameters, card.teacher.mib_float32) == (3.0, 400, 4800 / 2**20)
    assert (card.student.peak_memory_mib, card.teacher.peak_memory_mib) == (41.5, None)
    assert (card.sentences, card.source_lang, card.target_lang, card.engine) == (40, "zh", "en", "scripted float32")
    assert (card.test_set, card.form, card.comet) == ("test", "PyTorch", None)
    assert ReportCard.from_json(card.to_json()) == card


def test_each_beam_has_its_own_scores(clock: Clock, config: RunConfig) -> None:
    class WorseWithBeams(Scripted):
        def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
            lines = super().translate(sources, beam_size=beam_size, batch_size=batch_size)
            return lines if beam_size == 1 else [Translation(line.text.replace(" says", "")) for line in lines]

    perfect = [refs[0] for refs in SENTENCES.references]
    card = built(WorseWithBeams(clock, perfect, {32: 1.0, 1: 1.0}), teacher_of(clock), config)
    greedy, beam = card.qualities
    assert greedy.student.bleu == pytest.approx(100)
    assert beam.student.bleu < 90
    assert beam.teacher.bleu == pytest.approx(100)
    assert beam.retention.ratio == pytest.approx(beam.student.bleu / 100)
    assert card.promise("quality_retention").measured == 1.0
    assert "says" in card.samples[0].student  # what people read is greedy


def test_classes_cover_the_test_set(clock: Clock, config: RunConfig) -> None:
    rarest = [5] * 15 + [2000] * 25
    card = built(student_of(clock, loud=4), teacher_of(clock), config, rarest_piece=rarest)
    assert sum(each.sentences for each in card.by_length) == 40
    assert [(each.low, each.high, each.sentences) for each in card.by_rarity] == [(0, 1000, 15), (1000, None, 25)]
    assert card.by_rarity[0].student_bleu < card.by_rarity[1].student_bleu == pytest.approx(100)
    assert built(student_of(clock), teacher_of(clock), config).by_rarity == ()


def test_the_worst_come_first_with_both_scores(clock: Clock, config: RunConfig) -> None:
    worst = built(student_of(clock, loud=4), teacher_of(clock), config).worst
    assert len(worst) == 12  # the others are as good as the teacher's
    assert {each.student for each in worst[:4]} == {"go on go on go on go on go on"}
    assert worst[0].teacher_chrf == pytest.approx(100)
    assert worst[0].student_chrf < 20
    assert (worst[0].failure, worst[-1].failure) == ("loop", None)


def test_promises_come_from_the_preset(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock), teacher_of(clock), config)
    expected = {promise.name: promise.expected for promise in card.promises}
    assert expected == {"compression_ratio": 2.5, "success_rate": 0.6, "speed_up": 2.0, "quality_retention": 0.7}
    assert {promise.name: promise.measured for promise in card.promises} == {
        "compression_ratio": 3.0, "success_rate": 1.0, "speed_up": 3.0, "quality_retention": card.quality.retention.ratio,
    }  # fmt: skip
    assert card.verdict == "kept"
    assert (card.preset, card.time_budget_minutes) == ("quick", 15.0)
    assert card.settings["kd.temperature"] == config.kd.temperature


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("expected.compression_ratio=3.1", "compression_ratio"), ("expected.success_rate=0.95", "success_rate"),
        ("expected.speed_up=3.1", "speed_up"), ("expected.quality_retention=0.99", "quality_retention"),
    ],
)  # fmt: skip
def test_one_miss_is_enough(override: str, name: str, clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock, loud=4), teacher_of(clock), apply_overrides(config, [override]))
    assert [promise.name for promise in card.promises if not promise.kept] == [name]
    assert card.verdict == "missed"


def test_exactly_what_was_promised_is_kept(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock), teacher_of(clock), apply_overrides(config, ["expected.compression_ratio=3.0"]))
    assert card.promise("compression_ratio").kept


def test_a_student_that_says_nothing_useful_has_failed(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock, wrong=0, loud=39), teacher_of(clock), config)
    assert card.verdict == "failed"
    assert not card.keeps_promises


def test_a_model_of_no_preset_promises_nothing(clock: Clock) -> None:
    card = built(student_of(clock), teacher_of(clock), None)
    assert (card.preset, card.promises, card.verdict, card.time_budget_minutes) == (None, (), "unpromised", None)
    assert card.keeps_promises
    assert built(student_of(clock, wrong=0, loud=39), teacher_of(clock), None).verdict == "failed"


class TestSpeed:
    def test_the_slower_batch_size_of_the_headline_counts(self, clock: Clock, config: RunConfig) -> None:
        student = student_of(clock, seconds={32: 2.0, 1: 4.0})
        card = built(student, teacher_of(clock), config)
        assert [(each.batch_size, each.ratio) for each in card.speed_ups] == [(32, 3.0), (1, 1.5)]
        assert card.promise("speed_up").measured == 1.5

    def test_other_duels_are_shown_and_not_held_against_the_promise(self, clock: Clock, config: RunConfig) -> None:
        student, teacher = student_of(clock), teacher_of(clock)
        slow = student_of(clock, seconds={32: 60.0, 1: 60.0})
        duels = [Duel(slow, teacher), Duel(student, teacher, promised=True), Duel(slow, teacher, beam_size=4)]
        card = built(student, teacher, config, duels=duels)
        assert [each.ratio for each in card.speed_ups] == [3.0, 0.1, 0.1]  # the promised ones first
        assert card.promised_speed_ups == 1
        assert card.promise("speed_up").measured == 3.0

    def test_the_slowest_promised_duel_counts(self, clock: Clock, config: RunConfig) -> None:
        student, teacher = student_of(clock), teacher_of(clock)
        fast = student_of(clock, seconds={32: 1.0, 1: 1.0})
        duels = [Duel(each, teacher, promised=True) for each in (fast, student)]
        card = built(student, teacher, config, duels=duels)
        assert (card.promise("speed_up").measured, card.promised_speed_ups) == (3.0, 2)

    def test_a_duel_decides_batch_beam_and_number_of_sentences(
        self, clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(duels_module, "SPEED_SENTENCES", {32: 36, 1: 12})
        monkeypatch.setattr(Scripted, "engine", "CTranslate2")
        student, teacher = student_of(clock), teacher_of(clock)
        duels = [Duel(student, teacher, batch, beam) for batch in (32, 1) for beam in (1, 4)]
        promised = [Duel(student, teacher, batch, promised=True) for batch in (32, 1)]
        card = built(student, teacher, config, duels=[*promised, *duels])
        assert student.calls[:2] == [(40, 1, 32), (40, 4, 32)]  # the test set
        runs = [call for call in student.calls[2:] if call != (32, 1, 32)]  # to warm up
        assert set(runs) == {(36, 1, 32), (12, 4, 32), (1, 1, 1), (1, 4, 1)}
        # What a promise is held against is timed on as many one by one.
        assert [each.sentences for each in card.speed_ups] == [36, 36, 36, 12, 12, 4]
        assert [each.repeats for each in card.speed_ups] == [5, 2, 5, 5, 5, 5]

    def test_a_slow_engine_is_timed_on_fewer(self, clock: Clock, config: RunConfig) -> None:
        (speed, _) = built(student_of(clock), teacher_of(clock), config).speed_ups
        assert speed.sentences == 40
        assert duels_module._timed_sentences(Duel(student_of(clock), teacher_of(clock))) == 64


def test_samples_are_spread_over_the_test_set(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock, wrong=0, loud=40), teacher_of(clock), config)
    assert [sample.source for sample in card.samples] == SENTENCES.sources[::4]
    first = card.samples[0]
    assert (first.references, first.failure) == (tuple(SENTENCES.references[0]), "loop")
    assert (first.teacher, first.student) == (SENTENCES.references[0][0], "go on go on go on go on go on")


def test_what_only_the_caller_knows_is_kept(clock: Clock, config: RunConfig) -> None:
    display = Lines()
    card = built(
        student_of(clock), teacher_of(clock), config, training_seconds=12.5, random_bleu=0.3, form="int8", display=display,
    )  # fmt: skip
    assert (card.training_seconds, card.random_bleu, card.form) == (12.5, 0.3, "int8")
    assert display.said == ["translating 40 test sentences, beam 1", "translating 40 test sentences, beam 4"]


def test_comet_judges_the_greedy_translations(clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def scores(*arguments: Any) -> list[float]:
        asked.append(arguments)
        return [81.0, 79.0]

    monkeypatch.setattr(building, "comet_scores", scores)
    student, teacher = student_of(clock), teacher_of(clock)
    comet = built(student, teacher, config, comet_model=Path("models/judge.ckpt")).comet
    assert comet is not None
    assert (comet.model, comet.teacher, comet.student) == ("judge.ckpt", 81.0, 79.0)
    assert asked[0][1:3] == (SENTENCES.sources, SENTENCES.references)
    assert asked[0][3] == [list(teacher.texts.values()), list(student.texts.values())]


def test_real_models(tiny_teacher: Any, tiny_corpus: list[tuple[str, str]], config: RunConfig) -> None:
    model, tokenizer = tiny_teacher
    sentences = EvaluationSet([source for source, _ in tiny_corpus[:40]], [[target] for _, target in tiny_corpus[:40]])
    fast = CTranslate2Translator.from_model(model, tokenizer, source_lang="zh")
    plain = HuggingFaceTranslator(model, tokenizer, source_lang="zh")
    side = Contestant(fast, model_size(model))
    duels = [Duel(fast, fast, promised=True), Duel(plain, plain), Duel(fast, plain, batch_size=1)]
    card = build_report(side, side, building.TestSet("test", sentences, "zh", "en"), config, duels=duels)
    quality = card.quality
    assert (quality.student.bleu, card.success.rate, quality.retention.ratio) == (pytest.approx(100), 1.0, 1.0)
    assert [(each.student.engine, each.teacher.engine, each.batch_size) for each in card.speed_ups] == [
        ("CTranslate2", "CTranslate2", 32), ("PyTorch", "PyTorch", 32), ("CTranslate2", "PyTorch", 1),
    ]  # fmt: skip
    assert card.speed_ups[0].student.target_tokens > 40
    assert [promise.name for promise in card.promises if promise.kept] == ["success_rate", "quality_retention"]
