"""Checks on what a student writes, on made-up evaluations."""

from typing import Any

import pytest

from mtdistill.health import outputs
from mtdistill.health.outputs import Outputs
from mtdistill.output_checks import CHECKS

SOURCES = [f"第{number}句" for number in range(100)]
GOOD = [f"This is sentence number {number}." for number in range(100)]


def evaluation(texts: list[str] | None = None, **changes: Any) -> Outputs:
    values: dict[str, Any] = {"success_rate": 0.95, "failures": {}, "teacher_failures": {}, **changes}
    return Outputs(SOURCES, texts or GOOD, **values)


def test_a_good_evaluation_is_silent() -> None:
    seen = evaluation(failures={"loop": 5, "length_cap": 8}, teacher_failures={"loop": 2})
    assert outputs.success_under_half(seen) is None
    assert outputs.one_output(seen) is None
    assert outputs.one_token(seen) is None
    assert not any(outputs.failing_check(seen, check) for check in CHECKS)


def test_success_under_half() -> None:
    assert outputs.success_under_half(evaluation(success_rate=0.49)) == {"rate": 0.49, "limit": 0.5}


def test_one_sentence_for_all_is_named() -> None:
    found = outputs.one_output(evaluation(["I do not know.", "i do not know"] * 30 + GOOD[:40]))
    assert found is not None
    assert found[0]["share"] == pytest.approx(0.6)
    assert "know" in found[1]


def test_few_sentences_say_nothing_about_repetition() -> None:
    few = Outputs(SOURCES[:10], ["Yes."] * 10, 1.0, {}, {})
    assert outputs.one_output(few) is None


def test_one_word_over_and_over_is_named() -> None:
    found = outputs.one_token(evaluation(["the the the the the"] * 30 + GOOD[:70]))
    assert found is not None
    assert found[1] == "the the the the the"
    assert outputs.one_token(evaluation(["no no no"] * 100)) is None  # three may be meant


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_fails_often_is_an_alarm(check: str) -> None:
    found = outputs.failing_check(evaluation(failures={check: 30}, teacher_failures={check: 2}), check)
    assert found is not None
    assert found["rate"] == pytest.approx(0.3)
    assert found["teacher_rate"] == pytest.approx(0.02)


def test_a_teacher_that_fails_often_itself_raises_the_limit() -> None:
    seen = evaluation(failures={"length_cap": 30}, teacher_failures={"length_cap": 20})
    assert outputs.failing_check(seen, "length_cap") is None


def test_a_rate_just_above_the_limit_may_be_chance() -> None:
    assert outputs.failing_check(evaluation(failures={"copy": 12}), "copy") is None


@pytest.mark.parametrize(
    ("successes", "trials", "expected"), [(0, 50, 0.0), (50, 50, 0.9487), (10, 50, 0.1237), (0, 0, 0.0)]
)
def test_lower_bound_agrees_with_wilson(successes: int, trials: int, expected: float) -> None:
    assert outputs.lower_bound(successes, trials) == pytest.approx(expected, abs=2e-3)
