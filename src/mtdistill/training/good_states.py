"""States that training can go back to: weights, optimizer, schedule, average, and where it stood.

Held in memory, because a checkpoint on disk may be thousands of updates old. Imported by distillation and
training.watch.
"""

import copy
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

KEPT = 3
IN_MEMORY = KEPT + 2  # those, that of the last checkpoint, and the first one


def state_bytes(parameters: int, *, averaged: bool) -> int:
    """Memory of a state: weights, two moments and perhaps an average, 4 bytes each."""
    return 4 * parameters * (4 if averaged else 3)


@dataclass(frozen=True)
class GoodState:
    """Everything that the next update depends on."""

    update: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    average: dict[str, Tensor] | None
    trainer: Any
    random: tuple[Any, Any, Tensor]
    lowest_loss: float  # level by then, see `mtdistill.health.monitor.Memory`

    def matrices(self) -> dict[str, Tensor]:
        """The weights whose change is looked at."""
        return {name: weight for name, weight in self.weights.items() if weight.dim() > 1}


class GoodStates:
    """The last few, that of the last checkpoint, as a rule the one after an evaluation, and the one before the first update."""

    def __init__(self) -> None:
        self._states: deque[GoodState] = deque(maxlen=KEPT)
        self._start: GoodState | None = None
        self._checkpoint: GoodState | None = None

    def take(self, trainer: Any, lowest_loss: float, *, at_checkpoint: bool = False) -> GoodState:
        """Copy the state of a `TranslationTrainer` between two updates, and keep it.

        Args:
            trainer: as it is now.
            lowest_loss: level by now.
            at_checkpoint: what a resumed run would begin with, so that earlier states but the first are forgotten.
        """
        state = GoodState(
            update=trainer.state.global_step,
            weights={name: weight.detach().clone() for name, weight in trainer.model.named_parameters()},
            optimizer=copy.deepcopy(trainer.optimizer.state_dict()),
            scheduler=copy.deepcopy(trainer.lr_scheduler.state_dict()),
            average=None if trainer.average is None else {k: v.clone() for k, v in trainer.average.weights.items()},
            trainer=copy.deepcopy(trainer.state),
            random=(random.getstate(), np.random.get_state(), torch.get_rng_state()),
            lowest_loss=lowest_loss,
        )
        if state.update == 0:
            self._start = state
        if at_checkpoint:
            self._checkpoint = state
            self._states.clear()
        else:
            self._states.append(state)
        return state

    def before(self, update: int) -> GoodState:
        """The latest one from before an update, else the oldest since the last checkpoint; all but the first are dropped.

        The one before the first update is for what has been wrong since then, an update of 0.
        """
        first = [] if self._start is None else [self._start]
        since = [*([] if self._checkpoint is None else [self._checkpoint]), *self._states]
        known = [*first, *since] if update == 0 or not since else since
        chosen = next((state for state in reversed(known) if state.update <= update), known[0])
        self._states.clear()
        self._checkpoint = None
        return chosen

    @torch.no_grad()
    def restore(self, state: GoodState, trainer: Any) -> None:
        """Put a trainer back into a state."""
        for name, weight in trainer.model.named_parameters():
            weight.copy_(state.weights[name])
        # Copies, because the state may be wanted again and what is loaded is changed in place.
        trainer.optimizer.load_state_dict(copy.deepcopy(state.optimizer))
        trainer.lr_scheduler.load_state_dict(copy.deepcopy(state.scheduler))
        if trainer.average is not None and state.average is not None:
            trainer.average.weights = {name: weight.clone() for name, weight in state.average.items()}
        trainer.state = copy.deepcopy(state.trainer)
        random.setstate(state.random[0])
        np.random.set_state(state.random[1])
        torch.set_rng_state(state.random[2])
