"""The four numbers a student is judged by, with what was promised of them, if anything was.

Imported by report.comparison, report.html and report.tables; imports report.card and report.wording.
"""

from dataclasses import dataclass

from mtdistill.messages import tr
from mtdistill.report.card import PromiseName, ReportCard
from mtdistill.report.wording import interval, millions, percent, times


@dataclass(frozen=True)
class Headline:
    """One of the four numbers, as text.

    Attributes:
        title: what it is.
        measured: its value.
        expected: what was promised; empty where nothing was.
        kept: the promise holds; None where there is none.
        remark: what one must know to judge it.
    """

    title: str
    measured: str
    expected: str
    kept: bool | None
    remark: str

    @property
    def state(self) -> str:
        """In one word whether the promise holds; empty where there is none."""
        return {True: tr(en="kept", zh="达标"), False: tr(en="missed", zh="未达标"), None: ""}[self.kept]

    @property
    def kind(self) -> str:
        """The state as a name that depends on no language."""
        return {True: "kept", False: "missed", None: "unpromised"}[self.kept]


def headlines(card: ReportCard) -> list[Headline]:
    """Compression, success rate, speed-up and quality retention, in this order."""
    measured: dict[PromiseName, float] = {
        "compression_ratio": card.compression_ratio,
        "success_rate": card.success.rate,
        "speed_up": min(speed.ratio for speed in card.speed_ups[: card.promised_speed_ups] or card.speed_ups[:1]),
        "quality_retention": card.quality.retention.ratio,
    }
    return [_headline(card, name, value) for name, value in measured.items()]


def _headline(card: ReportCard, name: PromiseName, value: float) -> Headline:
    promise = next((promise for promise in card.promises if promise.name == name), None)
    share = name in ("success_rate", "quality_retention")  # in percent; the others are factors
    expected = ""
    if promise is not None:
        value = promise.measured
        expected = f"{100 * promise.expected:g} %" if share else f"{promise.expected:g}x"
    return Headline(
        title=_title(name),
        measured=percent(value) if share else times(value),
        expected=expected,
        kept=promise.kept if promise else None,
        remark=_remark(card, name),
    )


def _title(name: PromiseName) -> str:
    return {
        "compression_ratio": tr(en="Compression", zh="压缩比"),
        "success_rate": tr(en="Success rate", zh="成功率"),
        "speed_up": tr(en="Speed-up", zh="加速比"),
        "quality_retention": tr(en="Quality retention", zh="质量保留"),
    }[name]


def _remark(card: ReportCard, name: PromiseName) -> str:
    if name == "success_rate":
        ceiling = percent(card.success.teacher_rate)
        return tr(en=f"teacher's ceiling {ceiling}", zh=f"教师上限 {ceiling}")
    if name == "quality_retention":
        return tr(en=f"95 % interval {interval(card)}", zh=f"95 % 区间 {interval(card)}")
    if name == "speed_up":
        count = max(card.promised_speed_ups, 1)
        return tr(en=f"slowest of {count} conditions", zh=f"{count} 种条件中最慢的一种")
    return f"{millions(card.teacher.parameters)} → {millions(card.student.parameters)}"
