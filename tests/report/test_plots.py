import math
import re
from typing import Any

import pytest

from mtdistill import messages
from mtdistill.report import ReportCard
from mtdistill.report.plots import class_plot, failure_plot, training_plots

METRICS: list[dict[str, Any]] = [
    {"update": 12, "epoch": 0.5, "loss": 0.8, "kd_loss": 0.3, "gold_loss": 1.9, "learning_rate": 0.002},
    {"update": 24, "epoch": 1.0, "loss": 0.6, "kd_loss": 0.2, "gold_loss": 1.5, "learning_rate": 0.001},
    {"update": 24, "epoch": 1.0, "eval_bleu": 19.2, "eval_chrf": 35.9, "eval_success_rate": 0.892},
    {"update": 48, "epoch": 2.0, "eval_bleu": 21.07, "eval_chrf": 38.1, "eval_success_rate": 0.926},
    {"update": 48, "epoch": 2.0, "train_runtime": 39.0, "train_loss": 0.45},
]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_training_is_shown_in_four_plots() -> None:
    plots = training_plots(METRICS)
    assert [plot.title for plot in plots] == [
        "Training loss", "Validation scores", "Validation success rate, %", "Learning rate",
    ]  # fmt: skip
    assert plots[0].description == "loss: 0.8 → 0.6; KD: 0.3 → 0.2; gold text: 1.9 → 1.5"
    assert plots[1].description == "BLEU: 19.2 → 21.1; chrF2: 35.9 → 38.1"
    assert plots[2].description == "success rate: 89.2 → 92.6"
    assert {"loss", "KD", "gold text", "epoch"} <= set(texts(plots[0].svg))


def test_only_what_was_logged_is_shown() -> None:
    assert [plot.title for plot in training_plots(METRICS[2:])] == ["Validation scores", "Validation success rate, %"]
    assert training_plots([]) == []


@pytest.mark.parametrize("broken", [math.nan, math.inf, None, "x"])
def test_what_is_no_number_is_left_out(broken: object) -> None:
    (plot, *_) = training_plots([*METRICS[:2], {"epoch": 1.5, "loss": broken}, {"epoch": broken, "loss": 9.9}])
    assert plot.description.startswith("loss: 0.8 → 0.6;")


def test_classes_stand_side_by_side(good_card: ReportCard) -> None:
    plot = class_plot(good_card.by_length, "Quality by length", "words")
    assert {"&lt; 5", "5–8", "≥ 20", "words", "BLEU", "teacher", "student", "30", "14"} <= set(texts(plot.svg))
    assert "≥ 20: 25.0 / 14.0" in plot.description
    assert plot.svg.count("var(--plot-student)") >= 6


def test_failures_of_both_models_stand_side_by_side(good_card: ReportCard) -> None:
    plot = failure_plot(good_card)
    assert {"repeats itself", "far below the teacher", "copies the source", "0.8", "3.7", "11.8"} <= set(
        texts(plot.svg)
    )
    assert texts(plot.svg).count("–") == 1  # the teacher is not compared with itself
    assert "repeats itself: 3.7 / 0.8" in plot.description


def test_plots_speak_chinese(good_card: ReportCard) -> None:
    messages.set_language("zh")
    assert {"循环重复", "教师", "学生"} <= set(texts(failure_plot(good_card).svg))
    assert "标准译文" in texts(training_plots(METRICS)[0].svg)
