"""The ladder and the adaptive clip."""

import random

import pytest

from mtdistill.health.recovery import (
    FORGIVEN_AFTER,
    MAX_RETURNS,
    MAX_SKIPS_IN_A_ROW,
    REWARM_UPDATES,
    AdaptiveClip,
    Ladder,
)


def test_bad_updates_are_skipped_until_they_are_too_many_in_a_row() -> None:
    ladder = Ladder()
    assert [ladder.bad_update() for _ in range(MAX_SKIPS_IN_A_ROW)] == ["skip"] * (MAX_SKIPS_IN_A_ROW - 1) + ["return"]


def test_a_good_update_in_between_starts_the_count_again() -> None:
    ladder = Ladder()
    steps = []
    for update in range(50):
        steps.append(ladder.bad_update())
        ladder.good_update(update)
    assert set(steps) == {"skip"}


def test_every_return_lowers_the_rate_and_then_it_ends() -> None:
    ladder = Ladder()
    rates = []
    while ladder.failure() == "return":
        ladder.returned(failed_at=100, to=60)
        rates.append(ladder.rate)
    assert rates == [1 / 4, 1 / 16, 1 / 64]
    assert len(rates) == MAX_RETURNS
    assert ladder.failure() == "stop"


def test_a_return_need_not_lower_the_rate() -> None:
    ladder = Ladder()
    ladder.returned(failed_at=100, to=60, lower_rate=False)
    assert (ladder.rate, ladder.returns) == (1.0, 1)


def test_a_long_good_stretch_forgives() -> None:
    ladder = Ladder()
    ladder.returned(failed_at=100, to=60)
    ladder.good_update(100 + FORGIVEN_AFTER)
    assert ladder.returns == 1
    ladder.good_update(101 + FORGIVEN_AFTER)
    assert ladder.returns == 0


def test_the_rate_rises_again_after_a_return() -> None:
    ladder = Ladder()
    assert ladder.rate_factor(10) == 1
    ladder.returned(failed_at=100, to=60)
    factors = [ladder.rate_factor(update) for update in range(60, 60 + REWARM_UPDATES + 5)]
    assert factors[0] == pytest.approx(1 / REWARM_UPDATES)
    assert factors == sorted(factors)
    assert factors[REWARM_UPDATES - 1 :] == [1.0] * 6


def test_usual_gradients_keep_what_they_are_allowed() -> None:
    draw, clip = random.Random(1), AdaptiveClip()
    limits = [clip.limit(draw.uniform(0.2, 0.3), 1.0) for _ in range(200)]
    assert set(limits) == {1.0}


def test_a_gradient_that_stands_out_is_cut_to_about_what_is_usual() -> None:
    draw, clip = random.Random(1), AdaptiveClip()
    for _ in range(100):
        clip.limit(draw.uniform(0.2, 0.3), 1.0)
    assert 0.2 < clip.limit(0.9, 1.0) < 0.5
    # The further out, the closer to the mean.
    assert clip.limit(50.0, 1.0) < clip.limit(0.6, 1.0) < 0.6


def test_one_outlier_does_not_change_what_is_usual() -> None:
    draw, clip = random.Random(1), AdaptiveClip()
    for _ in range(100):
        clip.limit(draw.uniform(0.2, 0.3), 1.0)
    before = clip.mean
    clip.limit(1000.0, 1.0)
    assert clip.mean == pytest.approx(before, rel=0.05)
