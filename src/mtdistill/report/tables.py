"""The tables of a report card as plain text: what a terminal and a browser draw, each in its own way.

Imported by report.comparison, report.html and report.rendering; imports evaluation, report.card, report.headlines and
report.wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mtdistill.evaluation import QualityClass, SpeedUp
from mtdistill.messages import tr
from mtdistill.report.card import ModelCard, ReportCard
from mtdistill.report.headlines import headlines
from mtdistill.report.wording import (
    class_name,
    engine_name,
    millions,
    milliseconds,
    percent,
    span,
    threads,
    times,
    words_per_second,
)


@dataclass(frozen=True)
class TextTable:
    """Cells as text.

    Attributes:
        title: what the table is about; empty where a heading already says it.
        columns: their headings.
        rows: one text for each column.
        words: numbers of the columns that hold words, on the left; the others hold numbers, on the right.
        marked: numbers of the rows that stand out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    marked: frozenset[int] = frozenset()


def headline_table(card: ReportCard) -> TextTable:
    """The four numbers a student is judged by; the rows of missed promises are marked."""
    found = headlines(card)
    expected = tr(en="expected", zh="预期") if card.promises else ""
    return TextTable(
        title="",
        columns=("", expected, tr(en="measured", zh="实测"), "", ""),
        rows=tuple((each.title, each.expected, each.measured, each.state, each.remark) for each in found),
        words=(0, 3, 4),
        marked=frozenset(row for row, each in enumerate(found) if each.kept is False),
    )


def model_table(card: ReportCard) -> TextTable:
    """Size of both models."""
    models = {tr(en="teacher", zh="教师"): card.teacher, tr(en="student", zh="学生"): card.student}
    with_memory = any(model.peak_memory_mib is not None for model in models.values())

    def row(name: str, model: ModelCard) -> tuple[str, ...]:
        sizes = (f"{mib:.1f}" for mib in (model.mib_float32, model.mib_float16, model.mib_int8))
        memory = "–" if model.peak_memory_mib is None else f"{model.peak_memory_mib:.0f}"
        return name, millions(model.parameters), *sizes, *([memory] if with_memory else [])

    memory = [tr(en="peak memory", zh="内存峰值")] if with_memory else []
    return TextTable(
        title=tr(en="Models, MiB", zh="模型（MiB）"),
        columns=("", tr(en="parameters", zh="参数量"), "float32", "float16", "int8", *memory),
        rows=tuple(row(name, model) for name, model in models.items()),
    )


def quality_table(card: ReportCard) -> TextTable:
    """Scores of both models by beam size, then COMET and the random baseline where there are any."""
    rows = [
        (
            tr(en=f"beam {each.beam_size}", zh=f"束宽 {each.beam_size}"),
            f"{each.teacher.bleu:.2f}",
            f"{each.student.bleu:.2f}",
            percent(each.retention.ratio),
            span(100 * each.retention.low, 100 * each.retention.high, 1),
            f"{each.teacher.chrf:.1f}",
            f"{each.student.chrf:.1f}",
        )
        for each in card.qualities
    ]
    if card.random_bleu is not None:
        rows.append((tr(en="random start", zh="随机初始化"), "", f"{card.random_bleu:.2f}", "", "", "", ""))
    teacher, student = tr(en="teacher", zh="教师"), tr(en="student", zh="学生")
    return TextTable(
        title=tr(en="Quality", zh="质量"),
        columns=(
            "",
            f"BLEU\n{teacher}",
            f"BLEU\n{student}",
            tr(en="retention", zh="保留"),
            tr(en="95 %\ninterval", zh="95 %\n区间"),
            f"chrF2\n{teacher}",
            f"chrF2\n{student}",
        ),
        rows=tuple(rows),
    )


def comet_line(card: ReportCard) -> str:
    """COMET of both models in a line; empty where it was not measured."""
    if card.comet is None:
        return ""
    scores, model = (f"{card.comet.teacher:.1f}", f"{card.comet.student:.1f}"), card.comet.model
    return tr(
        en=f"COMET: teacher {scores[0]}, student {scores[1]} ({model})",
        zh=f"COMET：教师 {scores[0]}，学生 {scores[1]}（{model}）",
    )


def length_table(card: ReportCard) -> TextTable:
    """Quality by the length of the source."""
    return _class_table(card.by_length, tr(en="By length", zh="按长度"), tr(en="words", zh="词数"))


def rarity_table(card: ReportCard) -> TextTable:
    """Quality by how often the rarest piece of the source stands in training."""
    return _class_table(card.by_rarity, tr(en="By rarest piece", zh="按最罕见词元"), tr(en="seen", zh="次数"))


def _class_table(classes: Sequence[QualityClass], title: str, kind: str) -> TextTable:
    return TextTable(
        title=title,
        columns=(
            kind,
            tr(en="count", zh="句数"),
            tr(en="teacher", zh="教师"),
            tr(en="student", zh="学生"),
            tr(en="kept", zh="保留"),
        ),
        rows=tuple(
            (
                class_name(each.low, each.high),
                str(each.sentences),
                f"{each.teacher_bleu:.1f}",
                f"{each.student_bleu:.1f}",
                percent(each.student_bleu / each.teacher_bleu, 0) if each.teacher_bleu else "–",
            )
            for each in classes
        ),
    )


def speed_table(card: ReportCard) -> TextTable:
    """Every measured condition; those that the promise is held against are marked."""
    return TextTable(
        title=tr(en="Speed", zh="速度"),
        columns=(
            tr(en="engine and number format", zh="引擎与数值格式"),
            tr(en="threads", zh="线程"),
            tr(en="batch", zh="批大小"),
            tr(en="beam", zh="束宽"),
            tr(en="teacher, ms per sentence", zh="教师（毫秒/句）"),
            tr(en="student, ms per sentence", zh="学生（毫秒/句）"),
            tr(en="speed-up", zh="加速比"),
            tr(en="smallest to largest", zh="最小至最大"),
            tr(en="student, median / 95 % latency in ms", zh="学生延迟中位数 / 95 % 分位（毫秒）"),
            tr(en="student, source words/s", zh="学生（源词/秒）"),
            tr(en="student, target tokens/s", zh="学生（目标词元/秒）"),
        ),
        rows=tuple(map(_speed_row, card.speed_ups)),
        marked=frozenset(range(card.promised_speed_ups if card.promises else 0)),
    )


def _speed_row(speed: SpeedUp) -> tuple[str, ...]:
    student = speed.student
    latency = ""
    if student.latency_ms is not None and student.latency_p95_ms is not None:
        latency = f"{student.latency_ms:.1f}/{student.latency_p95_ms:.1f}"
    return (
        engine_name(speed),
        threads(speed),
        str(speed.batch_size),
        str(speed.beam_size),
        milliseconds(speed, speed.teacher),
        milliseconds(speed, student),
        times(speed.ratio),
        span(speed.low, speed.high, 1 if speed.high >= 10 else 2),
        latency,
        f"{words_per_second(speed, student):.0f}",
        f"{student.target_tokens / student.seconds:.0f}",
    )
