"""Several students side by side, on a terminal and as a page.

Imported by report; imports its neighbours.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from rich.cells import chop_cells
from rich.console import Group, RenderableType
from rich.text import Text

from mtdistill.messages import tr
from mtdistill.report import wording
from mtdistill.report.card import ReportCard
from mtdistill.report.headlines import headlines
from mtdistill.report.html import write_page
from mtdistill.report.rendering import drawn
from mtdistill.report.tables import TextTable
from mtdistill.report.trade_off import (
    pareto_optimal,
    quality_against_size,
    quality_against_speed,
    student_point,
    teacher_point,
    tested_on,
)

PARETO = "★"
_NAME_WIDTH = 13  # cells of a terminal, of which a Chinese character takes two


def render_comparison(cards: Mapping[str, ReportCard]) -> RenderableType:
    """One row for each student, and what makes rows incomparable.

    Args:
        cards: one or more, by the name to show.
    """
    table = comparison_table(cards)
    narrow = replace(
        table,
        columns=(
            tr(en="student", zh="学生"),
            tr(en="para-\nmeters", zh="参数量"),
            "int8\nMiB",
            "BLEU",
            tr(en="retention\n(95 %)", zh="质量保留\n（95 %）"),
            tr(en="suc-\ncess", zh="成功率"),
            tr(en="speed\n-up", zh="加速"),
            tr(en="words\n/s", zh="词/秒"),
            tr(en="promises", zh="承诺"),
        ),
        rows=tuple((_wrapped(name), *cells) for name, *cells in table.rows),
    )
    notes = (Text(wording.plain(note), style="yellow") for note in _notes(cards))
    return Group(drawn(narrow), Text(f"\n{_legend()}", style="dim"), *notes)


def _wrapped(name: str) -> str:
    """A starred name in lines that leave room for the numbers, broken at hyphens where it has them."""
    words = textwrap.wrap(name[len(PARETO) :].lstrip(), _NAME_WIDTH) or [""]
    lines = [line for word in words for line in chop_cells(word, _NAME_WIDTH)]
    return "\n".join(f"{mark} {line}" for mark, line in zip_longest(name[:1], lines, fillvalue=" "))


def write_comparison_html(cards: Mapping[str, ReportCard], path: Path) -> None:
    """Write the comparison as a page: the table, quality against size and speed, and every promise.

    Args:
        cards: one or more, by the name to show.
        path: file to write.
    """
    points = [student_point(name, card) for name, card in cards.items()]
    usual = _usual_test_set(cards)
    points.sort(key=lambda point: point.test_set != usual)  # the plot takes the first one's as the usual
    best = pareto_optimal(points)
    shown = [
        replace(point, name=f"{PARETO} {point.name}") if point in best else replace(point, kind="other")
        for point in points
    ]
    shown.append(next(teacher_point(card) for card in cards.values() if tested_on(card) == usual))
    write_page(
        path,
        "compare.html.jinja",
        headlines={name: headlines(card) for name, card in cards.items()},
        table=comparison_table(cards),
        legend=_legend(),
        notes=_notes(cards),
        plots=[quality_against_size(shown, front=True), quality_against_speed(shown)],
    )


def comparison_table(cards: Mapping[str, ReportCard]) -> TextTable:
    """Sizes, scores and speed of each student; those that no other one beats are marked with a star and in bold."""
    points = {name: student_point(name, card) for name, card in cards.items()}
    best = pareto_optimal(list(points.values()))
    return TextTable(
        title="",
        columns=(
            tr(en="student", zh="学生"),
            tr(en="parameters", zh="参数量"),
            "MiB, int8",
            "BLEU",
            tr(en="retention, 95 % interval", zh="质量保留，95 % 区间"),
            tr(en="success rate", zh="成功率"),
            tr(en="speed-up", zh="加速比"),
            tr(en="source words/s", zh="源词/秒"),
            tr(en="promises", zh="承诺"),
        ),
        rows=tuple(
            (
                f"{PARETO if points[name] in best else ' '} {name}",
                wording.millions(card.student.parameters),
                f"{points[name].mib:.2f}",
                f"{points[name].bleu:.2f}",
                f"{wording.percent(card.quality.retention.ratio)}\n{wording.interval(card)}",
                wording.percent(card.success.rate),
                _speed_up(card),
                f"{points[name].words_per_second:.0f}",
                _short_verdict(card),
            )
            for name, card in cards.items()
        ),
        words=(0, 8),
        marked=frozenset(row for row, name in enumerate(cards) if points[name] in best),
    )


def _speed_up(card: ReportCard) -> str:
    return headlines(card)[2].measured


def _short_verdict(card: ReportCard) -> str:
    missed = sum(not promise.kept for promise in card.promises)
    return {
        "kept": tr(en="kept", zh="达标"),
        "missed": tr(en=f"{missed} missed", zh=f"未达标 {missed}"),
        "failed": tr(en="failed", zh="失败"),
        "unpromised": tr(en="none", zh="无"),
    }[card.verdict]


def _legend() -> str:
    return tr(
        en=f"{PARETO} no other student is as small, as good and as fast at once (int8 MiB, BLEU, words/s)",
        zh=f"{PARETO} 没有其他学生模型能同时在大小、质量和速度上都不逊于它（int8 MiB、BLEU、源词/秒）",
    )


def _usual_test_set(cards: Mapping[str, ReportCard]) -> tuple[str, int, str, str]:
    """The test set of most cards, of the first one in a tie."""
    return Counter(map(tested_on, cards.values())).most_common(1)[0][0]


def _notes(cards: Mapping[str, ReportCard]) -> list[str]:
    """What makes rows incomparable, one sentence each."""
    usual = _usual_test_set(cards)
    notes = [_other_test_set(name, card, usual) for name, card in cards.items() if tested_on(card) != usual]
    conditions = {(wording.condition(card.speed_ups[0]), card.speed_ups[0].cpu) for card in cards.values()}
    if len(conditions) > 1:
        found = "; ".join(sorted(f"{condition} ({cpu})" for condition, cpu in conditions))
        notes.append(
            tr(
                en=f"Words/s were measured under different conditions and cannot be compared: {found}.",
                zh=f"源词/秒的测量条件不同，不能相互比较：{found}。",
            )
        )
    if (
        len(
            {
                (card.teacher.parameters, card.quality.teacher.bleu)
                for card in cards.values()
                if tested_on(card) == usual
            }
        )
        > 1
    ):
        notes.append(
            tr(
                en="The teachers differ: retention, success rate and speed-up are relative to another teacher each.",
                zh="教师模型不同：质量保留、成功率和加速比各自相对于不同的教师。",
            )
        )
    return notes


def _other_test_set(name: str, card: ReportCard, usual: tuple[str, int, str, str]) -> str:
    def described(test_set: tuple[str, int, str, str]) -> str:
        files, sentences, source, target = test_set
        return tr(
            en=f"{files}, {sentences} sentences {source}→{target}", zh=f"{files}，{source}→{target}，{sentences} 句"
        )

    return tr(
        en=f"{name} was tested on something else ({described(tested_on(card))}; the others: {described(usual)}): "
        "its scores cannot be compared with theirs.",
        zh=f"{name} 的测试集不同（{described(tested_on(card))}；其他：{described(usual)}），其分数不能与其他学生比较。",
    )
