import re
from dataclasses import replace
from itertools import combinations

import pytest

from mtdistill.report import ReportCard
from mtdistill.report.trade_off import (
    Point,
    pareto_optimal,
    quality_against_size,
    quality_against_speed,
    student_point,
    teacher_point,
)

TEST = ("test", 1491, "zh", "en")


def point(
    name: str, mib: float, bleu: float, words: float = 1000.0, test_set: tuple[str, int, str, str] = TEST
) -> Point:
    return Point(name, mib, bleu, words, test_set, "student")


def placed(svg: str) -> dict[str, tuple[float, float]]:
    """Where labels are anchored, by name."""
    found = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg)
    return {name: (float(x), float(y)) for x, y, name in found}


def test_points_hold_the_numbers_of_the_card(good_card: ReportCard) -> None:
    student, teacher = student_point("mine", good_card), teacher_point(good_card)
    assert (student.name, student.bleu, student.words_per_second) == ("mine", 22.17, pytest.approx(2000))
    assert (teacher.bleu, teacher.words_per_second) == (24.31, pytest.approx(2000 / 2.31))
    assert student.mib == good_card.student.mib_int8
    assert teacher.mib == good_card.teacher.mib_int8
    assert student.test_set == TEST
    assert (
        student.condition
        == teacher.condition
        == ("CTranslate2 float32, 1 thread(s), batch 32, beam 1", good_card.speed_ups[0].cpu)
    )


class TestPareto:
    def test_what_is_worse_in_everything_is_beaten(self) -> None:
        best, worse = point("best", 3, 20, 900), point("worse", 4, 19, 800)
        assert pareto_optimal([worse, best]) == [best]

    @pytest.mark.parametrize("change", [{"mib": 3.1}, {"bleu": 19.9}, {"words_per_second": 899}])
    def test_what_is_worse_in_one_thing_and_better_in_none_is_beaten(self, change: dict[str, float]) -> None:
        best = point("best", 3, 20, 900)
        assert pareto_optimal([best, replace(best, name="worse", **change)]) == [best]  # type: ignore[arg-type]

    @pytest.mark.parametrize("change", [{"mib": 2.9}, {"bleu": 20.1}, {"words_per_second": 901}])
    def test_one_advantage_is_enough(self, change: dict[str, float]) -> None:
        first = point("first", 3, 20, 900)
        second = replace(point("second", 4, 19, 800), **change)  # type: ignore[arg-type]
        assert pareto_optimal([first, second]) == [first, second]

    def test_equals_do_not_beat_each_other(self) -> None:
        assert len(pareto_optimal([point("a", 3, 20), point("b", 3, 20)])) == 2

    def test_speeds_of_other_conditions_count_for_nothing(self) -> None:
        slow = replace(point("slow", 3, 20, 100), condition=("batch 1", "old processor"))
        assert pareto_optimal([slow, point("fast", 3, 20, 200)]) == [slow, point("fast", 3, 20, 200)]
        smaller = point("smaller", 2, 20, 50)
        assert pareto_optimal([slow, smaller]) == [smaller]

    def test_no_one_is_beaten_on_another_test_set(self) -> None:
        elsewhere = point("elsewhere", 4, 1, 1, test_set=("news", 10, "zh", "en"))
        assert elsewhere in pareto_optimal([point("best", 3, 20), elsewhere])


def test_every_model_is_named_and_described() -> None:
    points = [point("small", 2, 18, 1500), point("large", 5, 22, 700)]
    for plot in (quality_against_size(points), quality_against_speed(points)):
        assert {"small", "large"} <= set(placed(plot.svg))
        assert "small: 2.0 MiB, BLEU 18.0, 1500 words/s" in plot.description


def test_larger_and_better_is_further_right_and_up() -> None:
    places = placed(quality_against_size([point("small", 2, 18, 1500), point("large", 5, 22, 700)]).svg)
    assert places["large"][0] > places["small"][0]
    assert places["large"][1] < places["small"][1]  # SVG counts from the top
    by_speed = placed(quality_against_speed([point("small", 2, 18, 1500), point("large", 5, 22, 700)]).svg)
    assert by_speed["large"][0] < by_speed["small"][0]


def test_names_do_not_cover_each_other() -> None:
    points = [point(f"distillation-{n}", 3 + 0.1 * n, 20 + 0.05 * n) for n in range(4)] + [point("far", 9, 25)]
    svg = quality_against_size(points).svg
    boxes = []
    for style, x, y, name in re.findall(r'<text style="([^"]*)" x="([\d.]+)" y="([\d.]+)"[^>]*>(dist[^<]*)<', svg):
        shift = 1.0 if "anchor: end" in style else 0.5 if "anchor: middle" in style else 0.0
        width = 5 * len(name)  # at the size of 8.5 points
        boxes.append((float(x) - shift * width, float(x) + (1 - shift) * width, float(y)))
    assert len(boxes) == 4
    for one, other in combinations(boxes, 2):
        beside = one[1] <= other[0] or other[1] <= one[0]
        assert beside or abs(one[2] - other[2]) >= 8


def test_another_test_set_is_hollow() -> None:
    elsewhere = replace(point("elsewhere", 3, 19), test_set=("news", 10, "zh", "en"))
    here = quality_against_size([point("a", 2, 18), point("b", 3, 19)]).svg
    both = quality_against_size([point("a", 2, 18), elsewhere]).svg
    assert both.count("fill: none") > here.count("fill: none")


def test_the_front_joins_the_best_of_each_size() -> None:
    points = [point("a", 2, 18), point("b", 3, 20), point("beaten", 4, 19), point("c", 5, 21)]
    with_front, without = quality_against_size(points, front=True).svg, quality_against_size(points).svg
    dashed = re.findall(r'<path d="([^"]*)"[^>]*stroke-dasharray', with_front)
    assert "stroke-dasharray" not in without
    assert len(dashed) == 1
    assert dashed[0].count("L") == 4  # two steps between three points


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_single_point_is_drawn(value: float) -> None:
    assert "only" in placed(quality_against_size([point("only", value, value, value or 1.0)], front=True).svg)


def test_sentences_without_a_word_are_drawn() -> None:
    silent = [point("one", 2, 18, 0.0), point("two", 3, 19, 0.0)]
    assert {"one", "two"} <= placed(quality_against_size(silent).svg).keys()


def test_a_name_is_no_markup() -> None:
    svg = quality_against_size([point("<b>$x$", 2, 18)]).svg
    assert "&lt;b&gt;$x$</text>" in svg
    assert "<b>" not in svg
