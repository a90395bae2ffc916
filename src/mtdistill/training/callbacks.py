"""Trainer callbacks that teachers and students share: moving average, best model, progress, metrics.

Of several processes only the first one writes and shows. Imported by distillation and training.trainer; imports data
and training.checkpoints.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.data.batches import Batches
from mtdistill.display import Bar, Display
from mtdistill.files import write_atomically
from mtdistill.messages import colon, tr
from mtdistill.training.checkpoints import checkpoint_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

AVERAGE_FILE = "moving_average.safetensors"


class MovingAverage(TrainerCallback):  # type: ignore[misc]
    """Exponential moving average of the weights, kept in every checkpoint.

    The decay grows to its final value over the first updates, (1 + update) / (10 + update), so that the start is
    forgotten.

    Args:
        decay: share of the old average kept at every update, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Start from the weights, or from the checkpoint that is resumed."""
        self.weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        stored = checkpoint_of(args, state) / AVERAGE_FILE
        if state.global_step and stored.is_file():
            self.weights = {name: weight.to(self.weights[name].device) for name, weight in load_file(stored).items()}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Move a little towards the weights of this update."""
        step = 1 - min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        names, weights = zip(*model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.weights[name] for name in names], list(weights), step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Store the average beside the weights."""
        if state.is_world_process_zero:
            save_file(self.weights, checkpoint_of(args, state) / AVERAGE_FILE)

    @contextmanager
    def applied_to(self, model: T5ForConditionalGeneration) -> Iterator[None]:
        """The model carries the averaged weights within this block."""
        own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        try:
            _copy(self.weights, model)
            yield
        finally:
            _copy(own, model)


class EpochOrder(TrainerCallback):  # type: ignore[misc]
    """Tells the batches which epoch begins; the Trainer does not reach them where several processes resume within one."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the batches of the epoch are drawn."""
        self._batches.set_epoch(int(state.epoch + 1e-6))


@dataclass(frozen=True)
class BestBy:
    """Which model counts as the best: the latest that scores above the highest score before it less a margin.

    Attributes:
        score: name of the validation score; larger is better.
        margin: >= 0; what scores differ by without meaning anything, so that of two as good the one trained longer counts.
    """

    score: str
    margin: float = 0.0


class BestModel(TrainerCallback):  # type: ignore[misc]
    """Hands the model to `save` whenever it is the best so far.

    Args:
        best_by: what decides that.
        save: gets the model, with the averaged weights where there are any, and all scores by name.
        average: the moving average that the scores belong to.
    """

    def __init__(
        self,
        best_by: BestBy,
        save: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None],
        average: MovingAverage | None,
    ) -> None:
        self.best_by, self.save, self.average = best_by, save, average

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], model: Any = None, **_: Any
    ) -> None:
        """Compare with the best so far, and note a new one as the Trainer would later: training may go back before it does."""
        highest = -math.inf if state.best_metric is None else state.best_metric
        score = metrics[f"eval_{self.best_by.score}"]
        if not score > highest - self.best_by.margin:
            return
        state.best_metric = max(score, highest)  # the margin is counted from here, so that small losses do not add up
        if state.is_world_process_zero:
            with self.average.applied_to(model) if self.average else nullcontext():
                self.save(model, {name.removeprefix("eval_"): value for name, value in metrics.items()})


class ProgressDisplay(TrainerCallback):  # type: ignore[misc]
    """A live bar over the updates, with loss, learning rate and the last validation scores."""

    def __init__(self, display: Display, label: str) -> None:
        self._display, self._label = display, label
        self._open = ExitStack()
        self._bar = Bar()
        self._note = self._scores = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where a resumed run stands."""
        self._open.close()
        if state.is_world_process_zero:
            self._bar = self._open.enter_context(self._display.bar(self._label, state.max_steps, state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance."""
        self._bar.advance_to(state.global_step, " ".join(filter(None, (self._note, self._scores))))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Remember the loss."""
        if logs and "loss" in logs:
            self._note = f"loss {logs['loss']:.3f} lr {logs['learning_rate']:.1e}"

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **_: Any) -> None:
        """Say the scores in a line that stays."""
        if "eval_bleu" in metrics:
            self._scores = f"BLEU {metrics['eval_bleu']:.1f}"
        if not state.is_world_process_zero:
            return
        values = " · ".join(f"{name.removeprefix('eval_')} {value:.3g}" for name, value in metrics.items())
        update = tr(en=f"update {state.global_step}", zh=f"第 {state.global_step} 次更新")
        self._display.say(f"{update}{colon()}{values}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._open.close()


class Samples(Protocol):
    """Something that holds the translations it wrote last, as text."""

    samples: str


class SampleTranslations(TrainerCallback):  # type: ignore[misc]
    """Shows translations of the same few sentences in TensorBoard after every evaluation."""

    def __init__(self, writer: "SummaryWriter", source: Samples) -> None:
        self._writer, self._source = writer, source

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the text."""
        self._writer.add_text("samples", self._source.samples, state.global_step)


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends every log to a file, one JSON object a line: update, epoch, and the values by name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop what an interrupted run logged after the checkpoint that this one goes on from."""
        if state.is_world_process_zero and self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _update_of(line) <= state.global_step]
            write_atomically(self._path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Append one line; the Trainer's summary at the end is left out, for it knows only the time since a resume."""
        if not state.is_world_process_zero or (logs and "train_runtime" in logs):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            line = {"update": state.global_step, "epoch": state.epoch, **(logs or {})}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


class LogBeforeCheckpoint(TrainerCallback):  # type: ignore[misc]
    """Logs at every checkpoint: the sums behind a mean are in no checkpoint, so they have to begin anew there.

    Must come after whatever asks for checkpoints.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a log."""
        control.should_log = control.should_log or control.should_save


def _update_of(line: str) -> float:
    """The update that a line of metrics belongs to; infinite for one that a kill cut short."""
    with suppress(ValueError, KeyError, TypeError):
        return float(json.loads(line)["update"])
    return math.inf


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], model: T5ForConditionalGeneration) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weights[name])
