"""Trainer callbacks that teachers and students share: moving average, best model, whole checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.files import write_atomically

AVERAGE_FILE = "moving_average.safetensors"
COMPLETE_FILE = "complete"


class MovingAverage(TrainerCallback):  # type: ignore[misc]
    """Exponential moving average of the weights, kept in every checkpoint.

    The decay grows from 0.1 to its final value over the first updates, so that the start is forgotten.

    Args:
        decay: share of the old average kept at every update, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Start from the weights, or from the checkpoint that is resumed."""
        self.weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        stored = Path(args.output_dir) / f"checkpoint-{state.global_step}" / AVERAGE_FILE
        if state.global_step and stored.is_file():
            self.weights = load_file(stored)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Move a little towards the weights of this update."""
        step = 1 - min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        names, weights = zip(*model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.weights[name] for name in names], list(weights), step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Store the average beside the weights."""
        save_file(self.weights, Path(args.output_dir) / f"checkpoint-{state.global_step}" / AVERAGE_FILE)

    @contextmanager
    def applied_to(self, model: T5ForConditionalGeneration) -> Iterator[None]:
        """The model carries the averaged weights within this block."""
        own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        try:
            _copy(self.weights, model)
            yield
        finally:
            _copy(own, model)


class BestModel(TrainerCallback):  # type: ignore[misc]
    """Hands the model to `save` whenever its validation score is the best so far."""

    def __init__(
        self,
        metric: str,
        save: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None],
        average: MovingAverage | None,
    ) -> None:
        self.metric, self.save, self.average = f"eval_{metric}", save, average

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], model: Any = None, **_: Any
    ) -> None:
        """Compare with the Trainer's own best, which is updated after this call."""
        if state.best_metric is None or metrics[self.metric] > state.best_metric:
            with self.average.applied_to(model) if self.average else nullcontext():
                self.save(model, {name.removeprefix("eval_"): value for name, value in metrics.items()})


class CompleteMarker(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole, as the last file written into it; must be the last callback."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the marker."""
        write_atomically(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_FILE, "")


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; one that a kill interrupted does not count."""
    whole = [marker.parent for marker in folder.glob(f"checkpoint-*/{COMPLETE_FILE}")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], model: T5ForConditionalGeneration) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weights[name])
