"""The report card on a terminal, made for 80 columns, in either language.

Every text from data or models goes through `plain`: brackets in a string would be taken for markup, and control
characters would reach the terminal.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtdistill.evaluation import FailedExample
from mtdistill.messages import colon, tr
from mtdistill.report import wording
from mtdistill.report.advice import advice
from mtdistill.report.card import ReportCard, Sample, WorstSample
from mtdistill.report.tables import (
    TextTable,
    comet_line,
    headline_table,
    length_table,
    model_table,
    quality_table,
    rarity_table,
    speed_table,
)
from mtdistill.report.wording import plain

SAMPLES_SHOWN = 5
WORST_SHOWN = 5
_LONGEST = 200  # characters of a translation, which may be a loop of hundreds of tokens
_LONGEST_EXAMPLE = 60
_VERDICT_STYLES = {"kept": "bold green", "missed": "bold red", "failed": "bold red", "unpromised": "bold"}
_UNBROKEN = 14  # cells; a word column that is no wider is not folded


def render(card: ReportCard) -> RenderableType:
    """The whole card: verdict, promises, models, quality, speed, failures, sentences, advice, and conditions."""
    return Group(*_parts(card))


def _parts(card: ReportCard) -> Iterator[RenderableType]:
    yield Text.assemble(
        (f"{plain(wording.title(card))}{colon()}", "bold"),
        (wording.verdict(card), _VERDICT_STYLES[card.verdict]),
    )
    yield _headlines(card)
    yield drawn(model_table(card))
    yield drawn(quality_table(card))
    if card.comet is not None:
        yield Text(plain(comet_line(card)), style="dim")
    yield _side_by_side([table for table in (length_table(card), rarity_table(card)) if table.rows])
    yield from _speed(card)
    if wording.failed_checks(card):
        yield _failures(card)
    if card.worst:
        title = tr(en="Furthest behind the teacher (sentence chrF2)", zh="与教师差距最大的句子（句级 chrF2）")
        yield _sentences(title, card.worst[:WORST_SHOWN])
    yield _sentences(tr(en="Samples", zh="译文样例"), card.samples[:SAMPLES_SHOWN])
    paragraphs = advice(card)
    if paragraphs:
        yield _heading(tr(en="What to do", zh="建议"))
        for paragraph in paragraphs:
            yield Padding(Text(f"- {plain(paragraph)}"), (0, 2, 0, 2))
    yield _conditions(card)


def drawn(table: TextTable) -> RenderableType:
    """A table of texts for a terminal, under its title."""
    grid = _grid(table)
    for number, row in enumerate(table.rows):
        cells = (Text("\n".join(map(plain, cell.split("\n")))) for cell in row)
        grid.add_row(*cells, style="bold" if number in table.marked else None)
    return Group(_heading(table.title), grid) if table.title else grid


def _grid(table: TextTable) -> Table:
    """Headings without rows. Short words and numbers are never broken; headings are, at the spaces they have."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = tuple(zip(*table.rows, strict=True)) or ((),) * len(table.columns)
    for number, (heading, cells) in enumerate(zip(table.columns, columns, strict=True)):
        parts = [*heading.split(), *(line for cell in cells for line in cell.split("\n"))]
        widest = max(map(cell_len, parts), default=0)
        grid.add_column(
            heading,
            justify="left" if number in table.words else "right",
            min_width=widest if number not in table.words or widest <= _UNBROKEN else None,
            overflow="fold",
            header_style="dim",
        )
    return grid


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _headlines(card: ReportCard) -> Table:
    table = headline_table(card)
    grid = _grid(table)
    for row, (*cells, state, remark) in enumerate(table.rows):
        grid.add_row(*cells, Text(state, style="red" if row in table.marked else "green"), Text(remark, style="dim"))
    return grid


def _side_by_side(tables: Sequence[TextTable]) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(*map(drawn, tables))
    return grid


def _speed(card: ReportCard) -> Iterator[RenderableType]:
    """One line for each condition under a line for each engine, because engine and numbers do not fit side by side."""
    table = speed_table(card)
    headings = (
        "",
        tr(en="thr", zh="线程"),
        tr(en="batch", zh="批"),
        tr(en="beam", zh="束宽"),
        tr(en="teacher", zh="教师"),
        tr(en="student", zh="学生"),
        tr(en="ratio", zh="加速"),
        tr(en="range", zh="范围"),
        tr(en="p50/p95", zh="中位/95%"),
        tr(en="words/s", zh="源词/秒"),
        tr(en="tokens/s", zh="词元/秒"),
    )
    lines = [("●" if row in table.marked else "", *cells[1:]) for row, cells in enumerate(table.rows)]
    widths = [max(map(cell_len, column)) for column in zip(headings, *lines, strict=True)]
    heading = _heading(tr(en="Speed, ms per sentence", zh="速度（毫秒/句）"))
    if table.marked:
        heading.append(tr(en="   ● held against the promise", zh="   ● 与承诺比较的条件"), "not bold dim")
    yield heading
    yield _line(headings, widths, "dim")
    by_engine = sorted(zip(table.rows, lines, strict=True), key=lambda both: _first_row(table, both[0][0]))
    for engine, group in groupby(by_engine, key=lambda both: both[0][0]):
        yield Text(plain(engine))
        for _, line in group:
            yield _line(line, widths, "bold" if line[0] else "")


def _first_row(table: TextTable, engine: str) -> int:
    return next(number for number, row in enumerate(table.rows) if row[0] == engine)


def _line(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    padded = (" " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True))
    return Text(" ".join(padded), style=style)


def _failures(card: ReportCard) -> RenderableType:
    success = card.success
    return drawn(
        TextTable(
            title=tr(en="Translations that failed", zh="失败的译文"),
            columns=(
                tr(en="check", zh="检查"),
                tr(en="student", zh="学生"),
                tr(en="teacher", zh="教师"),
                tr(en="example", zh="例子"),
            ),
            rows=tuple(
                (
                    wording.check_name(check),
                    wording.student_failures(card, check),
                    wording.teacher_failures(card, check),
                    _example((*success.examples.get(check, ()), *success.teacher_examples.get(check, ()))),
                )
                for check in wording.failed_checks(card)
            ),
            words=(0, 3),
        )
    )


def _example(examples: Sequence[FailedExample]) -> str:
    if not examples:
        return ""
    source, hypothesis = examples[0].source, examples[0].hypothesis
    return f"{wording.shortened(plain(source), _LONGEST_EXAMPLE)}\n→ {wording.shortened(plain(hypothesis), _LONGEST_EXAMPLE)}"


def _sentences(title: str, samples: Sequence[Sample]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for number, sample in enumerate(samples):
        if number:
            table.add_row("", "")
        teacher, student = Text(_cut(sample.teacher)), Text(_cut(sample.student))
        if isinstance(sample, WorstSample):
            teacher.append(f" ({sample.teacher_chrf:.0f})", style="dim")
            student.append(f" ({sample.student_chrf:.0f})", style="dim")
        if sample.failure:
            student.append(f" ({plain(wording.check_name(sample.failure))})", style="red")
        table.add_row(tr(en="source", zh="原文"), Text(_cut(sample.source)))
        table.add_row(tr(en="reference", zh="参考"), Text(_cut(sample.references[0])))
        table.add_row(tr(en="teacher", zh="教师"), teacher)
        table.add_row(tr(en="student", zh="学生"), student)
    return Group(_heading(title), table)


def _cut(text: str) -> str:
    return wording.shortened(plain(text), _LONGEST)


def _conditions(card: ReportCard) -> RenderableType:
    colon = tr(en=": ", zh="：")
    lines = (f"{name}{colon}{plain(value)}" for name, value in wording.conditions(card))
    return Padding(Text("\n".join(lines), style="dim"), (1, 0, 0, 0))
