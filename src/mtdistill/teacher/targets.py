"""A teacher as a source of targets: what comes out is the same whether it runs live or was stored before.

Imported by the distillation trainer; imports training.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import IGNORED_LABEL
from mtdistill.training.trainer import teacher_forced_logits


class TargetSource(Protocol):
    """Gives the teacher's logits for the real target tokens of a batch."""

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(tokens, vocabulary), in the order of ``labels[labels != -100]``; without gradient."""
        ...


class LiveTargets:
    """Runs the teacher on every batch.

    Args:
        teacher: put into evaluation mode; not changed otherwise.
    """

    def __init__(self, teacher: T5ForConditionalGeneration) -> None:
        self._teacher = teacher.eval()

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(tokens, vocabulary); see `TargetSource`."""
        return teacher_forced_logits(self._teacher, inputs)[inputs["labels"] != IGNORED_LABEL]
