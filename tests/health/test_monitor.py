"""The monitor on made-up updates: what it asks for, and that its memory survives."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mtdistill.health import series
from mtdistill.health.journal import Journal
from mtdistill.health.monitor import GOOD_TEMPERATURE, HEALTH_STATE_FILE, GoBack, Monitor, Stop, relative_change
from mtdistill.health.outputs import Outputs
from mtdistill.health.recovery import MAX_RETURNS, MAX_SKIPS_IN_A_ROW

UPDATES = 1000


def make_monitor(*, recover: bool = True, loss: float = 1.0) -> Monitor:
    monitor = Monitor(Journal(None), UPDATES, max_norm=1.0, recover=recover)
    monitor.begin(loss)
    return monitor


def run(monitor: Monitor, losses: list[float], norm: float = 0.3, first: int = 1) -> None:
    for update, loss in enumerate(losses, first):
        step, _ = monitor.judge(update, loss, norm)
        if step is None:
            monitor.updated(update, loss)


def probed(loss: float, **changes: float) -> Any:
    values = {"student_entropy": 1.6, "teacher_entropy": 1.6, "softened_entropy": 4.0, "kd_norm": 0.2, "gold_norm": 0.3}
    return SimpleNamespace(loss=loss, **{**values, **changes})


def outputs(success: float, texts: list[str] | None = None) -> Outputs:
    sources = [str(number) for number in range(50)]
    return Outputs(sources, texts or [f"text {number}" for number in sources], success, {}, {})


def test_a_good_run_is_silent_and_untouched() -> None:
    monitor = make_monitor()
    for update in range(1, UPDATES + 1):
        loss = (0.4 + 0.6 * 0.99**update) * (0.8 + 0.4 * (update * 7 % 11) / 10)
        assert monitor.judge(update, loss, 0.2 + 0.1 * (update % 3)) == (None, 1.0)
        monitor.updated(update, loss)
        if update % 100 == 0:
            monitor.moved(update, drift=0.3 * update / UPDATES, change=1e-2, made=100)
            monitor.evaluated(update, outputs(0.9), probed(loss))
    assert monitor.journal.lines == 0


@pytest.mark.parametrize(
    ("loss", "norm", "check"), [(math.nan, 1.0, "non_finite_loss"), (1.0, math.inf, "non_finite_gradient")]
)
def test_an_update_that_is_no_number_is_skipped(loss: float, norm: float, check: str) -> None:
    monitor = make_monitor()
    assert monitor.judge(1, loss, norm)[0] == "skip"
    assert monitor.journal.counts == {check: 1}


def test_a_gradient_that_explodes_is_skipped_and_clipping_begins() -> None:
    monitor = make_monitor()
    run(monitor, [1.0] * 30)
    assert monitor.judge(31, 1.0, 50.0)[0] == "skip"
    assert monitor.memory.clipping
    for update in range(32, 80):
        monitor.judge(update, 1.0, 0.3 + 0.01 * (update % 2))
    assert monitor.judge(80, 1.0, 0.9)[1] < 0.5  # allowed before


def test_too_many_bad_updates_in_a_row_ask_to_go_back_to_before_them() -> None:
    monitor = make_monitor()
    run(monitor, [1.0] * 30)
    with pytest.raises(GoBack) as request:
        run(monitor, [math.nan] * MAX_SKIPS_IN_A_ROW, first=31)
    assert (request.value.failed_at, request.value.began_at) == (35, 30)


@pytest.mark.parametrize(("level", "updates"), [(3.0, 11), (2.0, 26)])
def test_a_loss_that_leaves_its_level_asks_to_go_back(level: float, updates: int) -> None:
    monitor = make_monitor()
    run(monitor, [1.0] * 60)
    run(monitor, [level] * (updates - 1), first=61)
    with pytest.raises(GoBack) as request:
        run(monitor, [level], first=60 + updates)
    assert monitor.journal.counts == {"loss_spike": 1, "loss_diverging": 1}
    assert request.value.began_at < 61
    assert not monitor.is_well()


def test_every_spike_is_told_of_once() -> None:
    monitor = make_monitor()
    run(monitor, [*[1.0] * 60, *[2.0] * 4, *[1.0] * 20, *[2.0] * 5, *[1.0] * 20])
    assert monitor.journal.counts["loss_spike"] == 2


@pytest.mark.parametrize("seed", range(20))
def test_batches_as_different_as_those_of_quick_raise_no_alarm(seed: int) -> None:
    losses = 0.4 * np.random.default_rng(seed).lognormal(sigma=0.45, size=435)  # 0.18 to 1.09 there
    monitor = make_monitor()
    run(monitor, losses.tolist())
    assert not monitor.journal.counts


@pytest.mark.parametrize("seed", range(3))
def test_single_sentences_raise_no_alarm(seed: int) -> None:
    """As different as those of a trained student of quality: their logarithms deviate by about one."""
    losses = 0.4 * np.random.default_rng(seed).lognormal(sigma=1.0, size=5000)
    monitor = Monitor(Journal(None), len(losses), max_norm=1.0, tokens_per_update=12.0)
    monitor.begin(1.0)
    run(monitor, losses.tolist())
    assert monitor.journal.counts.keys() <= {"loss_oscillating"}


def test_three_high_losses_of_few_tokens_are_no_spike() -> None:
    for tokens, spikes in ((190.0, {}), (800.0, {"loss_spike": 1})):
        monitor = Monitor(Journal(None), UPDATES, max_norm=1.0, tokens_per_update=tokens)
        monitor.begin(1.0)
        run(monitor, [*[1.0] * 60, 2.0, 2.0, 2.0, *[1.0] * 20])
        assert monitor.journal.counts == spikes


def test_going_back_without_end_is_a_stop() -> None:
    monitor = make_monitor()
    for _ in range(MAX_RETURNS):
        with pytest.raises(GoBack):
            monitor.moved(20, drift=2.0, change=1e-2, made=20)
        monitor.memory.ladder.returned(20, 0)
    with pytest.raises(Stop) as stop:
        monitor.moved(20, drift=2.0, change=1e-2, made=20)
    assert (stop.value.finding.check, stop.value.finding.action) == ("initialisation_destroyed", "stopped")


def test_dead_updates_ask_for_no_lower_rate() -> None:
    with pytest.raises(GoBack) as request:
        make_monitor().moved(200, drift=0.1, change=0.0, made=20)
    assert not request.value.lower_rate


def test_without_recovery_only_what_is_no_number_ends_training() -> None:
    monitor = make_monitor(recover=False)
    run(monitor, [1.0] * 60 + [3.0] * 60)
    monitor.moved(20, drift=2.0, change=0.0, made=20)
    assert monitor.judge(121, 1.0, 50.0) == (None, 1.0)
    assert {"loss_diverging", "initialisation_destroyed", "dead_updates", "gradient_explosion"} <= set(
        monitor.journal.counts
    )
    assert monitor.journal.counts["loss_diverging"] == 1  # though it lasts
    assert monitor.judge(122, 1.0, 0.9) == (None, 1.0)  # clipped as ever
    with pytest.raises(Stop):
        monitor.judge(123, math.nan, 1.0)


def test_outputs_that_collapse_ask_to_go_back_those_that_were_never_good_do_not() -> None:
    monitor = make_monitor()
    monitor.evaluated(100, outputs(0.3))
    assert monitor.journal.counts == {"success_under_half": 1}
    monitor.evaluated(200, outputs(0.9))
    with pytest.raises(GoBack) as request:
        monitor.evaluated(300, outputs(0.2))
    assert (request.value.failed_at, request.value.began_at) == (300, 200)


def test_a_spike_is_seen_where_updates_hold_a_few_tokens() -> None:
    monitor = Monitor(Journal(None), UPDATES, max_norm=1.0, tokens_per_update=6.0)
    in_a_row = series.updates_of_a_spike(6.0)
    assert in_a_row > series.WINDOW
    run(monitor, [1.0] * 60 + [1.55] * in_a_row)
    assert monitor.memory.clipping


def test_a_checkpoint_of_a_version_that_remembered_more_is_read(tmp_path: Path) -> None:
    monitor = make_monitor()
    run(monitor, [1.0] * 30)
    monitor.save(tmp_path)
    stored = json.loads((tmp_path / HEALTH_STATE_FILE).read_text(encoding="utf-8"))
    stored["ladder"]["skipped"] = stored["forgotten"] = 3
    (tmp_path / HEALTH_STATE_FILE).write_text(json.dumps(stored), encoding="utf-8")
    other = make_monitor()
    other.load(tmp_path)
    assert other.memory == monitor.memory


def test_a_few_sentences_are_no_collapse() -> None:
    monitor = make_monitor()
    for update, success in ((100, 1.0), (200, 0.0)):
        monitor.evaluated(update, Outputs(["one"], ["a text"], success, {}, {}))
    assert monitor.journal.counts["success_under_half"] == 1


def test_repeated_outputs_are_told_with_an_example() -> None:
    monitor = make_monitor()
    monitor.evaluated(100, outputs(0.9, ["the the the the the"] * 50))
    assert {"one_output", "one_token"} <= set(monitor.journal.counts)


def test_a_validation_loss_that_rose_goes_back_to_the_start_one_that_stands_still_is_told() -> None:
    monitor = make_monitor()
    monitor.evaluated(0, None, probed(1.0))
    monitor.evaluated(100, None, probed(1.0))
    assert monitor.journal.counts == {"loss_not_falling": 1}
    risen = make_monitor()
    risen.evaluated(0, None, probed(1.0))
    with pytest.raises(GoBack) as request:
        risen.evaluated(100, None, probed(1.5))
    assert request.value.began_at == 0


def test_a_temperature_that_silences_the_teacher_is_raised_once() -> None:
    monitor = make_monitor()
    monitor.evaluated(0, None, probed(1.0, softened_entropy=0.01))
    assert monitor.memory.temperature == GOOD_TEMPERATURE
    monitor.evaluated(100, None, probed(0.5, softened_entropy=0.01))
    assert monitor.journal.counts == {"hard_targets": 2}


def test_hard_targets_are_told_where_there_is_no_gold_text() -> None:
    monitor = make_monitor()
    monitor.evaluated(0, None, probed(1.0, softened_entropy=0.01, gold_norm=0.0))
    assert monitor.memory.temperature == GOOD_TEMPERATURE
    silent = make_monitor()
    silent.evaluated(0, None, probed(1.0, softened_entropy=0.01, kd_norm=0.0))
    assert silent.journal.lines == 0


def test_one_part_without_say_is_told_unless_it_is_switched_off() -> None:
    monitor = make_monitor()
    monitor.evaluated(0, None, probed(1.0, kd_norm=0.0))
    monitor.evaluated(100, None, probed(0.9, kd_norm=0.0))
    assert monitor.journal.lines == 0
    monitor.evaluated(200, None, probed(0.8, kd_norm=1e-6))
    assert monitor.journal.counts == {"unbalanced_gradients": 1}


def test_the_memory_survives_a_checkpoint(tmp_path: Path) -> None:
    monitor = make_monitor()
    run(monitor, [1.0 + 0.01 * (update % 5) for update in range(70)])
    monitor.judge(71, math.nan, 1.0)
    monitor.evaluated(71, outputs(0.8), probed(0.9))
    monitor.save(tmp_path)
    again = make_monitor()
    again.load(tmp_path)
    assert again.memory == monitor.memory
    assert again.journal.lines == 1


def test_a_checkpoint_without_a_memory_begins_a_new_one(tmp_path: Path) -> None:
    monitor = make_monitor(loss=3.0)
    monitor.load(tmp_path)
    assert monitor.memory.lowest == 3.0


def test_relative_change_is_the_median_over_the_tensors() -> None:
    before = {"a": torch.ones(2, 2), "b": torch.ones(2, 2), "c": torch.ones(2, 2)}
    after = {"a": torch.ones(2, 2), "b": 1.5 * torch.ones(2, 2), "c": 9 * torch.ones(2, 2)}
    assert relative_change(before, after) == pytest.approx(0.5)
    assert relative_change({}, {}) == 0
