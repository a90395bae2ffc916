"""Measure a student against its teacher and its promises."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtdistill.config import ExpectedConfig, RunConfig
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import Translation, Translator
from mtdistill.display import Display
from mtdistill.evaluation import (
    LENGTH_EDGES,
    RARITY_EDGES,
    ModelSize,
    QualityClass,
    Retention,
    SpeedUp,
    Success,
    comet_scores,
    corpus_quality,
    quality_by,
    retention,
    success_rate,
    worst_sentences,
)
from mtdistill.messages import tr
from mtdistill.output_checks import check_translations
from mtdistill.report.card import (
    BeamQuality,
    CometScores,
    ModelCard,
    Promise,
    PromiseName,
    ReportCard,
    Sample,
    Verdict,
    WorstSample,
)
from mtdistill.report.duels import SPEED_SENTENCES, Duel, run_duels, spread
from mtdistill.text import word_count

SAMPLES = 10
BEAMS = (1, 4)
# Under this share of correct translations, or of the teacher's BLEU, training has failed and a promise is not the
# question. From the presets, whose lowest promises are 0.6 and 0.7: a guess, far below anything that worked.
FAILED_BELOW = 0.1


@dataclass(frozen=True)
class Contestant:
    """One model under test: its size, and what translates with it."""

    translator: Translator
    size: ModelSize
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class TestSet:
    """What is translated.

    Attributes:
        name: "test", or the files it came from.
        sentences: 1 or more, with all their references.
        source_lang: language of the sources.
        target_lang: language of the references.
        rarest_piece: for each source, how often its rarest piece stands in the training sources; None: not known.
    """

    name: str
    sentences: EvaluationSet
    source_lang: str
    target_lang: str
    rarest_piece: Sequence[int] | None = None


def build_report(
    student: Contestant,
    teacher: Contestant,
    test_set: TestSet,
    config: RunConfig | None,
    *,
    form: str = "PyTorch",
    duels: Sequence[Duel] = (),
    training_seconds: float | None = None,
    random_bleu: float | None = None,
    comet_model: Path | None = None,
    display: Display | None = None,
) -> ReportCard:
    """Translate a test set with both models, time them, and hold the result against the preset.

    Args:
        student: translates the test set.
        teacher: likewise; same engine and precision, so that quality compares the models alone.
        test_set: what is translated.
        config: settings of the run; the promises and what the advice refers to are read from it. None: a model of no
            preset, which promises nothing.
        form: what the student was loaded from, for the card.
        duels: what to time, at least one of them promised. Default: the translators above, batch 32 and 1.
        training_seconds: how long training took, if it was part of this run.
        random_bleu: BLEU of the same budget from random weights, if it was measured.
        comet_model: checkpoint of a COMET model to judge with.
        display: where progress goes; None: nowhere.
    """
    display = display or Display()
    sentences, lang = test_set.sentences, test_set.target_lang
    duels = duels or [Duel(student.translator, teacher.translator, batch, promised=True) for batch in SPEED_SENTENCES]
    translated: dict[int, tuple[list[Translation], list[Translation]]] = {}
    for beam in BEAMS:
        display.say(
            tr(
                en=f"translating {len(sentences)} test sentences, beam {beam}",
                zh=f"正在翻译 {len(sentences)} 个测试句，束宽 {beam}",
            )
        )
        translated[beam] = (
            student.translator.translate(sentences.sources, beam_size=beam),
            teacher.translator.translate(sentences.sources, beam_size=beam),
        )
    qualities = tuple(_quality(beam, *translated[beam], sentences.references, lang) for beam in BEAMS)
    greedy_student, greedy_teacher = translated[BEAMS[0]]
    success = success_rate(sentences.sources, greedy_student, greedy_teacher, sentences.references, lang)
    failures = check_translations(sentences.sources, greedy_student, target_lang=lang)
    student_texts, teacher_texts = _texts(greedy_student), _texts(greedy_teacher)
    ordered = sorted(duels, key=lambda duel: not duel.promised)
    speed_ups = run_duels(ordered, sentences.sources, display)
    promised = speed_ups[: sum(duel.promised for duel in duels)]
    compression = teacher.size.parameters / student.size.parameters
    kept = qualities[0].retention
    promises = _promises(config.expected, compression, success, promised, kept) if config else ()

    comet = None
    if comet_model is not None:
        scores = comet_scores(comet_model, sentences.sources, sentences.references, [teacher_texts, student_texts])
        comet = CometScores(model=comet_model.name, teacher=scores[0], student=scores[1])

    def sample(row: int) -> dict[str, Any]:
        return {
            "source": sentences.sources[row],
            "references": tuple(sentences.references[row]),
            "teacher": teacher_texts[row],
            "student": student_texts[row],
            "failure": failures[row],
        }

    def classes(values: Sequence[float], edges: Sequence[int]) -> tuple[QualityClass, ...]:
        return quality_by(values, edges, student_texts, teacher_texts, sentences.references, lang)

    return ReportCard(
        mtdistill_version=_version(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=config.preset if config else None,
        settings=_settings(config) if config else {},
        form=form,
        source_lang=test_set.source_lang,
        target_lang=lang,
        test_set=test_set.name,
        sentences=len(sentences),
        engine=f"{student.translator.engine} {student.translator.precision}",
        teacher=_model_card(teacher),
        student=_model_card(student),
        compression_ratio=compression,
        qualities=qualities,
        comet=comet,
        success=success,
        by_length=classes(list(map(word_count, sentences.sources)), LENGTH_EDGES),
        by_rarity=classes(test_set.rarest_piece, RARITY_EDGES) if test_set.rarest_piece is not None else (),
        worst=tuple(
            WorstSample(**sample(score.row), teacher_chrf=score.teacher_chrf, student_chrf=score.student_chrf)
            for score in worst_sentences(student_texts, teacher_texts, sentences.references)
        ),
        speed_ups=tuple(speed_ups),
        promised_speed_ups=len(promised),
        promises=promises,
        verdict=_verdict(promises, success, kept),
        samples=tuple(Sample(**sample(row)) for row in spread(len(sentences), SAMPLES)),
        training_seconds=training_seconds,
        time_budget_minutes=config.expected.time_budget_minutes if config else None,
        random_bleu=random_bleu,
    )


def _quality(
    beam: int,
    student: Sequence[Translation],
    teacher: Sequence[Translation],
    references: Sequence[Sequence[str]],
    target_lang: str,
) -> BeamQuality:
    ours, theirs = _texts(student), _texts(teacher)
    return BeamQuality(
        beam_size=beam,
        teacher=corpus_quality(theirs, references, target_lang),
        student=corpus_quality(ours, references, target_lang),
        retention=retention(ours, theirs, references, target_lang),
    )


def _texts(translations: Sequence[Translation]) -> list[str]:
    return [translation.text for translation in translations]


def _promises(
    expected: ExpectedConfig, compression: float, success: Success, speed_ups: Sequence[SpeedUp], kept: Retention
) -> tuple[Promise, ...]:
    measured: dict[PromiseName, float] = {
        "compression_ratio": compression,
        "success_rate": success.rate,
        "speed_up": min(each.ratio for each in speed_ups),
        "quality_retention": kept.ratio,
    }
    return tuple(
        Promise(name=name, expected=getattr(expected, name), measured=value, kept=value >= getattr(expected, name))
        for name, value in measured.items()
    )


def _verdict(promises: Sequence[Promise], success: Success, kept: Retention) -> Verdict:
    if min(success.rate, kept.ratio) < FAILED_BELOW:
        return "failed"
    if not promises:
        return "unpromised"
    return "kept" if all(promise.kept for promise in promises) else "missed"


def _model_card(model: Contestant) -> ModelCard:
    size = model.size
    return ModelCard(
        parameters=size.parameters,
        mib_float32=size.mib_float32,
        mib_float16=size.mib_float16,
        mib_int8=size.mib_int8,
        peak_memory_mib=model.peak_memory_mib,
    )


def _settings(config: RunConfig) -> dict[str, float | int | str | None]:
    return {
        "training.epochs": config.training.epochs,
        "training.learning_rate": config.training.learning_rate,
        "training.data_ratio": config.training.data_ratio,
        "kd.temperature": config.kd.temperature,
        "kd.alpha": config.kd.alpha,
        "kd.beta": config.kd.beta,
        "student.width": config.student.width,
        "student.width_ratio": config.student.width_ratio,
        "student.encoder_layers": config.student.encoder_layers,
        "student.decoder_layers": config.student.decoder_layers,
    }


def _version() -> str:
    try:
        return version("mtdistill")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
