from collections.abc import Sequence
from typing import Any

import pytest

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, Translation, Translator
from mtdistill.evaluation import ModelSize, corpus_quality, model_size, retention, success_rate
from mtdistill.presets import load_preset
from mtdistill.report import ReportCard, build_report, building

SENTENCES = EvaluationSet(
    sources=[f"第{number}个句子说了很多话。" for number in range(40)],
    references=[[f"Sentence number {number} says a lot of things today."] for number in range(40)],
)
SIZES = {"student_size": ModelSize(400), "teacher_size": ModelSize(1200)}


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

    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        raise NotImplementedError


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


def built(student: Translator, teacher: Translator, config: RunConfig, **options: Any) -> ReportCard:
    return build_report(student, teacher, SENTENCES, config, **{**SIZES, "target_lang": "en", **options})


def test_every_number_is_that_of_the_evaluation(clock: Clock, config: RunConfig) -> None:
    student, teacher = student_of(clock, loud=4), teacher_of(clock)
    card = built(student, teacher, config)
    texts = [list(translator.texts.values()) for translator in (student, teacher)]
    lines = [[Translation(text) for text in side] for side in texts]
    assert card.student.quality == corpus_quality(texts[0], SENTENCES.references, "en")
    assert card.teacher.quality == corpus_quality(texts[1], SENTENCES.references, "en")
    assert card.retention == retention(texts[0], texts[1], SENTENCES.references, "en")
    assert card.success == success_rate(SENTENCES.sources, lines[0], lines[1], SENTENCES.references, "en")
    assert card.success.failures == {"loop": 4}
    assert (card.compression_ratio, card.student.parameters, card.teacher.mib_float32) == (3.0, 400, 4800 / 2**20)
    assert (card.sentences, card.source_lang, card.target_lang, card.engine) == (40, "zh", "en", "scripted float32")
    assert ReportCard.from_json(card.to_json()) == card


def test_promises_come_from_the_preset(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock), teacher_of(clock), config)
    expected = {promise.name: promise.expected for promise in card.promises}
    assert expected == {"compression_ratio": 2.5, "success_rate": 0.6, "speed_up": 2.0, "quality_retention": 0.7}
    assert {promise.name: promise.measured for promise in card.promises} == {
        "compression_ratio": 3.0, "success_rate": 1.0, "speed_up": 3.0, "quality_retention": card.retention.ratio,
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


class TestSpeed:
    def test_the_slower_batch_size_of_the_headline_counts(self, clock: Clock, config: RunConfig) -> None:
        student = student_of(clock, seconds={32: 2.0, 1: 4.0})
        card = built(student, teacher_of(clock), config)
        assert [(each.batch_size, each.ratio) for each in card.speed_ups] == [(32, 3.0), (1, 1.5)]
        assert card.promise("speed_up").measured == 1.5

    def test_other_engines_are_shown_and_not_held_against_the_promise(self, clock: Clock, config: RunConfig) -> None:
        student, teacher = student_of(clock), teacher_of(clock)
        slow = student_of(clock, seconds={32: 60.0, 1: 60.0})
        card = built(student, teacher, config, engines=[(student, teacher), (slow, teacher)])
        assert [(each.batch_size, each.ratio) for each in card.speed_ups] == [(32, 3.0), (1, 3.0), (32, 0.1)]
        assert card.promise("speed_up").measured == 3.0

    def test_the_headline_is_the_first_engine_not_what_translates(self, clock: Clock, config: RunConfig) -> None:
        student, teacher = student_of(clock), teacher_of(clock)
        fast = student_of(clock, seconds={32: 1.0, 1: 1.0})
        assert built(student, teacher, config, engines=[(fast, teacher)]).promise("speed_up").measured == 6.0

    def test_beam_and_sentences_are_passed_on(
        self, clock: Clock, config: RunConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(building, "SPEED_SENTENCES", {32: 20, 1: 5})
        student = student_of(clock)
        card = built(student, teacher_of(clock), config, beam_size=4)
        assert card.beam_size == 4
        assert student.calls[0] == (40, 4, 32)
        assert set(student.calls[1:]) == {(20, 4, 32), (5, 4, 1)}


def test_samples_are_spread_over_the_test_set(clock: Clock, config: RunConfig) -> None:
    card = built(student_of(clock, wrong=0, loud=40), teacher_of(clock), config)
    assert [sample.source for sample in card.samples] == SENTENCES.sources[::4]
    first = card.samples[0]
    assert (first.references, first.failure) == (tuple(SENTENCES.references[0]), "loop")
    assert (first.teacher, first.student) == (SENTENCES.references[0][0], "go on go on go on go on go on")


def test_what_only_the_caller_knows_is_kept(clock: Clock, config: RunConfig) -> None:
    said: list[str] = []
    card = built(student_of(clock), teacher_of(clock), config, training_seconds=12.5, random_bleu=0.3, say=said.append)
    assert (card.training_seconds, card.random_bleu) == (12.5, 0.3)
    assert said[0] == "translating 40 test sentences"
    assert sum("measuring speed" in line for line in said) == 2


def test_real_models(tiny_teacher: Any, tiny_corpus: list[tuple[str, str]], config: RunConfig) -> None:
    model, tokenizer = tiny_teacher
    sentences = EvaluationSet([source for source, _ in tiny_corpus[:40]], [[target] for _, target in tiny_corpus[:40]])
    fast = CTranslate2Translator.from_model(model, tokenizer, source_lang="zh")
    plain = HuggingFaceTranslator(model, tokenizer, source_lang="zh")
    size = model_size(model)
    card = build_report(
        fast, fast, sentences, config, student_size=size, teacher_size=size, target_lang="en",
        engines=[(fast, fast), (plain, plain), (fast, plain)],
    )  # fmt: skip
    assert (card.student.quality.bleu, card.success.rate, card.retention.ratio) == (pytest.approx(100), 1.0, 1.0)
    assert [(each.student_engine, each.teacher_engine, each.batch_size) for each in card.speed_ups] == [
        ("CTranslate2", "CTranslate2", 32), ("CTranslate2", "CTranslate2", 1), ("PyTorch", "PyTorch", 32),
        ("CTranslate2", "PyTorch", 32),
    ]  # fmt: skip
    assert [promise.name for promise in card.promises if promise.kept] == ["success_rate", "quality_retention"]
