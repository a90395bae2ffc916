"""`DistillationTrainer`: the shared training loop with the distillation objective.

Imported by the pipeline; imports training, teacher.targets, distillation.losses.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.config import KdConfig
from mtdistill.data.batches import IGNORED_LABEL
from mtdistill.distillation.losses import kd_loss, temperature_at
from mtdistill.teacher.targets import TargetSource
from mtdistill.training.trainer import Schedule, TranslationTrainer, Validate, teacher_forced_logits


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
    ) -> None:
        super().__init__(model, dataset, schedule, folder, validate, save_best=save_best, callbacks=callbacks)
        self.targets, self.objective = targets, objective

    def token_losses(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Sums over the tokens of the micro-batch: `total`, `kd` (with T²) and `gold`."""
        real = inputs["labels"] != IGNORED_LABEL
        progress = self.state.global_step / max(1, self.state.max_steps - 1)  # 1 in the last update
        loss = kd_loss(
            teacher_forced_logits(model, inputs)[real],
            self.targets.logits(inputs),
            inputs["labels"][real],
            temperature=temperature_at(progress, self.objective.temperature, self.objective.final_temperature),
            alpha=self.objective.alpha,
            beta=self.objective.beta,
            label_smoothing=self.objective.label_smoothing,
            count=1,  # the sum: compute_loss divides by the tokens of the whole update
        )
        return loss._asdict()
