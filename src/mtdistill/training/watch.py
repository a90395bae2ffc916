"""Between the Trainer and the health monitor: hands it what it judges, and carries out what it asks for.

Imported by training.fused_updates and training.trainer; imports health, training.checkpoints and training.good_states.
"""

import math
import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from mtdistill.files import replace_folder, scratch_folder
from mtdistill.health.finding import Finding
from mtdistill.health.monitor import GoBack, Monitor, relative_change
from mtdistill.training.checkpoints import checkpoint_of, checkpoints_in, update_of
from mtdistill.training.good_states import GoodState, GoodStates

GOOD_STATES_PER_RUN = 200
MIN_UPDATES_BETWEEN = 20
# Of the learning rate of the settings: below it, at the end of the schedule, weights hardly move and are none the worse.
MOVING_SHARE = 0.01


class Watch(TrainerCallback):  # type: ignore[misc]
    """Judges every update of a trainer, and goes back for it.

    A return is a checkpoint like any other: the good state is written to disk, later checkpoints are removed, and the
    Trainer resumes from it. So a kill in the middle of it loses nothing, and schedule and data go on from there.

    Args:
        trainer: a `TranslationTrainer`.
        model: what it trains, with the weights that a run begins with, even where one is resumed.
        monitor: judges.
    """

    def __init__(self, trainer: Any, model: nn.Module, monitor: Monitor) -> None:
        self._trainer, self.monitor = trainer, monitor
        self._states = GoodStates()
        self._first = {name: w.detach().clone() for name, w in model.named_parameters() if w.dim() > 1}
        self._last: GoodState | None = None
        self._every = max(MIN_UPDATES_BETWEEN, monitor.updates // GOOD_STATES_PER_RUN)

    def limit(self, norm: float) -> float | None:
        """Largest norm of the gradient of the update that is being computed; None: it must not be made.

        Args:
            norm: of its gradient.
        """
        trainer = self._trainer
        loss, trainer.update_loss = trainer.update_loss, 0.0
        step, limit = self.monitor.judge(trainer.state.global_step + 1, loss, norm)
        self._loss = None if step == "skip" else loss
        return None if step == "skip" else limit

    def out_of_memory(self, tokens: int) -> None:
        """Note that a batch did not fit, and is cut smaller."""
        update = self._trainer.state.global_step + 1
        self.monitor.journal.record(
            Finding("out_of_memory", "warning", update, {"tokens": tokens}, action="smaller_parts")
        )

    def go_back(self, request: GoBack) -> Path:
        """Restore the last state from before the trouble, lower the rate, and write a checkpoint of it."""
        trainer, ladder = self._trainer, self.monitor.memory.ladder
        state = self._states.before(request.began_at)
        best = trainer.state.best_metric
        self._states.restore(state, trainer)
        # The best student is on disk whatever became of training; only a better one may replace it.
        trainer.state.best_metric = best
        memory = self.monitor.memory
        memory.losses, memory.norms, memory.since_evaluation = [], [], []
        memory.well_at = state.update  # where a collapse would have to go back to from now on
        # A level reached since then would make the losses of an early state look like a rise; infinite: none is known.
        memory.lowest = max(memory.lowest, state.lowest_loss)
        ladder.returned(request.failed_at, state.update, lower_rate=request.lower_rate)
        # Of the rates of the settings, since the state may be older than an earlier return.
        rates = [group["initial_lr"] * ladder.rate for group in trainer.optimizer.param_groups]
        trainer.lr_scheduler.base_lrs = rates
        trainer.model.zero_grad()
        folder, output = checkpoint_of(trainer.args, trainer.state), trainer.args.output_dir
        # The last whole checkpoint may be of this very update, and is not to be lost before the new one is there.
        with scratch_folder(folder.parent) as elsewhere:
            trainer.args.output_dir = str(elsewhere)
            try:
                trainer.save_checkpoint()
                replace_folder(folder, checkpoint_of(trainer.args, trainer.state))
            finally:
                trainer.args.output_dir = output
        for other in checkpoints_in(folder.parent):
            if update_of(other) > state.update:
                shutil.rmtree(other, ignore_errors=True)
        return folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the memory of the checkpoint that is resumed."""
        self.monitor.load(checkpoint_of(args, state))
        self._take(at_checkpoint=True)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """A short warm-up of the rate after a return."""
        factor = self.monitor.memory.ladder.rate_factor(state.global_step)
        if factor < 1:  # the schedule sets the rate anew after every update
            for group in optimizer.param_groups:
                group["lr"] *= factor

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the monitor what was made, and keep a good state now and then."""
        if self._loss is not None:
            self.monitor.updated(state.global_step, self._loss)
        if state.global_step % self._every == 0:
            self._judge_movement(state.global_step)
            if self.monitor.is_well():
                self._take()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the memory with the checkpoint; a resumed run knows this state, and here the first one is known as well."""
        self.monitor.save(checkpoint_of(args, state))
        self._take(at_checkpoint=True)

    def _take(self, *, at_checkpoint: bool = False) -> None:
        self._last = self._states.take(self._trainer, self.monitor.memory.lowest, at_checkpoint=at_checkpoint)

    def _judge_movement(self, update: int) -> None:
        now = {name: weight.detach() for name, weight in self._trainer.model.named_parameters() if weight.dim() > 1}
        drift = relative_change(self._first, now)
        made, change = 0, math.inf
        share = self._trainer.lr_scheduler.get_last_lr()[0] / self._trainer.optimizer.param_groups[0]["initial_lr"]
        if self._last is not None and share * self.monitor.memory.ladder.rate_factor(update) >= MOVING_SHARE:
            made, change = update - self._last.update, relative_change(self._last.matrices(), now)
        self.monitor.moved(update, drift, change, made)
