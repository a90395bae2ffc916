"""The training objective: divergence from the teacher, error against the gold text, and how they add up.

`forward_kl`, `gold_loss` and `state_distance` give one value per token, `token_mean` reduces, `kd_loss` weighs the
first two and applies temperature² once. Pure torch: knows nothing of models, batches or transformers. Imported by
distillation.probe and distillation.trainer.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mtdistill.errors import TeacherError
from mtdistill.messages import tr

IGNORED_LABEL = -100
STATES_UNTIL = 0.8  # share of a run after which states no longer count, so that it ends on what it is judged by


class DistillationLoss(NamedTuple):
    """Scalars, float32. `total` = alpha * kd + beta * gold, and only `total` carries a gradient."""

    total: Tensor
    kd: Tensor
    gold: Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the softened next-token distributions, one value per token.

    sum over v of p_teacher(v) * (log p_teacher(v) - log p_student(v)) with p = softmax(logits / temperature).
    Neither multiplied by temperature² (`kd_loss` does that) nor masked or averaged (`token_mean` does that).

    Args:
        student_logits: (..., vocabulary), any float type; computed in float32.
        teacher_logits: same shape, same order of the vocabulary; gets no gradient.
        temperature: > 0, dimensionless; 1 leaves the distributions as they are.

    Returns:
        (...) float32, nats per token, >= 0, exactly 0 where the logits are equal.

    Raises:
        TeacherError: the two shapes differ.
        ValueError: temperature is not positive.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2; for translation Kim & Rush 2016 (arXiv:1606.07947).

    >>> teacher = torch.tensor([0.75, 0.25]).log()
    >>> round(forward_kl(torch.zeros(2), teacher).item(), 4)
    0.1308
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if student_logits.shape != teacher_logits.shape:
        got = f"{tuple(student_logits.shape)} / {tuple(teacher_logits.shape)}"
        message = tr(
            en=f"student and teacher cannot be compared: got logits of the shapes {got}, accepted two equal shapes. "
            "Use the teacher's tokenizer for the student, or clear the cache of teacher targets.",
            zh=f"无法比较学生模型和教师模型：两者的 logits 形状为 {got}，必须相同。"
            "请让学生模型使用教师模型的分词器，或清除教师目标的缓存。",
        )
        raise TeacherError(message)
    student = _log_probs(student_logits, temperature)
    with torch.no_grad():
        teacher = _log_probs(teacher_logits, temperature)
        weights = teacher.exp()
    divergence = (weights * (teacher - student)).sum(-1)
    # Rounding leaves values like -1e-8; lifted in value only, so that the gradient stays what it is.
    return divergence + (divergence.clamp_min(0) - divergence).detach()


def gold_loss(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the gold tokens, one value per token.

    Args:
        student_logits: (..., vocabulary), any float type; computed in float32.
        labels: (...) token ids; `IGNORED_LABEL` gives 0 here and is left out by `token_mean`.
        label_smoothing: share in [0, 1) of the target spread evenly over the whole vocabulary.

    Returns:
        (...) float32, nats per token.

    >>> round(gold_loss(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([1])).item(), 4)
    1.3863
    """
    losses = functional.cross_entropy(
        student_logits.float().flatten(0, -2),
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return losses.view(labels.shape)


def state_distance(states: Tensor, teacher_states: Tensor, readout: Tensor) -> Tensor:
    """1 - cosine of the angle between what the two output heads read, one value per token.

    Args:
        states: (tokens, width) of the student, any float type.
        teacher_states: (tokens, teacher width), the same type; gets no gradient.
        readout: (teacher width, width), see `mtdistill.student.projection.Projection.readout`.

    Returns:
        (tokens,) float32 (float64 for float64 states), in [0, 2].

    Source: the cosine loss of DistilBERT (Sanh et al. 2019, arXiv:1910.01108), which takes students as wide as their
    teacher.
    """
    wanted = torch.mm(teacher_states.detach(), readout.to(teacher_states))
    exact = torch.float64 if states.dtype == torch.float64 else torch.float32
    return 1 - functional.cosine_similarity(states.to(exact), wanted.to(exact), dim=-1)


def token_mean(values: Tensor, mask: Tensor, count: int | Tensor | None = None) -> Tensor:
    """Sum of the values where the mask is true, divided by a number of tokens.

    Values outside the mask are not looked at, whatever they hold.

    Args:
        values: (...) float, one per token.
        mask: (...) bool, true at real tokens.
        count: tokens of the whole update, over all micro-batches and processes, so that any way of cutting a batch
            adds up to the same gradient. None: those of this mask.

    Returns:
        Scalar; 0 for an empty mask.
    """
    total = values[mask].sum()
    return total / (mask.sum() if count is None else torch.as_tensor(count, device=total.device)).clamp_min(1)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
    label_smoothing: float = 0.0,
    count: int | Tensor | None = None,
) -> DistillationLoss:
    """Mean over tokens of alpha * temperature² * KL(teacher || student) + beta * cross-entropy with the gold text.

    The factor temperature² keeps the size of the gradient about the same at every temperature (Hinton et al. 2015,
    section 2).
    Padding is cut out before anything is computed, so it has no influence even where its logits are not finite.

    Args:
        student_logits: (..., vocabulary), any float type; computed in float32.
        teacher_logits: same shape; gets no gradient.
        labels: (...) gold token ids, `IGNORED_LABEL` at padding.
        temperature: > 0, softens both distributions of the KL; the gold term is always at 1.
        alpha: weight of the teacher, >= 0.
        beta: weight of the gold text, >= 0. At weight 0 a term is still reported, without gradient.
        label_smoothing: of the gold term, in [0, 1).
        count: see `token_mean`.

    Returns:
        Means over the real tokens: total, temperature² * KL, cross-entropy.
    """
    real = labels != IGNORED_LABEL
    student, teacher = _real_tokens(student_logits, real), _real_tokens(teacher_logits, real)  # (tokens, vocabulary)
    gold_ids = labels[real]
    everything = torch.ones_like(gold_ids, dtype=torch.bool)
    with torch.set_grad_enabled(alpha > 0 and torch.is_grad_enabled()):
        divergence = forward_kl(student, teacher, temperature=temperature)
        kd = temperature**2 * token_mean(divergence, everything, count)
    with torch.set_grad_enabled(beta > 0 and torch.is_grad_enabled()):
        gold = token_mean(gold_loss(student, gold_ids, label_smoothing=label_smoothing), everything, count)
    # A term of weight 0 stays out altogether: 0 times a loss that is not finite would not be 0.
    total = sum((weight * term for weight, term in ((alpha, kd), (beta, gold)) if weight > 0), torch.zeros_like(gold))
    return DistillationLoss(total, kd.detach(), gold.detach())


def temperature_at(progress: float, start: float, end: float | None) -> float:
    """The temperature at a point of the run: linear from start to end, constant where end is None.

    Args:
        progress: share of the run that is done; clamped to [0, 1].
        start: temperature of the first update.
        end: temperature of the last update.

    >>> [temperature_at(progress, 4.0, 1.0) for progress in (0.0, 0.5, 1.0)]
    [4.0, 2.5, 1.0]
    """
    if end is None:
        return start
    return start + (end - start) * min(1.0, max(0.0, progress))


def state_weight_at(progress: float, start: float) -> float:
    """The weight of `state_distance` at a point of the run: linear from start to 0 at `STATES_UNTIL`.

    Args:
        progress: share of the run that is done, >= 0.
        start: weight in the first update.

    >>> [state_weight_at(progress, 100.0) for progress in (0.0, 0.4, 0.9)]
    [100.0, 50.0, 0.0]
    """
    return start * max(0.0, 1 - progress / STATES_UNTIL)


def _log_probs(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.float()
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def _real_tokens(logits: Tensor, real: Tensor) -> Tensor:
    """(tokens, vocabulary) of the real tokens; a view where there is no padding, since a copy is vocabulary-sized."""
    return logits.flatten(0, -2) if bool(real.all()) else logits[real]
