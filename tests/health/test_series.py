"""Every check on numbers: one series that must raise an alarm, and ones that must not."""

import math
import random

import pytest

from mtdistill.health import series


def noisy(level: float, count: int, spread: float = 0.2, seed: int = 1) -> list[float]:
    """Losses of batches of short and long sentences."""
    draw = random.Random(seed)
    return [level * draw.uniform(1 - spread, 1 + spread) for _ in range(count)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_seen(value: float) -> None:
    assert series.non_finite(value) is not None
    assert series.non_finite(1e30) is None


def test_three_losses_far_above_the_others_are_a_spike_two_are_hard_batches() -> None:
    usual = noisy(1.0, 60)
    spike = series.loss_spike([*usual, 4.0, 4.0, 5.0])
    assert spike == pytest.approx({"loss": 5.0, "usual": 1.0, "limit": 2.0}, rel=0.6)
    assert series.loss_spike([*usual, 4.0, 4.0, 1.0]) is None
    assert series.loss_spike([*usual, 1.0, 5.0, 5.0]) is None
    assert series.loss_spike([1.0, 9.0, 9.0, 9.0]) is None  # nothing to compare with


def test_a_spike_lasts_longer_where_an_update_holds_few_tokens() -> None:
    usual, in_a_row = noisy(1.0, 60), series.updates_of_a_spike(tokens_per_update=190)
    assert in_a_row == 4
    assert series.loss_spike([*usual, 4.0, 5.0, 4.0, 5.0], in_a_row)
    assert series.loss_spike([*usual, 5.0, 4.0, 5.0], in_a_row) is None
    assert series.updates_of_a_spike(tokens_per_update=5000) == 3


def test_a_spike_of_the_past_does_not_raise_the_bar() -> None:
    assert series.loss_spike([*noisy(1.0, 40), 50.0, 60.0, *noisy(1.0, 5), 4.0, 4.0, 4.0])


@pytest.mark.parametrize(("level", "spread"), [(1.0, 0.5), (0.4, 0.3), (3.0, 0.05)])
def test_noise_of_any_size_is_no_spike(level: float, spread: float) -> None:
    losses = noisy(level, 500, spread)
    assert not any(series.loss_spike(losses[:count]) for count in range(500))


def test_a_gradient_ten_times_as_large_as_usual_explodes() -> None:
    past = noisy(0.3, 50)
    assert series.gradient_explosion(4.0, past, max_norm=1.0)
    assert series.gradient_explosion(2.0, past, max_norm=1.0) is None
    assert series.gradient_explosion(4.0, past[:10], max_norm=1.0) is None  # too early to say
    assert series.gradient_explosion(0.5, [0.01] * 50, max_norm=1.0) is None  # smaller than what is always allowed


def test_a_loss_that_stays_far_above_its_lowest_level_diverges() -> None:
    assert series.loss_diverging([*noisy(1.0, 50), *noisy(2.5, 20)], lowest=1.0)
    assert series.loss_diverging([*noisy(1.0, 50), *noisy(2.5, 5), *noisy(1.0, 15)], lowest=1.0) is None
    assert series.loss_diverging(noisy(2.5, 19), lowest=1.0) is None
    assert series.loss_diverging(noisy(2.5, 59), lowest=1.0, longer=3) is None
    assert series.loss_diverging(noisy(2.5, 60), lowest=1.0, longer=3)
    assert series.loss_diverging(noisy(2.5, 50), lowest=math.inf) is None
    assert series.loss_diverging(noisy(1.8, 50), lowest=1.0)
    assert series.loss_diverging([*noisy(1.0, 30), *noisy(1.9, 20)], lowest=1.0) is None  # long batches


def test_rounding_about_nothing_is_no_alarm() -> None:
    """A student that is the whole teacher, with the teacher alone to learn from."""
    nothing, rounding = [0.0] * 50, [1e-8, 3e-7, 2e-5] * 40
    assert series.loss_diverging(rounding, lowest=1e-8) is None
    assert series.loss_spike([*nothing, *rounding[:3]]) is None
    assert series.loss_spike([1e-8] * 60 + [3e-5] * 3) is None
    assert series.loss_not_falling([1e-8, 3e-5]) is None
    assert series.loss_oscillating([*nothing, *nothing]) is None
    assert series.loss_oscillating([*nothing, *rounding[:50]]) is None
    assert series.loss_diverging([0.1] * 50, lowest=1e-8)
    assert series.loss_not_falling([1e-8, 0.1])


def test_a_validation_loss_that_never_fell_is_seen_at_the_first_evaluation() -> None:
    assert series.loss_not_falling([1.0, 0.99])
    assert series.loss_not_falling([1.0, 0.9, 1.2]) is None
    assert series.loss_not_falling([1.0]) is None


def test_swings_three_times_as_large_without_progress_oscillate() -> None:
    calm, wild = noisy(1.0, 50, 0.1), noisy(1.05, 50, 0.6, seed=2)
    assert series.loss_oscillating([*calm, *wild])
    assert series.loss_oscillating([*calm, *[loss * 0.5 for loss in wild]]) is None  # it falls
    assert series.loss_oscillating([*calm, *noisy(1.05, 50, 0.15, seed=3)]) is None
    assert series.loss_oscillating(wild) is None


def test_weights_that_moved_by_their_own_size_at_once_are_destroyed() -> None:
    assert series.initialisation_destroyed(1.2, update=50, updates=1000)
    assert series.initialisation_destroyed(0.5, update=50, updates=1000) is None
    assert series.initialisation_destroyed(1.2, update=500, updates=1000) is None  # later it may
    assert series.initialisation_destroyed(1.2, update=2001, updates=10**6) is None  # and in a long run


def test_weights_that_do_not_move_are_dead() -> None:
    assert series.dead_updates(1e-9, updates=20)
    assert series.dead_updates(1e-3, updates=20) is None
    assert series.dead_updates(0.0, updates=0) is None  # no update was to be made


def test_overfitting_needs_three_worse_evaluations_and_a_falling_training_loss() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert series.overfitting(falling, [1.0, 0.9, 1.0, 1.1, 1.2])
    assert series.overfitting(falling, [1.0, 0.9, 1.0, 0.92, 1.2]) is None
    assert series.overfitting([1.0, 0.9, 0.9, 0.95, 0.97], [1.0, 0.9, 1.0, 1.1, 1.2]) is None
    assert series.overfitting([1.0, 0.9, 0.8], [0.9, 1.0, 1.1]) is None  # too early


def test_a_part_of_the_objective_that_a_hundredth_pulls_at_is_without_say() -> None:
    assert series.unbalanced_gradients(0.001, 0.2)
    assert series.unbalanced_gradients(0.2, 0.001)
    assert series.unbalanced_gradients(0.05, 0.2) is None


def test_half_the_teachers_entropy_is_a_collapse_but_not_at_the_start() -> None:
    assert series.entropy_collapse(0.5, 1.6, progress=0.3)
    assert series.entropy_collapse(0.5, 1.6, progress=0.05) is None
    assert series.entropy_collapse(1.2, 1.6, progress=0.3) is None


def test_a_temperature_that_leaves_one_word_makes_hard_targets() -> None:
    assert series.hard_targets(0.01, 1.6)
    assert series.hard_targets(4.0, 1.6) is None


def test_windows_are_longer_where_updates_have_few_tokens() -> None:
    assert [series.lengthening(tokens) for tokens in (math.inf, 183.0, 150.0, 149.0, 12.0, 1.0, 0.0)] == [
        1, 1, 1, 2, 13, 150, 150,
    ]  # fmt: skip
