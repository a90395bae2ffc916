"""What flows through a teacher: second moments of its activations over real tokens, measured with forward hooks.

Slicing reads from them which directions of the residual stream carry signal, and which feed-forward units and heads
matter. Imported by distillation, student.checks, student.projection and student.slicing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

# (input_ids, attention_mask, labels), each (batch, length); labels are -100 at padding
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass
class Moments:
    """Second moments by module name; every matrix is float64 and on the CPU.

    Attributes:
        streams: for each norm, the mean of x xᵀ over its inputs x, (width, width), divided by its trace, so that all
            depths weigh the same although the stream grows with depth. (Tokens scaled to length one instead gave a
            student 2 % farther from its teacher at widths 154, 128 and 88 of 256.)
        inner: for each `o` and `wo`, the mean of a aᵀ over its inputs a, (inner width, inner width).
        tokens: how many tokens each stack saw.
    """

    streams: dict[str, Tensor] = field(default_factory=dict)
    inner: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)


@torch.no_grad()
def measure_moments(
    teacher: T5ForConditionalGeneration,
    batches: Iterable[Batch],
    progress: Callable[[int], None] | None = None,
) -> Moments:
    """Run the teacher over text and collect its moments; a few thousand tokens are enough.

    Args:
        teacher: a T5; its training mode is restored afterwards.
        batches: (input_ids, attention_mask, labels) tensors; padding is left out of every sum.
        progress: called with the number of batches done.
    """
    sums = Moments()

    def add(name: str, module: nn.Module, inputs: Tensor) -> None:
        if isinstance(module, T5LayerNorm):
            _accumulate(sums.streams, name, (inputs.double().T @ inputs.double()).cpu())
        else:
            # float32 is exact enough here and, at d_ff x d_ff, several times faster
            _accumulate(sums.inner, name, (inputs.float().T @ inputs.float()).double().cpu())

    was_training = teacher.training
    teacher.train(False)
    try:
        with watched_inputs(teacher, add) as real_tokens:
            for done, (input_ids, attention_mask, labels) in enumerate(batches, start=1):
                real_tokens["encoder"], real_tokens["decoder"] = attention_mask.bool(), labels != -100
                for stack, kept in real_tokens.items():
                    sums.tokens[stack] = sums.tokens.get(stack, 0) + int(kept.sum())
                teacher(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
                if progress is not None:
                    progress(done)
    finally:
        teacher.train(was_training)
    for stream in sums.streams.values():
        stream /= stream.trace()
    for name, inner in sums.inner.items():
        inner /= sums.tokens[name.split(".")[0]]
    return sums


@contextmanager
def watched_inputs(
    model: T5ForConditionalGeneration, see: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[dict[str, Tensor]]:
    """While open, `see(name, module, inputs)` gets the real tokens that enter each norm, `o` and `wo`: (tokens, width).

    Yields:
        A dict to be filled before each forward pass: for "encoder" and "decoder", the mask of real tokens.
    """
    real_tokens: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        stack = name.split(".")[0]
        return lambda module, inputs: see(name, module, inputs[0][real_tokens[stack]])

    hooks = [
        module.register_forward_pre_hook(hook_for(name))
        for name, module in model.named_modules()
        if isinstance(module, T5LayerNorm) or name.endswith((".o", ".wo"))
    ]
    try:
        yield real_tokens
    finally:
        for hook in hooks:
            hook.remove()


def _accumulate(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
