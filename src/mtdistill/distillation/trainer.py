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
from mtdistill.distillation.probe import Probe, Probed
from mtdistill.health.monitor import Monitor
from mtdistill.health.outputs import Outputs
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
        probe: looks at the objective at every evaluation, which adds the score `loss`; None: not.
        outputs: what the last evaluation wrote, for the monitor.
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
        probe: Probe | None = None,
        outputs: Callable[[], Outputs | None] = lambda: None,
        monitor: Monitor | None = None,
        engine: Engine = ONE_THREAD,
    ) -> None:
        super().__init__(
            model, dataset, schedule, folder, self._probed(validate) if probe else validate, save_best=save_best,
            callbacks=callbacks, monitor=monitor, engine=engine,
        )  # fmt: skip
        self.targets, self.objective = targets, objective
        self._probe, self._outputs = probe, outputs
        self._last_probed: Probed | None = None

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
        if self.watch and self.watch.monitor.memory.temperature is not None:
            return self.watch.monitor.memory.temperature
        progress = self.state.global_step / max(1, self.state.max_steps - 1)  # 1 in the last update
        return temperature_at(progress, self.objective.temperature, self.objective.final_temperature)

    def probe(self, model: T5ForConditionalGeneration) -> Probed | None:
        """The objective on some validation sentences; None without a probe."""
        return self._probe(model, self.objective, self.temperature) if self._probe else None

    def evaluated(self) -> tuple[Outputs | None, Probed | None]:
        """See `TranslationTrainer.evaluated`."""
        return self._outputs(), self._last_probed

    def _probed(self, validate: Validate) -> Validate:
        def both(model: T5ForConditionalGeneration) -> Mapping[str, float]:
            scores = validate(model)
            self._last_probed = self.probe(model)
            return {**scores, "loss": self._last_probed.loss} if self._last_probed else scores

        return both
