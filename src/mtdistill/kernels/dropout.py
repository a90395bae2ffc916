"""Dropout whose mask is never stored: element i is decided by a hash of a seed and i.

One 64-bit hash serves eight elements, a byte each. Imported by modeling; imports kernels.numbers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtdistill.kernels.numbers import Array, array, compiled, load, number, random_bits, store

LEVELS = 256  # a rate is rounded to a multiple of 1 / LEVELS


def drop(values: Tensor, rate: float, seed: int, dtype: torch.dtype | None = None) -> Tensor:
    """Values with a share set to 0 and the others scaled up; the same seed drops the same elements again.

    Args:
        values: (tokens, width), contiguous; not changed.
        rate: share in [0, 1), rounded to a multiple of 1/256; survivors are scaled by the rounded rate.
        seed: >= 0, below 2^64.
        dtype: of the result; None: that of the values.
    """
    dropped = torch.empty(values.shape, dtype=dtype or values.dtype)
    threshold = min(round(rate * LEVELS), LEVELS - 1)
    _drop(array(values), threshold, np.uint64(seed), array(dropped))
    return dropped


@compiled
def _drop(values: Array, threshold: int, seed: Any, dropped: Array) -> None:
    rows, columns = values.shape
    scale = number(values, LEVELS / (LEVELS - threshold))
    nothing = number(values, 0)
    for row in range(rows):
        given, result = values[row], dropped[row]
        for start in range(0, columns, 8):
            bits = random_bits(seed, row * columns + start)
            for column in range(start, min(start + 8, columns)):
                kept = np.int64(bits & np.uint64(0xFF)) >= threshold
                bits >>= np.uint64(8)
                store(result, column, load(given[column]) * scale if kept else nothing)
