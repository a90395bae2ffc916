"""The plots of one report card: how training went, quality by kind of sentence, failures.

Imported by report.html; imports evaluation, report.card, report.svg and report.wording.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from mtdistill.evaluation import QualityClass
from mtdistill.evaluation.success import FAR_BELOW_TEACHER
from mtdistill.messages import tr
from mtdistill.report.card import ReportCard
from mtdistill.report.svg import COLOURS, Plot, add_legend, drawing, finished, new_figure, text_width
from mtdistill.report.wording import check_name, class_name, failed_checks, shortened

_FEW_POINTS = 30  # of a curve, which are then shown one by one


def training_plots(metrics: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Loss, validation scores, success rate and learning rate over the epochs; those that were logged.

    Args:
        metrics: the lines of a run's ``metrics.jsonl``.
    """
    loss, divergence, gold = tr(en="loss", zh="总损失"), tr(en="KD", zh="蒸馏"), tr(en="gold text", zh="标准译文")
    success, rate = tr(en="success rate", zh="成功率"), tr(en="learning rate", zh="学习率")
    wanted = [
        (tr(en="Training loss", zh="训练损失"), {"loss": loss, "kd_loss": divergence, "gold_loss": gold}, 1),
        (tr(en="Validation scores", zh="验证分数"), {"eval_bleu": "BLEU", "eval_chrf": "chrF2"}, 1),
        (tr(en="Validation success rate, %", zh="验证成功率（%）"), {"eval_success_rate": success}, 100),
        (tr(en="Learning rate", zh="学习率"), {"learning_rate": rate}, 1),
    ]
    plots = []
    for title, names, factor in wanted:
        curves = {label: _curve(metrics, name, factor) for name, label in names.items()}
        curves = {label: curve for label, curve in curves.items() if curve}
        if curves:
            plots.append(_curves(title, curves))
    return plots


def class_plot(classes: Sequence[QualityClass], title: str, kind: str) -> Plot:
    """BLEU of teacher and student side by side for each class of sentences.

    Args:
        classes: one or more.
        title: of the plot.
        kind: what the sentences are classed by.
    """
    names = [class_name(each.low, each.high) for each in classes]
    bars = {"teacher": [each.teacher_bleu for each in classes], "student": [each.student_bleu for each in classes]}
    with drawing(title):
        figure, axes = new_figure()
        for (model, values), offset in zip(bars.items(), (-0.2, 0.2), strict=True):
            places = [place + offset for place in range(len(classes))]
            axes.bar(places, values, width=0.38, label=_model_name(model), color=COLOURS[model])
            for spot in zip(places, values, strict=True):
                axes.annotate(f"{spot[1]:.0f}", spot, (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(range(len(classes)), names, fontsize=8)
        axes.tick_params(length=0)
        axes.margins(y=0.09)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(kind)
        axes.set_ylabel("BLEU")
        add_legend(axes)
        return finished(figure, title, _in_words(names, bars))


def failure_plot(card: ReportCard) -> Plot:
    """Share of the sentences that fail each check, the teacher's beside the student's; one check or more."""
    checks = failed_checks(card)
    names = [shortened(check_name(check), 30) for check in checks]
    counts = {"teacher": card.success.teacher_failures, "student": card.success.failures}
    bars = {
        model: [100 * failures.get(check, 0) / card.sentences for check in checks] for model, failures in counts.items()
    }
    title = tr(en="Failed translations, % of all", zh="失败的译文（占全部的 %）")
    with drawing(title):
        figure, axes = new_figure(height=72 + 30 * len(checks), left=12 + max(text_width(name, 9) for name in names))
        for (model, values), offset in zip(bars.items(), (-0.2, 0.2), strict=True):
            places = [place + offset for place in range(len(checks))]
            axes.barh(places, values, height=0.38, label=_model_name(model), color=COLOURS[model])
            for check, spot in zip(checks, zip(values, places, strict=True), strict=True):
                compared_with_itself = model == "teacher" and check == FAR_BELOW_TEACHER
                text = "–" if compared_with_itself else f"{spot[0]:.1f}"
                axes.annotate(text, spot, (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(checks)), names)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        add_legend(axes)
        return finished(figure, title, _in_words(names, bars))


def _curve(metrics: Sequence[Mapping[str, Any]], name: str, factor: float) -> list[tuple[float, float]]:
    rows = [(row.get("epoch"), row.get(name)) for row in metrics]
    return [(epoch, factor * value) for epoch, value in rows if _is_finite(epoch) and _is_finite(value)]


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _curves(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Plot:
    with drawing(title):
        figure, axes = new_figure()
        for (label, curve), colour in zip(curves.items(), ("student", "teacher", "accent"), strict=False):
            marker = "o" if len(curve) <= _FEW_POINTS else ""
            axes.plot(*zip(*curve, strict=True), label=label, color=COLOURS[colour], marker=marker, markersize=3.5)
        axes.set_xlabel(tr(en="epoch", zh="轮"))
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
        axes.ticklabel_format(axis="y", scilimits=(-2, 5), useOffset=False)
        if len(curves) > 1:
            add_legend(axes)
        ends = (f"{label}: {curve[0][1]:.3g} → {curve[-1][1]:.3g}" for label, curve in curves.items())
        return finished(figure, title, "; ".join(ends))


def _model_name(model: str) -> str:
    return tr(en="teacher", zh="教师") if model == "teacher" else tr(en="student", zh="学生")


def _in_words(names: Sequence[str], bars: Mapping[str, Sequence[float]]) -> str:
    models = " / ".join(map(_model_name, bars))
    rows = zip(*bars.values(), strict=True)
    pairs = (f"{name}: {' / '.join(f'{value:.1f}' for value in row)}" for name, row in zip(names, rows, strict=True))
    return f"{models}; {'; '.join(pairs)}"
