"""A teacher as a source of targets: what comes out is the same whether it runs live or was stored before.

A target is the state that the teacher's output head reads, not its logits: one matrix product with the head gives the
exact distribution over the whole vocabulary at any temperature, from width x 2 bytes a token. Imported by distillation
and teacher.state_cache; imports data, modeling and training.
"""

from typing import Protocol

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch
from mtdistill.modeling.packed import decoder_states, supports
from mtdistill.modeling.padded import teacher_forced
from mtdistill.training.engine import ONE_THREAD, Engine


class TargetSource(Protocol):
    """Gives the teacher's states for the target tokens of a batch."""

    @property
    def head(self) -> Tensor:
        """(vocabulary, teacher width): logits are states @ head.T."""
        ...

    def states(self, batch: PackedBatch) -> Tensor:
        """(target tokens, teacher width), in the order of the labels, in the type of the head; without gradient."""
        ...


class LiveTargets:
    """Runs the teacher on every batch.

    Args:
        teacher: put into evaluation mode; not changed otherwise.
        engine: what it runs with.
    """

    def __init__(self, teacher: T5ForConditionalGeneration, engine: Engine = ONE_THREAD) -> None:
        self.teacher, self._dtype = teacher.eval(), engine.dtype
        self._fused = engine.fused and supports(teacher)
        self.head = teacher.lm_head.weight.detach().to(engine.dtype)

    @torch.no_grad()
    def states(self, batch: PackedBatch) -> Tensor:
        """See `TargetSource`."""
        teacher = self.teacher
        if self._fused:
            return decoder_states(teacher, batch, self._dtype)
        with torch.autocast(teacher.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            _, found = teacher_forced(teacher, batch, start_id=teacher.config.decoder_start_token_id)
        scale = teacher.config.d_model**-0.5 if getattr(teacher.config, "scale_decoder_outputs", True) else 1.0
        return (found.float() * scale).to(self._dtype)
