"""The objective straight from hidden states: output head, both losses and their gradient, a chunk of tokens at a time.

No tensor of tokens x vocabulary longer than one chunk ever exists. What the losses are is defined, plainly, in
`mtdistill.distillation.losses`; a property test compares the two. The idea of chunks with a gradient in closed form is
that of Liger Kernel (Hsu et al. 2024, arXiv:2410.10989). Imported by distillation and teacher; imports kernels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from mtdistill.kernels.objective import objective_gradient

# The rows of a chunk are worked through one by one, so its logits need not fit a cache; larger chunks read the output
# heads less often and add up fewer gradients of them. 256 x 6,000 bfloat16 logits are 3 MB.
CHUNK_TOKENS = 256


class FusedLoss(NamedTuple):
    """Sums over tokens, scalars; only `total` carries a gradient."""

    total: Tensor
    kd: Tensor
    gold: Tensor


def fused_loss(states: Tensor, head: Tensor, labels: Tensor, teacher_states: Tensor | None = None,
               teacher_head: Tensor | None = None, *, temperature: float = 1.0, alpha: float = 0.0, beta: float = 1.0,
               label_smoothing: float = 0.0, chunk_tokens: int = CHUNK_TOKENS) -> FusedLoss:  # fmt: skip
    """Sum over tokens of alpha * temperature² * KL(teacher || student) + beta * smoothed cross-entropy.

    Args:
        states: (tokens, width) in the type of the matrix products; logits are states @ head.T.
        head: (vocabulary, width), float32 or float64.
        labels: (tokens,) int64.
        teacher_states: (tokens, teacher width), or None: no teacher, and `kd` is 0.
        teacher_head: (vocabulary, teacher width) in the type of the states.
        temperature: > 0.
        alpha: weight of the teacher, >= 0.
        beta: weight of the gold text, >= 0.
        label_smoothing: in [0, 1).
        chunk_tokens: tokens at a time, > 0.
    """
    weights = (temperature, alpha, beta, label_smoothing)
    total, kd, gold = _apply(states, head, labels, teacher_states, teacher_head, weights, chunk_tokens)
    return FusedLoss(total, kd, gold)


def _chunks(tokens: int, longest: int) -> list[slice]:
    """Chunks of about equal length, in multiples of 16 tokens where that is possible: a short rest costs like a long one."""
    count = -(-tokens // longest)
    size = min(longest, -(-tokens // max(1, count) // 16) * 16)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)] if tokens else []


class _FusedLoss(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, labels: Tensor, teacher_states: Tensor | None,
                teacher_head: Tensor | None, weights: tuple[float, float, float, float],
                chunk_tokens: int) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        temperature, alpha, beta, label_smoothing = weights
        squared = temperature**2
        projection = head.to(states.dtype)
        states_gradient, head_gradient = torch.empty_like(states), None
        kd_sum = gold_sum = 0.0
        for chunk in _chunks(len(labels), chunk_tokens):
            logits = torch.mm(states[chunk], projection.T)
            teacher_logits = None
            if teacher_states is not None and teacher_head is not None:
                teacher_logits = torch.mm(teacher_states[chunk], teacher_head.T)
            kd, gold = objective_gradient(
                logits, teacher_logits, labels[chunk], temperature=temperature, kd_weight=alpha * squared,
                gold_weight=beta, label_smoothing=label_smoothing,
            )  # fmt: skip
            kd_sum, gold_sum = kd_sum + squared * kd, gold_sum + gold
            torch.mm(logits, projection, out=states_gradient[chunk])
            product = torch.mm(logits.T, states[chunk])
            # Begun with the first product: adding it to zeros would write a whole table once more.
            head_gradient = product.to(head.dtype) if head_gradient is None else head_gradient.add_(product)
        ctx.save_for_backward(states_gradient, torch.zeros_like(head) if head_gradient is None else head_gradient)
        # A term of weight 0 stays out altogether: 0 times a loss that is not finite would not be 0.
        total = sum(weight * loss for weight, loss in ((alpha, kd_sum), (beta, gold_sum)) if weight > 0)
        losses = [head.new_tensor(loss) for loss in (total, kd_sum, gold_sum)]
        ctx.mark_non_differentiable(*losses[1:])
        return losses[0], losses[1], losses[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, head_gradient = ctx.saved_tensors
        outer = gradients[0]
        return states_gradient * outer.to(states_gradient.dtype), head_gradient * outer, None, None, None, None, None


_apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _FusedLoss.apply
