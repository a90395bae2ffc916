"""What a trainer does on the monitor's word: leave updates out, go back, cut batches smaller. Small runs, really broken."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from mtdistill.data.batches import PackedBatch
from mtdistill.health.finding import Finding
from mtdistill.health.journal import HEALTH_FILE, Journal, read_findings
from mtdistill.health.monitor import HEALTH_STATE_FILE, GoBack, Monitor, Stop
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.engine import Engine

MakeTraining = Callable[..., Any]
UPDATES = 120
LONG = {"sentences": 12, "epochs": 40, "evaluations": 3, "learning_rate": 1e-3}
BOTH = pytest.mark.parametrize("engine", [Engine(), Engine(fused=False)], ids=["fused", "plain"])


class Once(TrainerCallback):  # type: ignore[misc]
    """Does something after an update, the first time it is reached."""

    def __init__(self, update: int, act: Callable[[Any], None]) -> None:
        self.update, self.act, self.done = update, act, False

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == self.update and not self.done:
            self.done = True
            self.act(model)


class Begins(TrainerCallback):  # type: ignore[misc]
    """The updates that training began at, and again after every return."""

    def __init__(self) -> None:
        self.updates: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.updates.append(state.global_step)


@torch.no_grad()
def destroy(model: Any) -> None:
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 10)


def make_monitor(folder: Path, loss: float = 4.0) -> Monitor:
    monitor = Monitor(Journal(folder / HEALTH_FILE), UPDATES, max_norm=1.0)
    monitor.begin(loss)
    return monitor


def spoil(trainer: Any, update: int, value: float) -> None:
    name = "losses_from_states" if trainer.engine.fused else "losses_from_logits"
    losses = getattr(trainer, name)

    def spoilt(*arguments: Any) -> dict[str, Tensor]:
        found = losses(*arguments)
        return {"total": found["total"] * (value if trainer.state.global_step == update - 1 else 1.0)}

    setattr(trainer, name, spoilt)


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_no_number_leaves_the_weights_as_they_are(
    make_training: MakeTraining, tmp_path: Path, engine: Engine, value: float
) -> None:
    seen: list[dict[str, Tensor]] = []

    class Weights(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})

    training = make_training(
        sentences=12, epochs=3, callbacks=[Weights()], monitor=make_monitor(tmp_path), engine=engine
    )
    spoil(training.trainer, 5, value)
    training.trainer.train()
    changed = [any(not torch.equal(b[name], a[name]) for name in a) for a, b in itertools.pairwise(seen)]
    assert changed == [True, True, True, False, True, True, True, True]
    assert [(finding.check, finding.update, finding.action) for finding in read_findings(tmp_path / HEALTH_FILE)] == [
        ("non_finite_loss", 5, "skipped")
    ]
    assert all(math.isfinite(log["loss"]) for log in training.recorder.logs if "loss" in log)


@BOTH
def test_destroyed_weights_send_training_back_with_a_lower_rate(
    make_training: MakeTraining, tmp_path: Path, engine: Engine
) -> None:
    monitor = make_monitor(tmp_path)
    training = make_training(**LONG, callbacks=[Once(70, destroy)], monitor=monitor, engine=engine)
    trainer = training.trainer
    trainer.train()
    findings = read_findings(tmp_path / HEALTH_FILE)
    assert ("returned", True) in [(finding.action, finding.update <= 95) for finding in findings]
    assert trainer.state.global_step == UPDATES
    ladder = monitor.memory.ladder
    assert (ladder.returns, ladder.rate) == (1, 0.25)
    assert 40 <= ladder.rewarm_from <= 70
    assert trainer.lr_scheduler.base_lrs[0] == pytest.approx(0.25e-3)
    assert max(weight.abs().max().item() for weight in trainer.model.parameters()) < 5
    assert sum(monitor.memory.losses[-20:]) / 20 < 4.0


def test_a_level_that_was_reached_after_the_state_is_not_asked_of_it(
    make_training: MakeTraining, tmp_path: Path
) -> None:
    monitor, levels = make_monitor(tmp_path), list[tuple[int, float]]()

    class Level(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            levels.append((state.global_step, monitor.memory.lowest))

    def fail(_model: Any) -> None:
        raise GoBack(failed_at=100, began_at=0)

    make_training(**LONG, callbacks=[Level(), Once(100, fail)], monitor=monitor).trainer.train()
    before, after = levels[:100], levels[100:]
    assert before[-1] == (100, min(level for _, level in before))
    assert before[-1][1] < 4.0
    assert after[0] == (1, 4.0)


def test_weights_are_not_called_dead_where_the_rate_has_fallen_to_nothing(
    make_training: MakeTraining, tmp_path: Path
) -> None:
    monitor, judged = make_monitor(tmp_path), dict[int, int]()

    def moved(update: int, drift: float, change: float, made: int) -> None:
        judged[update] = made

    monitor.moved = moved  # type: ignore[method-assign]
    make_training(sentences=4, epochs=121, evaluations=1, monitor=monitor).trainer.train()
    assert judged == {20: 20, 40: 20, 60: 20, 80: 20, 100: 20, 120: 0}


def test_what_goes_wrong_again_and_again_ends_with_a_stop(make_training: MakeTraining, tmp_path: Path) -> None:
    monitor = make_monitor(tmp_path)
    training = make_training(**LONG, monitor=monitor)
    trainer = training.trainer
    spoilt = trainer.losses_from_states

    def bad(*arguments: Any) -> dict[str, Tensor]:
        factor = math.nan if trainer.state.global_step >= 50 else 1.0
        return {"total": spoilt(*arguments)["total"] * factor}

    trainer.losses_from_states = bad
    with pytest.raises(Stop) as stop:
        trainer.train()
    assert stop.value.finding.check == "non_finite_loss"
    assert read_findings(tmp_path / HEALTH_FILE)[-1].action == "stopped"
    assert latest_checkpoint(Path(trainer.args.output_dir)) is not None


def test_a_run_killed_after_a_return_ends_like_one_that_was_not(make_training: MakeTraining, tmp_path: Path) -> None:
    def start(folder: str, *callbacks: TrainerCallback) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        return make_training(
            **LONG, folder=folder, monitor=make_monitor(tmp_path / folder), callbacks=[*callbacks], ema_decay=0.9
        )

    class Killed(Exception):  # noqa: N818
        pass

    def kill(_model: Any) -> None:
        raise Killed

    whole = start("whole", Once(70, destroy))
    whole.trainer.train()
    broken = start("broken", Once(70, destroy), Once(100, kill))
    with pytest.raises(Killed):
        broken.trainer.train()
    folder = Path(broken.trainer.args.output_dir)
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    assert (checkpoint / HEALTH_STATE_FILE).is_file()
    assert all(int(path.name.rsplit("-", 1)[1]) <= 80 for path in folder.glob("checkpoint-*"))
    resumed = start("broken")
    resumed.trainer.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in whole.weights().items():
        assert torch.equal(resumed.weights()[name], weight), name
    assert resumed.trainer.watch.monitor.memory == whole.trainer.watch.monitor.memory
    assert read_findings(tmp_path / "broken" / HEALTH_FILE) == read_findings(tmp_path / "whole" / HEALTH_FILE)


def test_a_good_run_is_not_changed_by_being_watched(make_training: MakeTraining, tmp_path: Path) -> None:
    watched = make_training(**LONG, folder="watched", monitor=make_monitor(tmp_path))
    alone = make_training(**LONG, folder="alone")
    for training in (watched, alone):
        training.trainer.train()
    assert read_findings(tmp_path / HEALTH_FILE) == []
    assert watched.recorder.trajectory() == alone.recorder.trajectory()
    for name, weight in alone.weights().items():
        assert torch.equal(watched.weights()[name], weight), name


def test_a_batch_that_does_not_fit_is_cut_smaller_with_the_same_result(
    make_training: MakeTraining, tmp_path: Path
) -> None:
    fits = make_training(sentences=64, batch_size=32, folder="fits")
    scarce = make_training(sentences=64, batch_size=32, folder="scarce", monitor=make_monitor(tmp_path))
    compute = scarce.trainer.batch_gradients

    def limited(batch: PackedBatch) -> Any:
        if scarce.trainer.engine.largest_part(batch) > 150:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"
            )
        return compute(batch)

    scarce.trainer.batch_gradients = limited
    for training in (fits, scarce):
        training.trainer.train()
    for name, weight in fits.weights().items():
        torch.testing.assert_close(scarce.weights()[name], weight, rtol=1e-4, atol=1e-5)
    found = read_findings(tmp_path / HEALTH_FILE)
    assert found
    assert {(finding.check, finding.action) for finding in found} == {("out_of_memory", "smaller_parts")}
    assert isinstance(found[0], Finding)


def test_memory_that_never_suffices_is_an_error_in_the_end(make_training: MakeTraining, tmp_path: Path) -> None:
    trainer = make_training(monitor=make_monitor(tmp_path)).trainer

    def never(batch: PackedBatch) -> Any:
        raise MemoryError

    trainer.batch_gradients = never
    with pytest.raises(MemoryError):
        trainer.train()


def test_a_return_that_cannot_be_written_leaves_what_was_there(
    make_training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_model: Any) -> None:
        raise GoBack(failed_at=50, began_at=40)

    training = make_training(**LONG, callbacks=[Once(50, fail)], monitor=make_monitor(tmp_path))
    trainer, write = training.trainer, training.trainer._save_checkpoint

    def full(*arguments: Any) -> None:
        if "scratch" in trainer.args.output_dir:
            raise OSError("no space")
        write(*arguments)

    monkeypatch.setattr(trainer, "_save_checkpoint", full)
    output = Path(trainer.args.output_dir)
    with pytest.raises(OSError, match="no space"):
        trainer.train()
    assert Path(trainer.args.output_dir) == output
    assert latest_checkpoint(output) == output / "checkpoint-40"
    assert [path.name for path in output.iterdir()] == ["checkpoint-40"]


def test_a_collapse_goes_back_to_the_last_evaluation_that_was_well(make_training: MakeTraining, tmp_path: Path) -> None:
    """Although states were kept since: what wrote the bad translations may be in all of them."""
    begins = Begins()

    def fail(_model: Any) -> None:
        raise GoBack(failed_at=219, began_at=120)

    training = make_training(
        **{**LONG, "epochs": 80, "evaluations": 2}, callbacks=[Once(219, fail), begins], monitor=make_monitor(tmp_path)
    )
    training.trainer.train()
    assert begins.updates == [0, 120]


def test_smaller_parts_are_kept_for_a_resumed_run(make_training: MakeTraining, tmp_path: Path) -> None:
    kept: list[Engine] = []
    trainer = make_training(sentences=64, batch_size=32).trainer
    trainer.keep_engine = kept.append
    compute = trainer.batch_gradients

    def limited(batch: PackedBatch) -> Any:
        if trainer.engine.largest_part(batch) > 150:
            raise MemoryError
        return compute(batch)

    trainer.batch_gradients = limited
    trainer.train()
    assert kept
    assert kept[-1] == trainer.engine
    assert trainer.engine.max_part_tokens <= 150


def test_a_resumed_run_remembers_the_first_weights(make_training: MakeTraining, tmp_path: Path) -> None:
    first = make_training(**LONG, monitor=make_monitor(tmp_path))
    first.trainer.train()
    checkpoint = latest_checkpoint(Path(first.trainer.args.output_dir))
    resumed = make_training(**LONG, monitor=make_monitor(tmp_path))
    begun = resumed.weights()
    resumed.trainer.train(resume_from_checkpoint=str(checkpoint))
    remembered = resumed.trainer.watch._first
    assert all(torch.equal(weight, begun[name]) for name, weight in remembered.items())
    assert not all(torch.equal(weight, resumed.weights()[name]) for name, weight in remembered.items())


def test_a_collapse_after_a_return_goes_back_no_further(make_training: MakeTraining, tmp_path: Path) -> None:
    """What training went back to is the last state that is known to be well."""
    begins = Begins()
    monitor = make_monitor(tmp_path)

    def diverge(_model: Any) -> None:
        raise GoBack(failed_at=110, began_at=60)

    def collapse(_model: Any) -> None:
        raise GoBack(failed_at=119, began_at=monitor.memory.well_at)

    callbacks = [Once(110, diverge), Once(119, collapse), begins]
    make_training(**{**LONG, "evaluations": 1}, callbacks=callbacks, monitor=monitor).trainer.train()
    assert begins.updates == [0, 60, 60]


def test_a_divergence_that_began_before_a_checkpoint_does_not_cost_the_whole_run(
    make_training: MakeTraining, tmp_path: Path
) -> None:
    begins = Begins()

    def diverge(_model: Any) -> None:
        raise GoBack(failed_at=90, began_at=50)

    callbacks = [Once(90, diverge), begins]
    make_training(**{**LONG, "evaluations": 2}, callbacks=callbacks, monitor=make_monitor(tmp_path)).trainer.train()
    assert begins.updates == [0, 60]
