"""The report card on a terminal, made for 80 columns, in either language.

Every text from data or models is wrapped in `Text`, because brackets in a string would be taken for markup.
"""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtdistill.evaluation import SpeedUp
from mtdistill.messages import tr
from mtdistill.report.advice import advice, percent
from mtdistill.report.card import ModelCard, Promise, ReportCard

SAMPLES_SHOWN = 5


def render(card: ReportCard) -> RenderableType:
    """The whole card: verdict, promises, models, speed, failures, samples, advice, and conditions."""
    return Group(*_parts(card))


def _parts(card: ReportCard) -> Iterator[RenderableType]:
    yield _title(card)
    yield _promise_table(card)
    yield _model_table(card)
    yield _speed_table(card.speed_ups)
    if card.success.failures:
        yield _failure_table(card)
    yield _sample_table(card)
    paragraphs = advice(card)
    if paragraphs:
        yield _heading(tr(en="What to do", zh="建议"))
        for paragraph in paragraphs:
            yield Padding(Text(f"- {paragraph}"), (0, 2, 0, 2))
    yield _conditions(card)


def _title(card: ReportCard) -> Text:
    missed = [promise for promise in card.promises if not promise.kept]
    verdict = {
        "kept": tr(en="every promise is kept", zh="全部达标"),
        "missed": tr(
            en=f"{len(missed)} of {len(card.promises)} promises missed",
            zh=f"{len(card.promises)} 项中 {len(missed)} 项未达标",
        ),
        "failed": tr(en="training failed", zh="训练失败"),
    }[card.verdict]
    heading = tr(en="Report card", zh="成绩单")
    return Text.assemble(
        (f"{heading} · {card.preset} · {card.source_lang}→{card.target_lang}: ", "bold"),
        (verdict, "bold green" if card.keeps_promises else "bold red"),
    )


def _promise_table(card: ReportCard) -> Table:
    table = _table(None, "", tr(en="expected", zh="预期"), tr(en="measured", zh="实测"), "", "")
    names = {
        "compression_ratio": tr(en="Compression", zh="压缩比"),
        "success_rate": tr(en="Success rate", zh="成功率"),
        "speed_up": tr(en="Speed-up", zh="加速比"),
        "quality_retention": tr(en="Quality retention", zh="质量保留"),
    }
    low, high = (f"{100 * end:.1f}" for end in (card.retention.low, card.retention.high))
    remarks = {
        "success_rate": tr(
            en=f"teacher's ceiling {percent(card.success.teacher_rate)}",
            zh=f"教师上限 {percent(card.success.teacher_rate)}",
        ),
        "quality_retention": tr(en=f"95 % interval {low}–{high}", zh=f"95% 区间 {low}–{high}"),
    }
    for promise in card.promises:
        kept = tr(en="kept", zh="达标") if promise.kept else tr(en="missed", zh="未达标")
        table.add_row(
            names[promise.name],
            _promised(promise, promise.expected, digits=0),
            _promised(promise, promise.measured),
            Text(kept, style="green" if promise.kept else "red"),
            remarks.get(promise.name, ""),
        )
    return table


def _promised(promise: Promise, value: float, digits: int = 1) -> str:
    if promise.name in ("success_rate", "quality_retention"):
        return percent(value, digits)
    return f"{value:.{digits + 1}f}x"


def _model_table(card: ReportCard) -> Table:
    parameters, mib = tr(en="parameters", zh="参数量"), tr(en="MiB float32 / int8", zh="MiB float32 / int8")
    table = _table(tr(en="Models", zh="模型"), "", parameters, mib, "BLEU", "chrF2")

    def row(name: str, model: ModelCard) -> None:
        sizes = f"{model.mib_float32:.1f} / {model.mib_int8:.1f}"
        quality = model.quality
        table.add_row(name, f"{model.parameters / 1e6:.2f} M", sizes, f"{quality.bleu:.2f}", f"{quality.chrf:.1f}")

    row(tr(en="teacher", zh="教师"), card.teacher)
    row(tr(en="student", zh="学生"), card.student)
    if card.random_bleu is not None:
        table.add_row(tr(en="student, random start", zh="学生（随机初始化）"), "", "", f"{card.random_bleu:.2f}", "")
    return table


def _speed_table(speed_ups: Sequence[SpeedUp]) -> Table:
    teacher, student = tr(en="teacher", zh="教师"), tr(en="student", zh="学生")
    table = _table(
        tr(en="Speed, ms per sentence", zh="速度（毫秒/句）"),
        "",
        tr(en="batch", zh="批大小"),
        teacher,
        student,
        tr(en="speed-up", zh="加速比"),
        tr(en="range", zh="范围"),
    )
    for speed in speed_ups:
        ours, theirs = (
            f"{speed.student_engine} {speed.student_precision}",
            f"{speed.teacher_engine} {speed.teacher_precision}",
        )
        name = theirs if speed.same_conditions else f"{theirs}\n→ {ours}"
        table.add_row(
            name,
            str(speed.batch_size),
            f"{1000 * speed.teacher_seconds / speed.sentences:.2f}",
            f"{1000 * speed.student_seconds / speed.sentences:.2f}",
            f"{speed.ratio:.2f}x",
            f"{speed.low:.2f}–{speed.high:.2f}",
        )
    return table


def _failure_table(card: ReportCard) -> Table:
    title = tr(en="Translations that failed", zh="失败的译文")
    table = _table(title, tr(en="check", zh="检查"), tr(en="count", zh="数量"), tr(en="example", zh="例子"), left=(2,))
    for check, count in card.success.failures.items():
        example = card.success.examples[check][0]
        table.add_row(
            _check_name(check),
            f"{count} ({percent(count / card.sentences)})",
            Text(f"{example.source}\n→ {_shortened(example.hypothesis, 80)}"),
        )
    return table


def _check_name(check: str) -> str:
    names = {
        "empty": tr(en="empty", zh="空译文"),
        "failure_marker": tr(en="failure marker", zh="失败标记"),
        "length_cap": tr(en="runs into the length cap", zh="达到长度上限"),
        "loop": tr(en="repeats itself", zh="循环重复"),
        "copy": tr(en="copies the source", zh="照抄原文"),
        "wrong_script": tr(en="wrong script", zh="文字错误"),
        "same_output": tr(en="same text as for others", zh="与多句译文相同"),
        "far_below_teacher": tr(en="far below the teacher", zh="远逊于教师"),
    }
    return names.get(check, check)


def _sample_table(card: ReportCard) -> Table:
    table = Table(
        title=tr(en="Samples", zh="译文样例"), title_justify="left", title_style="bold", box=None, show_header=False
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for number, sample in enumerate(card.samples[:SAMPLES_SHOWN]):
        if number:
            table.add_row("", "")
        student = Text(_shortened(sample.student))
        if sample.failure:
            student.append(f" ({_check_name(sample.failure)})", style="red")
        table.add_row(tr(en="source", zh="原文"), Text(sample.source))
        table.add_row(tr(en="reference", zh="参考"), Text(sample.references[0]))
        table.add_row(tr(en="teacher", zh="教师"), Text(_shortened(sample.teacher)))
        table.add_row(tr(en="student", zh="学生"), student)
    return table


def _conditions(card: ReportCard) -> RenderableType:
    speed = card.speed_ups[0]
    lines = [
        tr(
            en=f"{card.sentences} test sentences, {card.engine}, beam {card.beam_size}; speed: {speed.repeats} paired "
            f"runs, {speed.student_threads} thread(s), {speed.cpu}",
            zh=f"{card.sentences} 个测试句，{card.engine}，束宽 {card.beam_size}；测速：{speed.repeats} 次成对运行，"
            f"{speed.student_threads} 线程，{speed.cpu}",
        ),
        f"BLEU {card.student.quality.bleu_signature}",
        f"chrF2 {card.student.quality.chrf_signature}",
    ]
    if card.training_seconds is not None:
        minutes = card.training_seconds / 60
        lines.append(
            tr(
                en=f"training: {minutes:.1f} minutes of {card.time_budget_minutes:g} allowed",
                zh=f"训练用时 {minutes:.1f} 分钟，预算 {card.time_budget_minutes:g} 分钟",
            )
        )
    return Padding(Text("\n".join(lines), style="dim"), (1, 0, 0, 0))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _table(title: str | None, *columns: str, left: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        is_text = place == 0 or place in left or not column
        table.add_column(column, justify="left" if is_text else "right", overflow="fold", header_style="dim")
    return table


def _shortened(text: str, limit: int = 200) -> str:
    """A text that may be a loop of hundreds of tokens."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
