"""The sublayers of a T5 over packed tokens, each with a gradient written out by hand.

A residual stream is (tokens, width) in float32 (float64 in tests). Every sublayer norms it, runs its matrix products in
a given number format, and adds its result to the stream. The derivatives follow the usual ones; `tests/modeling`
compares them with autograd's. Imported by modeling.packed; imports kernels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from mtdistill.kernels.attention import Attending, Projected, attention, attention_backward
from mtdistill.kernels.dropout import drop
from mtdistill.kernels.norm import rms_norm, rms_norm_backward
from mtdistill.kernels.numbers import Array


@dataclass(frozen=True)
class Dropout:
    """A rate in (0, 1) and the seed of one place in one pass; None stands for no dropout."""

    rate: float
    seed: int


class Norm(Function):
    """RMS norm; the result has the type of the matrix product that reads it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        """(tokens, width) to the same shape."""
        normed, inverse = rms_norm(x, gain, epsilon, dtype)
        ctx.save_for_backward(x, gain, inverse)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of x and gain."""
        return (*rms_norm_backward(gradients[0].contiguous(), *ctx.saved_tensors), None, None)


class Drop(Function):
    """Dropout on a matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout) -> Tensor:
        """Any matrix."""
        ctx.dropout = dropout
        return drop(x.contiguous(), dropout.rate, dropout.seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The same mask again."""
        return drop(gradients[0].contiguous(), ctx.dropout.rate, ctx.dropout.seed), None


class FeedForward(Function):
    """x + drop(drop(relu(norm(x) wi^T)) wo^T)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, wi: Tensor, wo: Tensor, epsilon: float, dtype: torch.dtype,
                inner: Dropout | None, outer: Dropout | None) -> Tensor:  # fmt: skip
        """(tokens, width) to the same shape."""
        normed, inverse = rms_norm(x, gain, epsilon, dtype)
        wi, wo = wi.to(dtype), wo.to(dtype)
        hidden = torch.mm(normed, wi.T).relu_()
        if inner is not None:
            hidden = drop(hidden, inner.rate, inner.seed)
        ctx.save_for_backward(x, gain, inverse, normed, hidden, wi, wo)
        ctx.inner, ctx.outer = inner, outer
        return _add(x, torch.mm(hidden, wo.T), outer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, gain, wi and wo."""
        x, gain, inverse, normed, hidden, wi, wo = ctx.saved_tensors
        stream = gradients[0].contiguous()
        result = _into(stream, normed.dtype, ctx.outer)
        # What dropout took out of `hidden` is 0 there, as is what relu did.
        hidden_gradient = torch.ops.aten.threshold_backward(torch.mm(result, wo), hidden, 0)
        if ctx.inner is not None:
            hidden_gradient = drop(hidden_gradient, ctx.inner.rate, ctx.inner.seed)
        x_gradient, gain_gradient = rms_norm_backward(torch.mm(hidden_gradient, wi), x, gain, inverse)
        wi_gradient, wo_gradient = torch.mm(hidden_gradient.T, normed), torch.mm(result.T, hidden)
        x_gradient.add_(stream)
        return x_gradient, gain_gradient, wi_gradient.to(x.dtype), wo_gradient.to(x.dtype), None, None, None, None


class SelfAttention(Function):
    """x + drop(attention(norm(x)) wo^T); queries, keys and values in one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, offsets: Tensor,
                attending: Attending, epsilon: float, dtype: torch.dtype, outer: Dropout | None) -> Tensor:  # fmt: skip
        """(tokens, width) to the same shape; offsets: (heads, longest, longest)."""
        normed, inverse = rms_norm(x, gain, epsilon, dtype)
        inner, projection = len(wq), torch.cat([wq, wk, wv]).to(dtype)
        wo = wo.to(dtype)
        projected = torch.mm(normed, projection.T)
        mixed, probabilities = attention(*_three(projected, inner), offsets, attending, inner)
        ctx.save_for_backward(x, gain, inverse, normed, projection, projected, mixed, probabilities, offsets, wo)
        ctx.attending, ctx.outer = attending, outer
        return _add(x, torch.mm(mixed, wo.T), outer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, gain, the four weights and the offsets."""
        x, gain, inverse, normed, projection, projected, mixed, probabilities, offsets, wo = ctx.saved_tensors
        stream, inner = gradients[0].contiguous(), mixed.shape[1]
        result = _into(stream, normed.dtype, ctx.outer)
        projected_gradient = _with_empty_tail(projected, ctx.attending.query_starts)
        offsets_gradient = attention_backward(
            torch.mm(result, wo), *_three(projected, inner), probabilities, offsets, ctx.attending,
            *_three(projected_gradient, inner),
        )  # fmt: skip
        weights = torch.mm(projected_gradient.T, normed).to(x.dtype).split(inner)
        x_gradient, gain_gradient = rms_norm_backward(torch.mm(projected_gradient, projection), x, gain, inverse)
        wo_gradient = torch.mm(result.T, mixed).to(x.dtype)
        return x_gradient.add_(stream), gain_gradient, *weights, wo_gradient, offsets_gradient, None, None, None, None


class CrossAttention(Function):
    """x + drop(attention(norm(x), states) wo^T); keys and values of the encoder's states in one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, states: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor,
                attending: Attending, epsilon: float, dtype: torch.dtype, outer: Dropout | None) -> Tensor:  # fmt: skip
        """(target tokens, width) to the same shape; states: (source tokens, width) in `dtype`."""
        normed, inverse = rms_norm(x, gain, epsilon, dtype)
        inner, projection = len(wq), torch.cat([wk, wv]).to(dtype)
        wq, wo = wq.to(dtype), wo.to(dtype)
        queries, projected = torch.mm(normed, wq.T), torch.mm(states, projection.T)
        mixed, probabilities = attention(Projected(queries, 0), *_two(projected, inner), None, attending, inner)
        ctx.save_for_backward(
            x, gain, inverse, normed, states, wq, projection, queries, projected, mixed, probabilities, wo
        )
        ctx.attending, ctx.outer = attending, outer
        return _add(x, torch.mm(mixed, wo.T), outer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, gain, states and the four weights."""
        x, gain, inverse, normed, states, wq, projection, queries, projected, mixed, probabilities, wo = (
            ctx.saved_tensors
        )
        stream, inner = gradients[0].contiguous(), mixed.shape[1]
        result = _into(stream, normed.dtype, ctx.outer)
        query_gradient = _with_empty_tail(queries, ctx.attending.query_starts)
        projected_gradient = _with_empty_tail(projected, ctx.attending.key_starts)
        attention_backward(
            torch.mm(result, wo), Projected(queries, 0), *_two(projected, inner), probabilities, None,
            ctx.attending, Projected(query_gradient, 0), *_two(projected_gradient, inner),
        )  # fmt: skip
        x_gradient, gain_gradient = rms_norm_backward(torch.mm(query_gradient, wq), x, gain, inverse)
        return (
            x_gradient.add_(stream),
            gain_gradient,
            torch.mm(projected_gradient, projection),
            torch.mm(query_gradient.T, normed).to(x.dtype),
            *torch.mm(projected_gradient.T, states).to(x.dtype).split(inner),
            torch.mm(result.T, mixed).to(x.dtype),
            None, None, None, None,
        )  # fmt: skip


def _add(x: Tensor, result: Tensor, dropout: Dropout | None) -> Tensor:
    if dropout is not None:
        result = drop(result, dropout.rate, dropout.seed, x.dtype)
    return x + result


def _into(stream: Tensor, dtype: torch.dtype, dropout: Dropout | None) -> Tensor:
    """The gradient of the stream as the gradient of what was added to it."""
    return stream.to(dtype) if dropout is None else drop(stream, dropout.rate, dropout.seed, dtype)


def _two(matrix: Tensor, inner: int) -> tuple[Projected, Projected]:
    return Projected(matrix, 0), Projected(matrix, inner)


def _three(matrix: Tensor, inner: int) -> tuple[Projected, Projected, Projected]:
    return Projected(matrix, 0), Projected(matrix, inner), Projected(matrix, 2 * inner)


def _with_empty_tail(like: Tensor, starts: Array) -> Tensor:
    """Memory for a gradient: the rows of sentences will be written, those after the last one are 0."""
    made = torch.empty_like(like)
    made[int(starts[-1]) :] = 0
    return made


# The same as functions, which is how autograd wants them called.
Sublayer = Callable[..., Tensor]
norm: Sublayer = Norm.apply
dropped: Sublayer = Drop.apply
feed_forward: Sublayer = FeedForward.apply
self_attention: Sublayer = SelfAttention.apply
cross_attention: Sublayer = CrossAttention.apply
