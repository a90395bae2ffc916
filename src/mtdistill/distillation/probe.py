"""What the objective looks like on a few validation sentences: its value, its balance, and how certain the student is.

Costs a forward pass at every evaluation. Imported by distillation.student_run and distillation.trainer; imports config,
data, modeling, teacher, distillation.losses and distillation.pieces.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.config import KdConfig
from mtdistill.data.batches import PackedBatch
from mtdistill.distillation.losses import kd_loss
from mtdistill.distillation.pieces import Pieces
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.teacher.targets import TargetSource

PROBED_SENTENCES = 100


@dataclass(frozen=True)
class Probed:
    """Of one evaluation.

    Attributes:
        loss: the objective, mean per token, at the temperature that the run ends with.
        student_entropy: of the next-token distribution, nats, mean over tokens.
        teacher_entropy: likewise.
        softened_entropy: of the teacher's distribution at the temperature of the objective.
        kd_norm: L2 norm of the gradient of alpha x T² x KL at the logits.
        gold_norm: of beta x cross-entropy.
    """

    loss: float
    student_entropy: float
    teacher_entropy: float
    softened_entropy: float
    kd_norm: float
    gold_norm: float


class Probe:
    """Called with a student it gives the figures.

    Args:
        batch: the sentences.
        targets: the live teacher; asked once.
        pieces: what the objective looks at; None: the whole vocabulary.
    """

    def __init__(self, batch: PackedBatch, targets: TargetSource, pieces: Pieces | None = None) -> None:
        self._batch, self._labels, self._pieces = batch, batch.labels, pieces
        self._teacher_logits = (targets.states(batch) @ targets.head.T).float()
        if pieces:
            self._teacher_logits = self._teacher_logits[:, pieces.ids]
            self._labels = pieces.places[self._labels]

    def __call__(
        self, model: T5ForConditionalGeneration, objective: KdConfig, temperature: float, last: float | None = None
    ) -> Probed:
        """Figures of the model as it is.

        Args:
            model: the student, in evaluation mode; in training mode the figures are those with dropout.
            objective: its weights and label smoothing.
            temperature: of the divergence now.
            last: of the divergence in the loss, so that losses of different moments can be compared; None: temperature.
        """
        with torch.no_grad():
            start_id = model.config.decoder_start_token_id
            logits = teacher_forced_logits(model, self._batch, start_id=start_id).float()
            logits = logits[:, self._pieces.ids] if self._pieces else logits
        weights = (objective.alpha, objective.beta, objective.label_smoothing)
        return Probed(
            loss=self._loss(logits, last or temperature, *weights).item(),
            student_entropy=_entropy(logits),
            teacher_entropy=_entropy(self._teacher_logits),
            softened_entropy=_entropy(self._teacher_logits / temperature),
            kd_norm=self._gradient_norm(logits, temperature, objective.alpha, 0.0, 0.0),
            gold_norm=self._gradient_norm(logits, temperature, 0.0, objective.beta, objective.label_smoothing),
        )

    def _gradient_norm(self, logits: Tensor, temperature: float, alpha: float, beta: float, smoothing: float) -> float:
        """Of one part of the objective, at the logits."""
        if not alpha and not beta:
            return 0.0
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._loss(leaf, temperature, alpha, beta, smoothing), leaf)
        norm: float = gradient.norm().item()
        return norm

    def _loss(self, logits: Tensor, temperature: float, alpha: float, beta: float, smoothing: float) -> Tensor:
        return kd_loss(
            logits, self._teacher_logits, self._labels, temperature=temperature, alpha=alpha, beta=beta,
            label_smoothing=smoothing,
        ).total  # fmt: skip


def _entropy(logits: Tensor) -> float:
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1).mean().item()
