"""The report card as one HTML file that needs nothing else: no network, no scripts, plots inside.

The words are those of the terminal; the looks stand in ``page.html.jinja`` and ``page.css``. Every value is escaped by
jinja2, except plots, whose texts matplotlib and svg.py escape. Imported by report and report.comparison; imports health
and its neighbours.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtdistill.files import write_atomically
from mtdistill.health.finding import Finding
from mtdistill.health.wording import explain
from mtdistill.messages import language, tr
from mtdistill.report import tables, wording
from mtdistill.report.advice import advice
from mtdistill.report.card import ReportCard
from mtdistill.report.headlines import headlines
from mtdistill.report.plots import class_plot, failure_plot, training_plots
from mtdistill.report.svg import Plot
from mtdistill.report.trade_off import quality_against_size, quality_against_speed, student_point, teacher_point


def write_html(
    card: ReportCard,
    path: Path,
    *,
    metrics: Sequence[Mapping[str, Any]] = (),
    findings: Sequence[Finding] | None = None,
    others: Mapping[str, ReportCard] = {},
) -> None:
    """Write a report card as a page, in the language of the messages.

    Args:
        card: what was measured.
        path: file to write.
        metrics: the lines of the run's ``metrics.jsonl``, for the training curves; none: no curves.
        findings: what the health checks found in the run; None: nobody looked.
        others: cards of other students by name, shown beside this one.
    """
    points = [
        student_point(tr(en="this student", zh="本学生"), card),
        teacher_point(card),
        *(student_point(name, other, kind="other") for name, other in others.items()),
    ]
    write_page(
        path,
        "report.html.jinja",
        card=card,
        headlines=headlines(card),
        advice=advice(card),
        training_plots=training_plots(metrics),
        health=None if findings is None else _by_kind(findings),
        class_plots=_class_plots(card),
        failure_plots=[failure_plot(card)] if wording.failed_checks(card) else [],
        trade_off_plots=[quality_against_size(points), quality_against_speed(points)],
    )


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill a template of this package and write the page."""
    page = _environment().get_template(template).render(language="zh-CN" if language() == "zh" else "en", **values)
    write_atomically(path, page.encode("utf-8", "replace"))  # the name of a folder may hold what UTF-8 cannot say


def _by_kind(findings: Sequence[Finding]) -> list[tuple[Finding, int, int]]:
    """The first of each kind, how often it came, and when last; in order of their first appearance."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.check, finding.action), []).append(finding)
    return [(found[0], len(found), found[-1].update) for found in kinds.values()]


def _class_plots(card: ReportCard) -> list[Plot]:
    words = tr(en="words of the source", zh="原文词数")
    seen = tr(en="occurrences in training of the rarest piece", zh="最罕见词元在训练数据中的次数")
    wanted = [
        (card.by_length, tr(en="Quality by length", zh="质量与长度"), words),
        (card.by_rarity, tr(en="Quality by rarity", zh="质量与罕见程度"), seen),
    ]
    return [class_plot(classes, title, kind) for classes, title, kind in wanted if classes]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mtdistill", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(tr=tr, wording=wording, tables=tables, explain=explain)
    environment.filters["svg"] = _svg
    return environment


def _svg(plot: Plot) -> Markup:
    return Markup(plot.svg)
