"""What small and fast cost in quality: models as points, and those that no other one beats.

Imported by report.comparison and report.html; imports report.card, report.svg and report.wording.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mtdistill.messages import tr
from mtdistill.report.card import ReportCard
from mtdistill.report.svg import COLOURS, Plot, drawing, finished, new_figure, text_width
from mtdistill.report.wording import condition, plain, shortened, words_per_second

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST = 220.0  # area of the fastest model's marker, in square points
_SMALLEST = 20.0
_LONGEST_NAME = 40  # characters
_LABEL_SIZE = 8.5
_GAPS = (2.0, 12.0)  # points between a marker and its name; the wide one where models crowd
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (1, 1), (-1, -1), (-1, 1))  # the first is the best of equals


@dataclass(frozen=True)
class Point:
    """A model among others.

    Attributes:
        mib: of the int8 weights.
        bleu: beam 1.
        words_per_second: source words, in the first condition of the card.
        test_set: only points of the same one can be compared.
        kind: decides the colour.
        condition: of the speed; only points of the same one are compared in it.
    """

    name: str
    mib: float
    bleu: float
    words_per_second: float
    test_set: tuple[str, int, str, str]
    kind: Literal["teacher", "student", "other"]
    condition: tuple[str, str] = ("", "")

    def beats(self, other: Point) -> bool:
        """At least as small, good and fast, and better in one of them; never across test sets.

        Speeds of different conditions say nothing about each other, and are left out.
        """
        pairs = [(-self.mib, -other.mib), (self.bleu, other.bleu)]
        if self.condition == other.condition:
            pairs.append((self.words_per_second, other.words_per_second))
        return self.test_set == other.test_set and all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def tested_on(card: ReportCard) -> tuple[str, int, str, str]:
    """What two cards must share for their scores to be comparable."""
    return card.test_set, card.sentences, card.source_lang, card.target_lang


def student_point(name: str, card: ReportCard, kind: Literal["student", "other"] = "student") -> Point:
    """The student of a card."""
    speed = card.speed_ups[0]
    words = words_per_second(speed, speed.student)
    name = shortened(plain(name), _LONGEST_NAME)
    measured = condition(speed), speed.cpu
    return Point(name, card.student.mib_int8, card.quality.student.bleu, words, tested_on(card), kind, measured)


def teacher_point(card: ReportCard) -> Point:
    """The teacher of a card."""
    speed = card.speed_ups[0]
    name, words = tr(en="teacher", zh="教师"), words_per_second(speed, speed.teacher)
    measured = condition(speed), speed.cpu
    return Point(name, card.teacher.mib_int8, card.quality.teacher.bleu, words, tested_on(card), "teacher", measured)


def pareto_optimal(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in size, BLEU and speed together."""
    return [point for point in points if not any(other.beats(point) for other in points)]


def quality_against_size(points: Sequence[Point], *, front: bool = False) -> Plot:
    """BLEU over MiB; the larger a marker, the faster the model. Models of another test set than the first are hollow.

    Args:
        points: one or more; no two of the same name.
        front: join the students that no smaller one equals.
    """
    title = tr(en="Quality against size", zh="质量与大小")
    with drawing(title):
        figure, axes = new_figure(top=10)
        axes.set_xlabel(tr(en="MiB, int8 (area: source words/s)", zh="MiB，int8（面积：源词/秒）"))
        places = [(point.mib, point.bleu) for point in points]
        if front:
            students = [point for point in points if point.kind != "teacher"]
            comparable = [point for point in students if point.test_set == students[0].test_set]
            steps = _front([(point.mib, point.bleu) for point in comparable])
            axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["ink"], linestyle=":", linewidth=1)
        _scatter(axes, points, places)
        return finished(figure, title, _in_words(points))


def quality_against_speed(points: Sequence[Point]) -> Plot:
    """BLEU over source words a second; the larger a marker, the larger the model."""
    title = tr(en="Quality against speed", zh="质量与速度")
    with drawing(title):
        figure, axes = new_figure(top=10)
        axes.set_xlabel(tr(en="source words/s (area: MiB)", zh="源词/秒（面积：MiB）"))
        places = [(point.words_per_second, point.bleu) for point in points]
        _scatter(axes, points, places, areas=[point.mib for point in points])
        return finished(figure, title, _in_words(points))


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that are better than every smaller one, smallest first."""
    best: list[tuple[float, float]] = []
    for mib, bleu in sorted(places, key=lambda place: (place[0], -place[1])):
        if not best or bleu > best[-1][1]:
            best.append((mib, bleu))
    return best


def _scatter(
    axes: Axes, points: Sequence[Point], places: Sequence[tuple[float, float]], areas: Sequence[float] | None = None
) -> None:
    values = areas or [point.words_per_second for point in points]
    largest = max(values) or 1.0  # 0 words a second: sentences without a letter or digit
    sizes = [max(_SMALLEST, _LARGEST * value / largest) for value in values]
    for point, (x, y), size in zip(points, places, sizes, strict=True):
        colour = COLOURS[point.kind]
        hollow = point.test_set != points[0].test_set
        face = "none" if hollow else colour
        axes.scatter(x, y, s=size, facecolors=face, edgecolors=colour, linewidths=1.4, alpha=0.85, zorder=3)
    axes.set_ylabel("BLEU")
    axes.margins(x=0.2, y=0.2)
    _label(axes, points, places, sizes)


def _label(axes: Axes, points: Sequence[Point], places: Sequence[tuple[float, float]], sizes: Sequence[float]) -> None:
    """Names beside the markers, each on the side where it covers least of what is there already."""
    axes.autoscale_view()
    figure = axes.get_figure()
    assert figure is not None
    in_points = 72 / figure.dpi
    left, right = in_points * axes.bbox.x0, in_points * axes.bbox.x1
    centres = [in_points * axes.transData.transform(place) for place in places]
    taken = [_Box(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, map(_radius, sizes), strict=True)]
    for point, place, (x, y), size in zip(points, places, centres, sizes, strict=True):
        width = text_width(point.name, _LABEL_SIZE)
        reaches = [_radius(size) + gap for gap in _GAPS]
        boxes = {(reach, side): _beside(x, y, side, reach, width) for reach in reaches for side in _SIDES}
        reach, side = best = min(boxes, key=lambda place: _cost(boxes[place], taken, left, right))
        axes.annotate(
            point.name,
            place,
            (side[0] * reach, side[1] * reach),
            textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[side[0]],
            va={1: "bottom", 0: "center", -1: "top"}[side[1]],
            fontsize=_LABEL_SIZE,
        )
        taken.append(boxes[best])


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0) * max(height, 0)


def _beside(x: float, y: float, side: tuple[int, int], reach: float, width: float) -> _Box:
    """Where a label ends up that is put on one side of a marker."""
    half = width / 2, _LABEL_SIZE / 2
    x, y = x + side[0] * (reach + half[0]), y + side[1] * (reach + half[1])
    return _Box(x - half[0], y - half[1], x + half[0], y + half[1])


def _radius(area: float) -> float:
    return math.sqrt(area / math.pi)


def _cost(box: _Box, taken: Sequence[_Box], left: float, right: float) -> float:
    """Covered area, and what would stick out of the plot as if it were covered."""
    outside = max(left - box.left, 0) + max(box.right - right, 0)
    return _LABEL_SIZE * outside + sum(box.overlap(other) for other in taken)


def _in_words(points: Sequence[Point]) -> str:
    words = tr(en="words/s", zh="词/秒")
    return "; ".join(
        f"{point.name}: {point.mib:.1f} MiB, BLEU {point.bleu:.1f}, {point.words_per_second:.0f} {words}"
        for point in points
    )
