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


def test_where_nothing_was_promised_there_is_nothing_to_say(
    unpromised_card: ReportCard, make_card: MakeCard, failed_card: ReportCard
) -> None:
    assert advice(unpromised_card) == []
    assert advice(make_card(promises=(), settings={}, success=failed_card.success, verdict="failed")) == []


def test_a_failed_training_gets_one_answer_with_the_numbers(failed_card: ReportCard) -> None:
    (text,) = advice(failed_card)
    for part in ("Training failed", "2.0 %", "0.02", "24.31", "Lower training.learning_rate (now 0.002)",
                 "raise kd.temperature (now 3.0)", "same text as for others (1461 sentences, 98.0 %)"):  # fmt: skip
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
    success = Success(0.4, 0.55, {}, {}, {}, {})
    (text,) = advice(make_card(promises=changed(good_card, "success_rate", 0.4), verdict="missed", success=success))
    assert "The teacher itself passes the output checks on only 55.0 %" in text


def test_the_weakest_sentences_and_the_main_failure_are_named(missed_card: ReportCard) -> None:
    text = advice(missed_card)[0]
    assert "Least is kept on sources of ≥ 20 words (BLEU 14.0, teacher 25.0)" in text
    assert "The most frequent failure: far below the teacher (176 sentences, 11.8 %)" in text


def test_one_class_of_lengths_is_no_weakness(good_card: ReportCard, make_card: MakeCard) -> None:
    missed = changed(good_card, "success_rate", 0.4)
    (text,) = advice(make_card(promises=missed, verdict="missed", by_length=good_card.by_length[:1]))
    assert "Least is kept" not in text


@pytest.mark.parametrize(("student", "may_be_chance"), [(16.88, True), (14.88, False)])
def test_a_miss_within_the_interval_may_be_chance(
    student: float, may_be_chance: bool, good_card: ReportCard, make_card: MakeCard, make_quality: Callable[..., Any]
) -> None:
    promises = changed(good_card, "quality_retention", student / 24.31)
    (text,) = advice(make_card(promises=promises, verdict="missed", qualities=(make_quality(1, 24.31, student),)))
    assert ("may be chance" in text) == may_be_chance
    assert ("the 95 % interval of the share of BLEU reaches up to 72.1 %" in text) == may_be_chance


def test_too_slow_names_the_slowest_promised_condition(missed_card: ReportCard) -> None:
    text = advice(missed_card)[1]
    for part in ("Too slow: 1.32x", "2x expected", "CTranslate2 float32, 1 thread(s), batch 1, beam 1",
                 "6.00 ms a sentence, teacher 7.92 ms", "student.decoder_layers, now 3", "student.width_ratio (now 0.6)",
                 ):  # fmt: skip
        assert part in text
    assert "PyTorch" not in text  # slower still, and not promised


def test_too_large_gives_both_sizes(missed_card: ReportCard) -> None:
    text = advice(missed_card)[2]
    for part in ("Too large: 2.10x", "2.5x expected", "3.54 M parameters of 8.88 M", "student.width_ratio (now 0.6)",
                 "student.encoder_layers, now all of the teacher's"):  # fmt: skip
        assert part in text


def test_the_width_that_is_in_force_is_named(missed_card: ReportCard) -> None:
    card = missed_card.model_copy(update={"settings": {**missed_card.settings, "student.width": 64}})
    assert all("ower student.width (now 64)" in text for text in advice(card)[1:3])


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
