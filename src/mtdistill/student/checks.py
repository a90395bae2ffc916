"""A question to a new student before any training: does it beat noise?

Imported by distillation; imports student.moments.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mtdistill.errors import StudentError
from mtdistill.messages import tr
from mtdistill.student.moments import Batch


@dataclass(frozen=True)
class StartCheck:
    """Divergence from the teacher before training, KL(teacher || student) in nats per token at temperature 1."""

    kl_student: float
    kl_random: float


@torch.no_grad()
def check_student_start(
    student: T5ForConditionalGeneration,
    teacher: T5ForConditionalGeneration,
    batches: Iterable[Batch],
    random_student: T5ForConditionalGeneration,
) -> StartCheck:
    """Compare a student that was made from the teacher with one of the same shape that was not.

    Args:
        student: from `build_student`.
        teacher: what it was made from.
        batches: (input_ids, attention_mask, labels); a hundred sentences are enough.
        random_student: the same blueprint with initialisation "random".

    Raises:
        StudentError: the student is no closer to the teacher than the random one, so that something went wrong.
    """
    divergence = {"student": 0.0, "random": 0.0}
    tokens = 0
    for batch in batches:
        target = _log_probs(teacher, batch)
        tokens += len(target)
        for name, model in (("student", student), ("random", random_student)):
            kl = functional.kl_div(_log_probs(model, batch), target, reduction="sum", log_target=True)
            divergence[name] += kl.item()
    check = StartCheck(divergence["student"] / max(1, tokens), divergence["random"] / max(1, tokens))
    if not check.kl_student < check.kl_random:
        message = tr(
            en=f"the student does not resemble its teacher: got a divergence of {check.kl_student:.3f} nats per token, "
            f"accepted less than {check.kl_random:.3f}, that of random weights. Check that the teacher translates well "
            "and that the sentences are in its languages, or keep more of it (student.width_ratio, "
            "student.decoder_layers).",
            zh=f"学生模型与教师模型不相似：每个词元的散度为 {check.kl_student:.3f} nat，应小于随机权重的 "
            f"{check.kl_random:.3f}。请检查教师模型的翻译质量以及句子的语言是否正确，或保留教师模型的更多部分"
            "（student.width_ratio、student.decoder_layers）。",
        )
        raise StudentError(message)
    return check


def _logits(model: T5ForConditionalGeneration, batch: Batch) -> Tensor:
    """(tokens, vocabulary) at the real tokens, float32, without dropout."""
    input_ids, attention_mask, labels = batch
    was_training = model.training
    model.train(False)
    logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).logits
    model.train(was_training)
    return logits[labels != -100].float()


def _log_probs(model: T5ForConditionalGeneration, batch: Batch) -> Tensor:
    return torch.log_softmax(_logits(model, batch), dim=-1)
