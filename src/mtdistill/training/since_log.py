"""What is shown at the next log of a training. Imported by training.trainer."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class SinceLog:
    """What is shown at the next log; `started` is None before the first loss."""

    started: float | None = None
    losses: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    updates: float = 0.0  # every micro-batch adds its share of the tokens of its update

    def add(self, losses: Mapping[str, float], tokens: int, count: int) -> None:
        """Of some sentences: mean losses over the update they belong to, their tokens, and those of the update."""
        for name, value in losses.items():
            self.losses[name] += value
        self.tokens += tokens
        self.updates += tokens / count

    def figures(self) -> dict[str, float]:
        """Mean of each part of the loss, and target tokens per second."""
        means = {f"{name}_loss": value / self.updates for name, value in self.losses.items() if name != "total"}
        return {**means, "tokens_per_second": self.tokens / (time.monotonic() - (self.started or 0.0))}
