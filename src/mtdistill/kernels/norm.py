"""RMS norm over the rows of packed tokens. Imported by modeling; imports kernels.numbers."""

import numpy as np
import torch
from torch import Tensor

from mtdistill.kernels.numbers import Array, array, compiled, load, number, scratch, store


def rms_norm(x: Tensor, gain: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """X * gain / sqrt(mean(x^2) + epsilon).

    Args:
        x: (tokens, width), float32 or float64.
        gain: (width,), the same type.
        epsilon: > 0.
        dtype: of the result, the type of the matrix product that reads it.

    Returns:
        (tokens, width), and 1 / sqrt(...) of each row, (tokens,), for `rms_norm_backward`.
    """
    normed, inverse = torch.empty(x.shape, dtype=dtype), x.new_empty(len(x))
    _forward(array(x), array(gain), epsilon, array(normed), array(inverse))
    return normed, inverse


def rms_norm_backward(gradient: Tensor, x: Tensor, gain: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients for x and gain.

    Args:
        gradient: (tokens, width) of the result, in its type.
        x: what was normed.
        gain: as in the forward pass.
        inverse: from the forward pass.
    """
    x_gradient, gain_gradient = torch.empty_like(x), torch.zeros_like(gain)
    _backward(array(gradient), array(x), array(gain), array(inverse), array(x_gradient), array(gain_gradient))
    return x_gradient, gain_gradient


@compiled
def _forward(x: Array, gain: Array, epsilon: float, normed: Array, inverse: Array) -> None:
    width = x.shape[1]
    for row in range(x.shape[0]):
        values, result = x[row], normed[row]
        squares = number(x, 0)
        for column in range(width):
            squares += values[column] * values[column]
        scale = number(x, 1 / np.sqrt(squares / width + epsilon))
        inverse[row] = scale
        for column in range(width):
            store(result, column, values[column] * scale * gain[column])


@compiled
def _backward(gradient: Array, x: Array, gain: Array, inverse: Array, x_gradient: Array, gain_gradient: Array) -> None:
    width = x.shape[1]
    scaled = scratch(x, width)
    for row in range(x.shape[0]):
        values, slopes, result, scale = x[row], gradient[row], x_gradient[row], inverse[row]
        along = number(x, 0)
        for column in range(width):
            slope, unit = load(slopes[column]), values[column] * scale
            gain_gradient[column] += slope * unit
            scaled[column] = slope * gain[column]
            along += scaled[column] * unit
        along /= number(x, width)
        for column in range(width):
            result[column] = (scaled[column] - values[column] * scale * along) * scale
