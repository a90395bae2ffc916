"""Which number format matrix products are fastest in on this machine, measured, not assumed."""

import time
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]

# A smaller gain than this is eaten by the casts around each product.
WORTHWHILE_GAIN = 1.3
_TOKENS, _WIDTH, _INNER = 1024, 256, 1024  # a feed-forward layer of a student


def uses_bfloat16(precision: Precision) -> bool:
    """Whether to train with bfloat16; "auto" times a matrix product in both formats (about 50 ms)."""
    if precision != "auto":
        return precision == "bfloat16"
    return _seconds(torch.float32) > WORTHWHILE_GAIN * _seconds(torch.bfloat16)


def _seconds(dtype: torch.dtype, repeats: int = 7) -> float:
    left, right = torch.ones(_TOKENS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _INNER, dtype=dtype)
    left @ right
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return min(times)
