"""Signals during training: a checkpoint, and the same result after resuming."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from mtdistill.health.journal import HEALTH_FILE, Journal
from mtdistill.health.monitor import GoBack, Monitor
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.interruption import Interrupted

MakeTraining = Callable[..., Any]
RUN = {"sentences": 12, "epochs": 6, "evaluations": 2}


class Send(TrainerCallback):  # type: ignore[misc]
    """Sends a signal within an update."""

    def __init__(self, number: int, update: int) -> None:
        self.number, self.update = number, update

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.update - 1:
            heard = signal.getsignal(self.number)
            signal.raise_signal(self.number)  # to this thread and at once: another one may take its time
            for _ in range(1000):  # Python hears it a moment later, and of two before that only one
                if signal.getsignal(self.number) != heard:
                    break
                time.sleep(0.01)


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_a_checkpoint_that_goes_on_exactly(
    make_training: MakeTraining, number: signal.Signals
) -> None:
    whole = make_training(**RUN, folder="whole")
    whole.trainer.train()
    before = signal.getsignal(number)
    broken = make_training(**RUN, folder="broken", callbacks=[Send(number, 8)])
    with pytest.raises(Interrupted) as interrupted:
        broken.trainer.train()
    assert interrupted.value.number == number
    assert signal.getsignal(number) is before
    checkpoint = latest_checkpoint(Path(broken.trainer.args.output_dir))
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-8"
    resumed = make_training(**RUN, folder="broken")
    resumed.trainer.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in whole.weights().items():
        assert torch.equal(resumed.weights()[name], weight), name


def test_a_second_signal_is_not_held_back(make_training: MakeTraining) -> None:
    training = make_training(**RUN, callbacks=[Send(signal.SIGINT, 8), Send(signal.SIGINT, 8)])
    with pytest.raises(KeyboardInterrupt) as interrupted:
        training.trainer.train()
    assert not isinstance(interrupted.value, Interrupted)


def test_signals_are_given_back_after_an_undisturbed_run(make_training: MakeTraining) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    make_training(**RUN).trainer.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_checkpoint_of_an_interruption_stays_where_one_is_kept(make_training: MakeTraining) -> None:
    scores = iter([2.0, 1.0, 1.0])  # the best is an older one
    training = make_training(
        sentences=12,
        epochs=6,
        evaluations=3,
        checkpoints_kept=1,
        validate=lambda _model: {"bleu": next(scores)},
        callbacks=[Send(signal.SIGINT, 8)],
    )
    with pytest.raises(Interrupted):
        training.trainer.train()
    folder = Path(training.trainer.args.output_dir)
    assert latest_checkpoint(folder) == folder / "checkpoint-8"


def test_a_signal_is_heard_although_training_goes_back(make_training: MakeTraining, tmp_path: Path) -> None:
    class Back(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 8:
                raise GoBack(failed_at=8, began_at=0)

    monitor = Monitor(Journal(tmp_path / HEALTH_FILE), 18, max_norm=1.0)
    training = make_training(**RUN, callbacks=[Send(signal.SIGINT, 8), Back()], monitor=monitor)
    with pytest.raises(Interrupted):
        training.trainer.train()
    folder = Path(training.trainer.args.output_dir)
    assert latest_checkpoint(folder) == folder / "checkpoint-0"


def test_the_metrics_of_the_last_updates_are_logged(make_training: MakeTraining) -> None:
    training = make_training(**RUN, callbacks=[Send(signal.SIGINT, 8)])
    training.trainer.args.logging_steps = 1000
    with pytest.raises(Interrupted):
        training.trainer.train()
    assert [log["update"] for log in training.recorder.logs if "loss" in log][-1] == 8
