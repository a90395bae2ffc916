"""`DistillationTrainer`: the shared training loop with the distillation objective.

Imported by the pipeline; imports training, teacher.targets, distillation.losses.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from torch import Tensor
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.config import KdConfig
from mtdistill.data.batches import PackedBatch
from mtdistill.distillation.losses import kd_loss, temperature_at
from mtdistill.teacher.targets import TargetSource
from mtdistill.training.engine import ONE_THREAD, Engine
from mtdistill.training.fused_loss import fused_loss
from mtdistill.training.schedule import Schedule
from mtdistill.training.trainer import TranslationTrainer, Validate


class DistillationTrainer(TranslationTrainer):
    """Minimises alpha x T² x KL(teacher || student) + beta x cross-entropy with the gold text.

    Args:
        model: the student, trained in place.
        targets: where the teacher's distributions come from.
        objective: temperature, weights, label smoothing.
        dataset: see `TranslationTrainer`, as are the others.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        targets: TargetSource,
        objective: KdConfig,
        dataset: Dataset,
        schedule: Schedule,
        folder: Path,
        validate: Validate,
        *,
        save_best: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None] = lambda _model, _scores: None,
        callbacks: Sequence[TrainerCallback] = (),
        engine: Engine = ONE_THREAD,
    ) -> None:
        super().__init__(
            model, dataset, schedule, folder, validate, save_best=save_best, callbacks=callbacks, engine=engine
        )
        self.targets, self.objective = targets, objective

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """Sums over the tokens of the batch: `total`, `kd` (with T²) and `gold`."""
        objective = self.objective
        with self.phases.measure("teacher"):
            teacher_states = self.targets.states(batch)
        loss = fused_loss(
            states, head, batch.labels, teacher_states, self.targets.head, temperature=self.temperature,
            alpha=objective.alpha, beta=objective.beta, label_smoothing=objective.label_smoothing,
        )  # fmt: skip
        return loss._asdict()

    def losses_from_logits(self, logits: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """The same, plainly."""
        objective, teacher_logits = self.objective, self.targets.states(batch) @ self.targets.head.T
        loss = kd_loss(
            logits, teacher_logits, batch.labels, temperature=self.temperature, alpha=objective.alpha,
            beta=objective.beta, label_smoothing=objective.label_smoothing,
            count=1,  # the sum: it is divided by the tokens of the whole update
        )  # fmt: skip
        return loss._asdict()

    @property
    def temperature(self) -> float:
        """Of the update that is being computed."""
        progress = self.state.global_step / max(1, self.state.max_steps - 1)  # 1 in the last update
        return temperature_at(progress, self.objective.temperature, self.objective.final_temperature)
