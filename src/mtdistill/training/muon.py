"""Muon (Jordan et al. 2024): the momentum of a matrix is made about orthogonal before the matrix moves by it.

The rule of torch.optim.Muon, in bfloat16 bit for bit, with two things that it does not offer: threads share the matrices,
and the number format of the products is a choice. In bfloat16, the only one there, a processor that has no instructions for
it takes 12 times as long as in float32, and an update of `quick` then 4.4 times as long (docs/experiments.md, 2026-11-27).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Calls a function with shares of the places of some things, of which it knows the sizes.
SideBySide = Callable[[Callable[[Sequence[int]], None], Sequence[int]], object]

_MOMENTUM = 0.95
_RMS = 0.2  # of a step at a learning rate of 1: about that of AdamW (Liu et al. 2025, arXiv:2502.16982)
_ITERATIONS = 5
# Of the polynomial a x + b x^3 + c x^5: singular values grow as fast from nothing as they can, and end near 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_SMALLEST_NORM = 1e-7
# Columns for each row from which the iterations take fewer multiplications on the gram matrix alone.
_WIDE = 1.5


class Muon(torch.optim.Optimizer):
    """Moves matrices; the step is scaled to the size AdamW's would have, so that one learning rate serves both.

    Args:
        matrices: with two dimensions each.
        learning_rate: > 0.
        weight_decay: >= 0, multiplied with the learning rate.
        dtype: of the products inside `orthogonal`.
        side_by_side: has threads share the matrices; what they become does not depend on it.
    """

    def __init__(self, matrices: Sequence[Tensor], learning_rate: float, weight_decay: float, dtype: torch.dtype,
                 side_by_side: SideBySide) -> None:  # fmt: skip
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})
        self._dtype, self._side_by_side = dtype, side_by_side

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        moved = [
            (matrix, group) for group in self.param_groups for matrix in group["params"] if matrix.grad is not None
        ]

        def move(places: Sequence[int]) -> None:
            with torch.no_grad():  # a thread has a mode of its own
                for place in places:
                    self._move(*moved[place])

        self._side_by_side(move, [matrix.numel() for matrix, _ in moved])

    def _move(self, matrix: Tensor, group: dict[str, Any]) -> None:
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        step = orthogonal(gradient.lerp(momentum, _MOMENTUM), self._dtype)  # Nesterov: where momentum will lead
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(step, alpha=-group["lr"] * _RMS * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the nearest matrix whose singular values are all 1.

    Those that are at least a hundredth of the norm end between 0.68 and 1.14, which serves as well.

    Args:
        matrix: (rows, columns), not changed.
        dtype: number format of the products and of the result.
    """
    upright = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    x = x.T if upright else x
    x = x / x.norm().clamp(min=_SMALLEST_NORM)
    if dtype != torch.bfloat16 and x.shape[1] > _WIDE * x.shape[0]:
        x = _all_iterations(x @ x.T) @ x
    else:
        for _ in range(_ITERATIONS):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if upright else x


def _all_iterations(gram: Tensor) -> Tensor:
    """What the iterations multiply a matrix by, out of its gram matrix x xᵀ: (rows, rows) instead of (rows, columns).

    Each is a product with a I + b g + c g², which makes of g itself the same product from both sides. Singular values
    are squared in it, too much for the eight bits of bfloat16.
    """
    step = product = _iteration(gram)
    for _ in range(_ITERATIONS - 1):
        gram = step @ gram @ step
        step = _iteration(gram)
        product = step @ product
    return product


def _iteration(gram: Tensor) -> Tensor:
    step = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    step.diagonal().add_(_A)
    return step
