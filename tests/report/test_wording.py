import dataclasses
from collections.abc import Callable

import pytest

from mtdistill import messages
from mtdistill.evaluation import SpeedUp
from mtdistill.report import ReportCard, wording

MakeCard = Callable[..., ReportCard]
MakeSpeedUp = Callable[..., SpeedUp]


@pytest.mark.parametrize(("ratio", "text"), [(1.804, "1.80x"), (9.994, "9.99x"), (22.44, "22.4x")])
def test_a_factor_has_three_digits(ratio: float, text: str) -> None:
    assert wording.times(ratio) == text


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0, 5, "< 5"), (5, 8, "5–8"), (20, None, "≥ 20"), (0, None, "≥ 0")]
)  # fmt: skip
def test_a_class_is_named_by_its_ends(low: int, high: int | None, text: str) -> None:
    assert wording.class_name(low, high) == text


def test_engines_and_threads_are_named_once_where_they_agree(make_speed_up: MakeSpeedUp) -> None:
    assert wording.engine_name(make_speed_up(2.0, 32)) == "CTranslate2 float32"
    deployed = make_speed_up(22.4, 32, student="int8", engine="PyTorch", threads=2)
    assert wording.engine_name(deployed) == "PyTorch float32 → CTranslate2 int8"
    assert wording.threads(deployed) == "2"


def test_speed_is_per_sentence_and_per_second(make_speed_up: MakeSpeedUp) -> None:
    speed = make_speed_up(2.0, 32, student_ms=4.0)  # 256 sentences of 8 words
    assert wording.milliseconds(speed, speed.teacher) == "8.00"
    assert wording.words_per_second(speed, speed.student) == pytest.approx(2000)
    assert wording.words_per_second(speed, speed.teacher) == pytest.approx(1000)


def test_the_teacher_is_not_compared_with_itself(good_card: ReportCard) -> None:
    checks = wording.failed_checks(good_card)
    assert checks == ["loop", "wrong_script", "far_below_teacher", "copy"]
    assert [wording.teacher_failures(good_card, check) for check in checks] == ["55 (3.7 %)", "0", "–", "3 (0.2 %)"]
    assert [wording.student_failures(good_card, check) for check in checks] == [
        "12 (0.8 %)", "1 (0.1 %)", "176 (11.8 %)", "0",
    ]  # fmt: skip


def test_conditions_say_how_everything_was_measured(good_card: ReportCard) -> None:
    found = dict(wording.conditions(good_card))
    assert found["test set"] == "test, 1491 sentences"
    assert found["second tries"] == "of the student 46, of the teacher 22, where the first looped or did not end"
    assert found["speed"] == "median of 5 paired runs, tokenisation included"
    assert found["interval"] == "paired bootstrap, 1000 samples, seed 1"
    assert found["training"] == "12.6 minutes of 15 allowed"
    assert found["measured"] == "2026-11-24 08:00 UTC, mtdistill 0.1.0"
    assert found["BLEU"].endswith("version:2.6.0")


def test_some_are_timed_in_fewer_pairs_of_runs(make_card: MakeCard, make_speed_up: MakeSpeedUp) -> None:
    alone = dataclasses.replace(make_speed_up(2.0, 1), repeats=2)
    found = dict(wording.conditions(make_card(speed_ups=(make_speed_up(2.0, 32), alone))))
    assert found["speed"] == "median of 2 to 5 paired runs, tokenisation included"


def test_what_was_not_trained_here_has_no_time(make_card: MakeCard) -> None:
    assert "training" not in dict(wording.conditions(make_card(training_seconds=None)))
    assert dict(wording.conditions(make_card(time_budget_minutes=None)))["training"] == "12.6 minutes"


def test_a_model_of_no_preset_has_a_title_and_a_verdict(unpromised_card: ReportCard) -> None:
    assert wording.title(unpromised_card) == "Report card · zh→en"
    assert wording.verdict(unpromised_card) == "measured, nothing was promised"


def test_every_check_has_a_name_in_both_languages(good_card: ReportCard) -> None:
    from mtdistill.evaluation.success import FAILURES

    for lang in ("en", "zh"):
        messages.set_language(lang)  # type: ignore[arg-type]
        names = [wording.check_name(check) for check in FAILURES]
        assert not set(names) & (set(FAILURES) - {"empty"})
        assert len(set(names)) == len(FAILURES)
