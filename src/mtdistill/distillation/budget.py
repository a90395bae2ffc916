"""The part of the settings that says how long, how fast and on what a student is trained.

Imported by the pipeline and the forecast; imports config, data, training.
"""

import datasets
import numpy as np

from mtdistill.config import TrainingConfig
from mtdistill.data.prepared import PreparedData
from mtdistill.training.schedule import Schedule


def training_schedule(training: TrainingConfig) -> Schedule:
    """The part of the settings that the shared trainer reads."""
    return Schedule(
        epochs=training.epochs,
        batch_size=training.batch_size,
        gradient_accumulation=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_sequence_length=training.max_sequence_length,
        optimizer=training.optimizer,
        embedding_learning_rate_ratio=training.embedding_learning_rate_ratio,
        warmup_ratio=training.warmup_ratio,
        max_gradient_norm=training.max_gradient_norm,
        ema_decay=training.ema_decay,
        evaluations=training.evaluations,
        checkpoints_kept=training.checkpoints_kept,
        seed=training.seed,
    )


def training_rows(data: PreparedData, training: TrainingConfig) -> datasets.Dataset:
    """The share of the training split that is used: the same sentences for the same seed."""
    rows = data.split("train")
    count = max(1, round(len(rows) * training.data_ratio))
    if count == len(rows):
        return rows
    chosen = np.random.default_rng(training.seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))
