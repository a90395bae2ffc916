"""How long and how fast a model is trained.

Imported by distillation, teacher, training.fused_updates and training.trainer; imports training.optimizer.
"""

import math
from dataclasses import dataclass

from mtdistill.training.optimizer import OptimizerName


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained; see `mtdistill.config.TrainingConfig` for units and ranges."""

    epochs: int
    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    weight_decay: float
    max_sequence_length: int
    optimizer: OptimizerName = "adamw"
    embedding_learning_rate_ratio: float = 1.0
    warmup_ratio: float = 0.1
    max_gradient_norm: float = 1.0
    ema_decay: float | None = None
    evaluations: int = 5
    checkpoints_kept: int = 2
    seed: int = 1
    per_epoch: int | None = None
    """Sentences of an epoch; None: all there are."""

    def updates(self, sentences: int, processes: int = 1) -> int:
        """Optimizer steps over the whole run; each of several processes takes a share of the batches."""
        micro_batches = math.ceil(math.ceil((self.per_epoch or sentences) / self.batch_size) / processes)
        return self.epochs * math.ceil(micro_batches / self.gradient_accumulation)
