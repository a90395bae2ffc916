"""What is shown at the next log of a training. Imported by training.trainer."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from mtdistill.errors import TrainingFailedError
from mtdistill.messages import tr


@dataclass
class SinceLog:
    """What is shown at the next log; `started` is None before the first loss."""

    started: float | None = None
    losses: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    updates: float = 0.0  # every micro-batch adds its share of the tokens of its update

    def start(self) -> None:
        """Start the clock, at the first loss."""
        if self.started is None:
            self.started = time.monotonic()

    def add(self, losses: Mapping[str, float], tokens: int, count: int) -> None:
        """Count some sentences of an update in.

        Args:
            losses: by name, already divided by `count`.
            tokens: of these sentences.
            count: of all sentences of the update.
        """
        for name, value in losses.items():
            self.losses[name] += value
        self.tokens += tokens
        self.updates += tokens / count

    def figures(self) -> dict[str, float]:
        """Mean of each part of the loss, and target tokens per second."""
        means = {f"{name}_loss": value / self.updates for name, value in self.losses.items() if name != "total"}
        return {**means, "tokens_per_second": self.tokens / (time.monotonic() - (self.started or 0.0))}


def not_finite(loss: float, update: int) -> TrainingFailedError:
    """The error for a loss that is infinite or no number."""
    return TrainingFailedError(
        tr(
            en=f"the loss is not finite: got {loss} at update {update}. "
            "Lower training.learning_rate; the best model so far is kept.",
            zh=f"损失不是有限值：第 {update} 次更新时为 {loss}。请降低 training.learning_rate；目前最好的模型已保留。",
        )
    )
