"""Dropout takes out the share it should, scales what stays, and can be repeated from its seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.kernels.dropout import LEVELS, drop

TYPES = [torch.float32, torch.float64, torch.bfloat16]
SEEDS = st.integers(0, 2**64 - 1)


@given(st.integers(0, 6), st.integers(1, 30), st.floats(0, 0.99), SEEDS)
@settings(max_examples=25)
def test_values_are_zero_or_scaled(rows: int, width: int, rate: float, seed: int) -> None:
    values = torch.arange(1.0, rows * width + 1, dtype=torch.float64).view(rows, width)
    dropped = drop(values, rate, seed)
    scale = LEVELS / (LEVELS - min(round(rate * LEVELS), LEVELS - 1))
    assert torch.equal(dropped, torch.where(dropped == 0, 0.0, values * scale))


@given(SEEDS)
@settings(max_examples=25)
def test_the_same_seed_drops_the_same_and_another_does_not(seed: int) -> None:
    ones = torch.ones(20, 37)
    assert torch.equal(drop(ones, 0.5, seed), drop(ones, 0.5, seed))
    assert not torch.equal(drop(ones, 0.5, seed), drop(ones, 0.5, (seed + 1) % 2**64))


@pytest.mark.parametrize("rate", [0.004, 0.1, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("width", [256, 203])  # 203 is not a multiple of eight
def test_the_share_and_the_expectation(rate: float, width: int) -> None:
    rows = 800
    dropped, size, rounded = drop(torch.ones(rows, width), rate, 5), rows * width, round(rate * LEVELS) / LEVELS
    share = (dropped == 0).double().mean().item()
    assert abs(share - rounded) < 5 * (rounded * (1 - rounded) / size) ** 0.5
    assert dropped.double().mean().item() == pytest.approx((1 - share) / (1 - rounded), abs=1e-6)
    # No row and no column, that is no byte of a hash, is treated differently.
    for axis, count in ((0, rows), (1, width)):
        shares = (dropped == 0).double().mean(axis)
        assert (shares - rounded).abs().max() < 6 * (rounded * (1 - rounded) / count) ** 0.5 + 1 / count


def test_neighbouring_elements_and_seeds_are_independent() -> None:
    size = 400_000
    first, second = (drop(torch.ones(1000, 400), 0.5, seed).flatten() == 0 for seed in (11, 12))
    for left, right in ((first, second), (first[1:], first[:-1]), (first[8:], first[:-8]), (first[400:], first[:-400])):
        assert abs((left == right).double().mean().item() - 0.5) < 5 * 0.5 / (size - 400) ** 0.5


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("result", [None, *TYPES])
def test_the_mask_is_the_same_in_every_type(dtype: torch.dtype, result: torch.dtype | None) -> None:
    dropped = drop(torch.full((9, 21), 3.0, dtype=dtype), 0.25, 8, result)
    assert dropped.dtype == (result or dtype)
    assert torch.equal(dropped.double(), drop(torch.full((9, 21), 3.0, dtype=torch.float64), 0.25, 8))


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    values = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drop(values, 0.1, 3, torch.bfloat16), drop(values, 0.1, 3).to(torch.bfloat16))


def test_it_is_linear() -> None:
    left, right = torch.randn(2, 12, 17, dtype=torch.float64)
    torch.testing.assert_close(drop(left + 2 * right, 0.3, 4), drop(left, 0.3, 4) + 2 * drop(right, 0.3, 4))


def test_at_rate_zero_nothing_happens_and_the_input_is_left_alone() -> None:
    values = torch.randn(5, 9)
    before = values.clone()
    assert torch.equal(drop(values, 0.0, 1), values)
    drop(values, 0.9, 1)
    assert torch.equal(values, before)


def test_a_rate_close_to_one_stays_finite() -> None:
    dropped = drop(torch.ones(100, 100), 0.9999, 1)
    assert dropped.isfinite().all()
    assert 0 < (dropped > 0).sum() < 100
