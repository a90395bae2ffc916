"""The part of the settings that says how long, how fast and on what a student is trained.

Imported by cli, distillation.forecast, distillation.roofline, distillation.student_run and distillation.trainer;
imports config, data and training.
"""

import datasets
import numpy as np

from mtdistill.config import RunConfig, TrainingConfig
from mtdistill.data.prepared import PreparedData
from mtdistill.training.schedule import Schedule


def pairs_per_epoch(config: RunConfig, gold: int) -> int | None:
    """How many of the pairs an epoch has; None: all.

    Args:
        config: of the run.
        gold: pairs of the training text, without the teacher's translations.
    """
    return gold if config.teacher.pseudo_targets_take_turns else None


def training_schedule(training: TrainingConfig, per_epoch: int | None = None) -> Schedule:
    """The part of the settings that the shared trainer reads; for `per_epoch` see `pairs_per_epoch`."""
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
        per_epoch=per_epoch,
    )


def training_rows(data: PreparedData, training: TrainingConfig) -> datasets.Dataset:
    """The share of the training split that is used: the same sentences for the same seed."""
    rows = data.split("train")
    count = max(1, round(len(rows) * training.data_ratio))
    if count == len(rows):
        return rows
    chosen = np.random.default_rng(training.seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))
