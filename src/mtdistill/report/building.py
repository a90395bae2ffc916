"""Measure a student against its teacher and its promises."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from mtdistill.config import ExpectedConfig, RunConfig
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import Translator
from mtdistill.evaluation import (
    ModelSize,
    Quality,
    Retention,
    SpeedUp,
    Success,
    corpus_quality,
    measure_speed,
    retention,
    success_rate,
)
from mtdistill.messages import tr
from mtdistill.output_checks import check_translations
from mtdistill.report.card import ModelCard, Promise, PromiseName, ReportCard, Sample, Verdict

SAMPLES = 10
# Sentences of a timed run by batch size: about a second of teacher time each in CTranslate2 on one core.
SPEED_SENTENCES = {32: 256, 1: 48}
SPEED_REPEATS = 5
# Under this share of correct translations, or of the teacher's BLEU, training has failed and a promise is not the
# question. From the presets, whose lowest promises are 0.6 and 0.7: a guess, far below anything that worked.
FAILED_BELOW = 0.1


def build_report(
    student: Translator,
    teacher: Translator,
    sentences: EvaluationSet,
    config: RunConfig,
    *,
    student_size: ModelSize,
    teacher_size: ModelSize,
    target_lang: str,
    engines: Sequence[tuple[Translator, Translator]] = (),
    beam_size: int = 1,
    training_seconds: float | None = None,
    random_bleu: float | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> ReportCard:
    """Translate a test set with both models, time them, and hold the result against the preset.

    Args:
        student: translates the test set.
        teacher: likewise; same engine and precision, so that quality compares the models alone.
        sentences: the test set, 1 sentence or more.
        config: settings of the run; the promises and what the advice refers to are read from it.
        student_size: parameters of the student.
        teacher_size: parameters of the teacher.
        target_lang: language of the translations.
        engines: (student, teacher) pairs to time. The first is the headline: timed at batch 32 and at batch 1, and
            the slower of both ratios is held against the promise. The others are timed at batch 32. Default: the
            translators above.
        beam_size: of all translations; speed is measured with it too.
        training_seconds: how long training took, if it was part of this run.
        random_bleu: BLEU of the same budget from random weights, if it was measured.
        say: called with a line of progress before each part.
    """
    say(tr(en=f"translating {len(sentences)} test sentences", zh=f"正在翻译 {len(sentences)} 个测试句"))
    teacher_translations = teacher.translate(sentences.sources, beam_size=beam_size)
    student_translations = student.translate(sentences.sources, beam_size=beam_size)
    teacher_texts = [translation.text for translation in teacher_translations]
    student_texts = [translation.text for translation in student_translations]
    kept = retention(student_texts, teacher_texts, sentences.references, target_lang)
    success = success_rate(
        sentences.sources, student_translations, teacher_translations, sentences.references, target_lang
    )
    failures = check_translations(sentences.sources, student_translations, target_lang=target_lang)
    speed_ups = _speed_ups(engines or [(student, teacher)], sentences.sources, beam_size, say)
    compression = teacher_size.parameters / student_size.parameters
    promises = _promises(config.expected, compression, success, speed_ups, kept)
    return ReportCard(
        mtdistill_version=_version(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=config.preset,
        settings=_settings(config),
        source_lang=student.source_lang,
        target_lang=target_lang,
        sentences=len(sentences),
        beam_size=beam_size,
        engine=f"{student.engine} {student.precision}",
        teacher=_model_card(teacher_size, corpus_quality(teacher_texts, sentences.references, target_lang)),
        student=_model_card(student_size, corpus_quality(student_texts, sentences.references, target_lang)),
        compression_ratio=compression,
        retention=kept,
        success=success,
        speed_ups=tuple(speed_ups),
        promises=promises,
        verdict=_verdict(promises, success, kept),
        samples=tuple(
            Sample(
                source=sentences.sources[row],
                references=tuple(sentences.references[row]),
                teacher=teacher_texts[row],
                student=student_texts[row],
                failure=failures[row],
            )
            for row in _spread(len(sentences), SAMPLES)
        ),
        training_seconds=training_seconds,
        time_budget_minutes=config.expected.time_budget_minutes,
        random_bleu=random_bleu,
    )


def _speed_ups(
    engines: Sequence[tuple[Translator, Translator]], sources: Sequence[str], beam_size: int, say: Callable[[str], None]
) -> list[SpeedUp]:
    speed_ups = []
    for place, (student, teacher) in enumerate(engines):
        for batch_size, count in SPEED_SENTENCES.items():
            if place and batch_size == 1:
                continue
            name = f"{student.engine} {student.precision}"
            say(tr(en=f"measuring speed: {name}, batch {batch_size}", zh=f"正在测速：{name}，批大小 {batch_size}"))
            timed = [sources[row] for row in _spread(len(sources), count)]
            speed_ups.append(
                measure_speed(
                    student, teacher, timed, batch_size=batch_size, beam_size=beam_size, repeats=SPEED_REPEATS
                )
            )
    return speed_ups


def _promises(
    expected: ExpectedConfig, compression: float, success: Success, speed_ups: Sequence[SpeedUp], kept: Retention
) -> tuple[Promise, ...]:
    headline = speed_ups[: len(SPEED_SENTENCES)]
    measured: dict[PromiseName, float] = {
        "compression_ratio": compression,
        "success_rate": success.rate,
        "speed_up": min(each.ratio for each in headline),
        "quality_retention": kept.ratio,
    }
    return tuple(
        Promise(name=name, expected=getattr(expected, name), measured=value, kept=value >= getattr(expected, name))
        for name, value in measured.items()
    )


def _verdict(promises: Sequence[Promise], success: Success, kept: Retention) -> Verdict:
    if min(success.rate, kept.ratio) < FAILED_BELOW:
        return "failed"
    return "kept" if all(promise.kept for promise in promises) else "missed"


def _model_card(size: ModelSize, quality: Quality) -> ModelCard:
    return ModelCard(
        parameters=size.parameters,
        mib_float32=size.mib_float32,
        mib_float16=size.mib_float16,
        mib_int8=size.mib_int8,
        quality=quality,
    )


def _settings(config: RunConfig) -> dict[str, float | int | str | None]:
    return {
        "training.epochs": config.training.epochs,
        "training.learning_rate": config.training.learning_rate,
        "training.data_ratio": config.training.data_ratio,
        "kd.temperature": config.kd.temperature,
        "kd.alpha": config.kd.alpha,
        "kd.beta": config.kd.beta,
        "student.width_ratio": config.student.width_ratio,
        "student.encoder_layers": config.student.encoder_layers,
        "student.decoder_layers": config.student.decoder_layers,
    }


def _spread(count: int, wanted: int) -> list[int]:
    """At most this many of the row numbers, evenly over the whole set."""
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]


def _version() -> str:
    try:
        return version("mtdistill")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
