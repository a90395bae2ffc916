"""Numbers as the kernels read, round and draw them: what torch does, and what the published generator gives."""

import math
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl
from numba.core.codegen import get_host_cpu_features

from mtdistill.kernels.numbers import (
    array,
    compiled,
    exponential,
    hashed,
    highest,
    load,
    number,
    random_bits,
    scratch,
    store,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_subnormal=True)
WORD = 2**64


@numba.njit
def copy(given: Any, result: Any) -> None:
    for column in range(len(given)):
        store(result, column, load(given[column]))


@numba.njit
def exponentials(values: Any, result: Any) -> None:
    for column in range(len(values)):
        result[column] = exponential(values[column])


@numba.njit
def highest_of(row: Any) -> Any:
    return highest(row)


@numba.njit
def computed_in(values: Any) -> Any:
    return number(values, 3), scratch(values, (2, 3))


@numba.njit
def doubled(values: Any, result: Any) -> None:
    for column in range(len(values)):
        result[column] = 2 * values[column]


@pytest.mark.skipif("+avx512bf16" not in get_host_cpu_features().split(","), reason="narrower vectors than 512 bits")
def test_whole_vectors_are_used() -> None:
    doubled(np.ones(99, np.float32), np.ones(99, np.float32))
    assert all("zmm" in code for code in doubled.inspect_asm().values())


def split_mix(seed: int, counter: int) -> int:
    mixed = (seed + (counter + 1) * 0x9E3779B97F4A7C15) % WORD
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % WORD
    return mixed ^ (mixed >> 31)


def stored(values: torch.Tensor) -> torch.Tensor:
    result = torch.empty(len(values), dtype=torch.bfloat16)
    copy(array(values), array(result))
    return result


class TestBfloat16:
    @given(st.lists(FLOATS, min_size=1, max_size=20))
    @example([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])  # halfway between two: to the even one
    @example([1 + 2**-8 + 2**-23, 1 + 2**-8 - 2**-23])
    @example([0.0, -0.0, 3.4028234663852886e38, math.inf, -math.inf, 1e-45, 1.1754943508222875e-38])
    @settings(max_examples=25)
    def test_a_float_is_rounded_as_torch_rounds_it(self, numbers: list[float]) -> None:
        values = torch.tensor(numbers, dtype=torch.float32)
        assert torch.equal(stored(values).view(torch.uint16), values.to(torch.bfloat16).view(torch.uint16))

    def test_many_random_floats_are_rounded_as_torch_rounds_them(self) -> None:
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(20_000, generator=generator) * 10 ** (torch.rand(20_000, generator=generator) * 60 - 30)
        assert torch.equal(stored(values), values.to(torch.bfloat16))

    def test_every_pattern_is_read_and_written_back(self) -> None:
        patterns = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
        values = patterns.view(torch.bfloat16)
        widened = torch.empty(2**16)
        copy(array(values), array(widened))
        assert torch.equal(widened.view(torch.int32), values.float().view(torch.int32))
        assert torch.equal(stored(widened).view(torch.uint16), patterns)

    def test_what_is_not_a_number_stays_so(self) -> None:
        assert stored(torch.tensor([math.nan, -math.nan])).isnan().all()


class TestArray:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
    def test_it_is_the_same_memory(self, dtype: torch.dtype) -> None:
        tensor = torch.ones(2, 3, dtype=dtype)
        array(tensor)[1, 2] = 0
        assert tensor.sum() == 5

    def test_a_weight_can_be_read(self) -> None:
        assert array(torch.ones(3, requires_grad=True)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "exact"),
    [(torch.bfloat16, np.float32), (torch.float32, np.float32), (torch.float64, np.float64)],
)
def test_what_an_array_is_computed_in(dtype: torch.dtype, exact: type[np.floating[Any]]) -> None:
    values = array(torch.zeros(2, dtype=dtype))
    made, memory = computed_in(values)
    assert made == 3
    assert memory.shape == (2, 3)
    assert memory.dtype == exact


class TestExponential:
    def test_in_float32_it_is_close(self) -> None:
        values = np.concatenate([np.linspace(-87, 0, 100_001), -np.logspace(-30, 0, 100), [0.0]]).astype(np.float32)
        result = np.empty_like(values)
        exponentials(values, result)
        expected = np.exp(values.astype(np.float64))
        # The product with log2(e) is rounded to float32 too, which weighs more the further from 0.
        allowed = 2e-6 + np.abs(values) * 2.0**-23
        assert (np.abs(result - expected) / expected <= allowed).all()
        assert result[-1] == pytest.approx(1, abs=1e-6)

    def test_far_below_it_is_next_to_nothing(self) -> None:
        values = np.array([-88, -1000, -1e30, -np.inf], np.float32)
        result = np.empty_like(values)
        exponentials(values, result)
        assert ((result >= 0) & (result < 2e-38)).all()

    def test_in_float64_it_is_exact(self) -> None:
        values = np.linspace(-700, 0, 10_001)
        result = np.empty_like(values)
        exponentials(values, result)
        np.testing.assert_allclose(result, np.exp(values), rtol=1e-14)


class TestHighest:
    @given(st.lists(FLOATS, min_size=1, max_size=70), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    @example([-0.5, -1.5, -3.0], torch.bfloat16)
    @example([-math.inf, -1.5, math.inf], torch.float32)
    def test_it_is_the_largest_number(self, numbers: list[float], dtype: torch.dtype) -> None:
        row = torch.tensor(numbers).to(dtype)
        assert highest_of(array(row)) == row.max().item()


def test_where_no_folder_can_be_written_a_function_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(lambda x: x + 1)
    assert compiled(lambda x: x + 1)(2) == 3


@numba.njit
def bits_for_signed(seed: Any, counter: Any) -> Any:
    return random_bits(seed, np.int64(counter))


class TestRandomBits:
    @given(st.integers(0, WORD - 1), st.integers(0, WORD - 1))
    @example(0, 0)
    @example(WORD - 1, WORD - 1)
    @settings(max_examples=25)
    def test_they_are_those_of_the_published_generator(self, seed: int, counter: int) -> None:
        assert hashed(seed, counter) == split_mix(seed, counter)

    @given(st.integers(0, WORD - 1), st.integers(0, 2**63 - 1))
    @settings(max_examples=25)
    def test_a_signed_counter_of_a_kernel_gives_the_same(self, seed: int, counter: int) -> None:
        assert int(bits_for_signed(np.uint64(seed), counter)) == split_mix(seed, counter)

    def test_every_bit_is_set_half_of_the_time(self) -> None:
        words = np.array([hashed(7, counter) for counter in range(2000)], np.uint64)
        shares = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(shares - 0.5).max() < 5 * 0.5 / 2000**0.5
