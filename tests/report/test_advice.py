from collections.abc import Callable
from typing import Any

import pytest

from mtdistill import messages
from mtdistill.evaluation import Success
from mtdistill.report import Promise, ReportCard, advice

MakeCard = Callable[..., ReportCard]


def changed(card: ReportCard, name: str, measured: float) -> tuple[Promise, ...]:
    return tuple(
        promise.model_copy(update={"measured": measured, "kept": False}) if promise.name == name else promise
        for promise in card.promises
    )


def test_nothing_to_say_where_everything_is_kept(good_card: ReportCard) -> None:
    assert advice(good_card) == []


def test_a_failed_training_gets_one_answer_with_the_numbers(failed_card: ReportCard) -> None:
    (text,) = advice(failed_card)
    for part in ("Training failed", "2.0 %", "0.02", "24.31", "Lower training.learning_rate (now 0.002)",
                 "raise kd.temperature (now 3.0)"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("name", ["success_rate", "quality_retention"])
def test_poor_quality_asks_for_epochs_and_other_weights(good_card: ReportCard, make_card: MakeCard, name: str) -> None:
    (text,) = advice(make_card(promises=changed(good_card, name, 0.412), verdict="missed"))
    for part in ("41.2 %", "training.epochs, now 3", "kd.alpha (now 0.7)", "kd.beta (now 0.3)", "Only 10 %"):
        assert part in text
    assert "better teacher" not in text


def test_data_is_only_asked_for_where_some_is_left(good_card: ReportCard, make_card: MakeCard) -> None:
    settings: dict[str, Any] = {**good_card.settings, "training.data_ratio": 1.0}
    (text,) = advice(make_card(promises=changed(good_card, "success_rate", 0.4), verdict="missed", settings=settings))
    assert "data_ratio" not in text


def test_a_teacher_below_the_promise_is_named(good_card: ReportCard, make_card: MakeCard) -> None:
    success = Success(0.4, 0.55, {}, {})
    (text,) = advice(make_card(promises=changed(good_card, "success_rate", 0.4), verdict="missed", success=success))
    assert "The teacher itself passes the output checks on only 55.0 %" in text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("speed_up", ("Too slow: 1.32x", "2x expected", "student.decoder_layers", "student.width_ratio (now 0.6)")),
        ("compression_ratio", ("Too large: 1.32x", "2.5x expected", "student.width_ratio (now 0.6)")),
    ],
)
def test_other_misses_have_their_own_answer(
    good_card: ReportCard, make_card: MakeCard, name: str, parts: tuple[str, ...]
) -> None:
    (text,) = advice(make_card(promises=changed(good_card, name, 1.32), verdict="missed"))
    assert all(part in text for part in parts)


def test_quality_comes_first(missed_card: ReportCard) -> None:
    assert [text.split(":")[0] for text in advice(missed_card)] == ["Quality is too low", "Too slow", "Too large"]


def test_chinese_gives_the_same_numbers(missed_card: ReportCard, failed_card: ReportCard) -> None:
    messages.set_language("zh")
    texts = advice(missed_card)
    assert [text.split("：")[0] for text in texts] == ["质量不足", "速度不足", "模型过大"]
    assert "41.2 %" in texts[0]
    assert "1.32" in texts[1]
    assert "2.10" in texts[2]
    assert "训练失败" in advice(failed_card)[0]
