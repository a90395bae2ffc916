"""`DistillationTrainer`: the shared training loop with the distillation objective.

Imported by distillation.forecast, distillation.preflight, distillation.roofline and distillation.student_run; imports
config, data, health, teacher, training, distillation.budget, distillation.losses, distillation.pieces and
distillation.probe.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.config import KdConfig, RunConfig
from mtdistill.data.batches import PackedBatch
from mtdistill.distillation.budget import training_schedule
from mtdistill.distillation.losses import kd_loss, state_distance, state_weight_at, temperature_at
from mtdistill.distillation.pieces import Pieces, PiecesByTurns
from mtdistill.distillation.probe import Probe, Probed
from mtdistill.health.monitor import Monitor
from mtdistill.health.outputs import Outputs
from mtdistill.teacher.targets import TargetSource
from mtdistill.training.callbacks import BestBy
from mtdistill.training.engine import ONE_THREAD, Engine
from mtdistill.training.fused_loss import fused_loss
from mtdistill.training.schedule import Schedule
from mtdistill.training.trainer import TranslationTrainer, Validate

# chrF2 varies less from sentence to sentence than BLEU; on 500 sources the difference of two evaluations of one run still has
# a standard error of 0.33 to 0.52 (docs/decisions/0015-which-student-is-the-best.md).
BEST_BY = BestBy("chrf", margin=0.5)


class DistillationTrainer(TranslationTrainer):
    """Minimises alpha x T² x KL(teacher || student) + beta x cross-entropy with the gold text.

    With a `state_weight` the student's last states are also turned towards the teacher's. The value of the loss does not
    tell of that, so that it means the same at every moment of a run and in every run.

    Args:
        model: the student, trained in place.
        targets: where the teacher's distributions come from.
        objective: temperature, weights, label smoothing.
        readout: the teacher's last states to the student's, see `StudentBuild`; None: `state_weight` has no effect.
        pieces: what both losses look at in each update; None: the whole vocabulary.
        probe: looks at the objective at every evaluation, which adds the score `loss`; None: not.
        outputs: what the last evaluation wrote, for the monitor.
        validate: "chrf" of its scores chooses the best student, see `BEST_BY`.
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
        readout: Tensor | None = None,
        pieces: PiecesByTurns | None = None,
        save_best: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None] = lambda _model, _scores: None,
        callbacks: Sequence[TrainerCallback] = (),
        probe: Probe | None = None,
        outputs: Callable[[], Outputs | None] = lambda: None,
        monitor: Monitor | None = None,
        engine: Engine = ONE_THREAD,
        keep_engine: Callable[[Engine], None] = lambda _engine: None,
    ) -> None:
        super().__init__(
            model, dataset, schedule, folder, self._probed(validate) if probe else validate, save_best=save_best,
            callbacks=callbacks, monitor=monitor, engine=engine, keep_engine=keep_engine, best_by=BEST_BY,
        )  # fmt: skip
        self.targets, self.objective = targets, objective
        self._readout = readout if objective.state_weight else None
        self._pieces, self._probe, self._outputs = pieces, probe, outputs
        self._last_probed: Probed | None = None

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """Sums over the tokens of the batch: `total`, `kd` (with T²) and `gold`; `states` where they count."""
        objective = self.objective
        with self.phases.measure("teacher"):
            teacher_states, teacher_head = self.targets.states(batch), self.targets.head
        labels = batch.labels
        if pieces := self._pieces_now(labels):
            head, teacher_head = head.index_select(0, pieces.ids), teacher_head.index_select(0, pieces.ids)
            labels = pieces.places[labels]
        loss = fused_loss(
            states, head, labels, teacher_states, teacher_head, temperature=self.temperature,
            alpha=objective.alpha, beta=objective.beta, label_smoothing=objective.label_smoothing,
        )  # fmt: skip
        return self._with_states(loss._asdict(), states, teacher_states)

    def losses_from_logits(self, logits: Tensor, states: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """The same, plainly."""
        objective, teacher_states, labels = self.objective, self.targets.states(batch), batch.labels
        teacher_logits = teacher_states @ self.targets.head.T
        if pieces := self._pieces_now(labels):
            logits, teacher_logits = logits[:, pieces.ids], teacher_logits[:, pieces.ids]
            labels = pieces.places[labels]
        loss = kd_loss(
            logits, teacher_logits, labels, temperature=self.temperature, alpha=objective.alpha,
            beta=objective.beta, label_smoothing=objective.label_smoothing,
            count=1,  # the sum: it is divided by the tokens of the whole update
        )  # fmt: skip
        return self._with_states(loss._asdict(), states, teacher_states)

    def _pieces_now(self, labels: Tensor) -> Pieces | None:
        """What is looked at in this update; None: everything."""
        pieces = self._pieces.at(self.state.global_step) if self._pieces else None
        # Labels that nobody has told `pieces_by_turns` of would be mistaken for other pieces.
        return pieces if pieces and bool((pieces.places[labels] >= 0).all()) else None

    def _with_states(
        self, losses: Mapping[str, Tensor], states: Tensor, teacher_states: Tensor
    ) -> Mapping[str, Tensor]:
        if self._readout is None:
            return losses
        weight = state_weight_at(self._progress, self.objective.state_weight)
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            distance = state_distance(states, teacher_states, self._readout).sum()
        pull = weight * (distance - distance.detach())  # 0, with a gradient
        return {**losses, "total": losses["total"] + pull, "states": distance.detach()}

    @property
    def _progress(self) -> float:
        """0 in the first update, 1 in the last."""
        return float(self.state.global_step / max(1, self.state.max_steps - 1))

    @property
    def temperature(self) -> float:
        """Of the update that is being computed."""
        return self._temperature_at(self._progress)

    def _temperature_at(self, progress: float) -> float:
        if self.watch and self.watch.monitor.memory.temperature is not None:
            return self.watch.monitor.memory.temperature
        return temperature_at(progress, self.objective.temperature, self.objective.final_temperature)

    def probe(self, model: T5ForConditionalGeneration) -> Probed | None:
        """The objective on some validation sentences; None without a probe."""
        return self._probe(model, self.objective, self.temperature, self._temperature_at(1.0)) if self._probe else None

    def evaluated(self) -> tuple[Outputs | None, Probed | None]:
        """See `TranslationTrainer.evaluated`."""
        return self._outputs(), self._last_probed

    def _probed(self, validate: Validate) -> Validate:
        def both(model: T5ForConditionalGeneration) -> Mapping[str, float]:
            scores = validate(model)
            self._last_probed = self.probe(model)
            return {**scores, "loss": self._last_probed.loss} if self._last_probed else scores

        return both


def rehearsal_trainer(
    config: RunConfig, student: T5ForConditionalGeneration, targets: TargetSource, rows: Dataset, folder: Path,
    engine: Engine, pieces: PiecesByTurns | None = None,
) -> DistillationTrainer:  # fmt: skip
    """For the time that updates take: nothing is validated or kept, and a student with random weights will do.

    Args:
        config: settings of a run.
        student: its weights will move.
        targets: see `DistillationTrainer`.
        rows: what is trained on.
        folder: for scratch.
        engine: what to compute with.
        pieces: see `DistillationTrainer`.
    """
    readout = torch.ones(targets.head.shape[1], student.config.d_model)
    return DistillationTrainer(
        student, targets, config.kd, rows, training_schedule(config.training), folder, lambda _: {}, readout=readout,
        pieces=pieces, engine=engine,
    )  # fmt: skip
