"""Scalars for the kernels: bfloat16 in memory, a fast exponential, and random bits from a counter.

numba has no bfloat16, so such a tensor is handed over as its 16-bit patterns. Compiled kernels are kept beside their
source, and numba looks at that one file only: after a change here, delete `kernels/__pycache__`. Imported by modeling,
training, kernels.attention, kernels.dropout, kernels.norm and kernels.objective.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import Compiler
from numba.extending import intrinsic, overload
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Array = npt.NDArray[Any]

# Everything but "no infinities": sums may be reordered, and a loss that is not finite still shows.
_FASTMATH = {"nnan", "nsz", "arcp", "contract", "afn", "reassoc"}


def _with_wide_vectors(features: str) -> str:
    """The features of a processor, as LLVM writes them, without the advice to leave half of each vector unused.

    LLVM tunes for all Intel servers as if 512 bits at once lowered their clock, which those with bfloat16 hardly do:
    the objective takes 1.4 ns an element instead of 2.0 on Emerald Rapids. Other makers' are not given that advice.
    """
    return f"{features},-prefer-256-bit" if "+avx512bf16" in features.split(",") else features


if numba.config.CPU_FEATURES is None:  # the user has not asked for others
    numba.config.CPU_FEATURES = _with_wide_vectors(get_host_cpu_features())


class _NoAlias(Compiler):  # type: ignore[misc]
    """Arrays given to a function do not overlap, as `restrict` says in C.

    Without it every short loop begins with tests of whether they do; in the attention kernels those took half the time.
    """

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


def compiled(function: Function) -> Function:
    """Compile on the first call for each combination of types; the machine code is kept on disk, where there is a place.

    What a function writes to one of its arrays must not be read or written through another of them.
    """
    options = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy", "pipeline_class": _NoAlias}
    made: Function
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the source nor at home, as in some containers: every process compiles anew
        made = numba.njit(**options)(function)
    return made


def array(tensor: Tensor) -> Array:
    """The memory of a contiguous CPU tensor; bfloat16 as uint16 bit patterns."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    found: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


@intrinsic
def _float_of_bits(_context: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), build


@intrinsic
def _bits_of_float(_context: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), build


def load(value: Any) -> Any:
    """A number of an array as a float to compute with."""
    raise NotImplementedError


@overload(load, jit_options={"fastmath": _FASTMATH})
def _load(value):
    if value == types.uint16:
        return lambda value: _float_of_bits(np.int32(value) << np.int32(16))
    return lambda value: value


def store(row: Any, column: int, value: Any) -> None:
    """Put a float into a row, rounded to what the array holds."""
    raise NotImplementedError


@overload(store, jit_options={"fastmath": _FASTMATH})
def _store(row, column, value):
    if row.dtype == types.uint16:

        def rounded(row, column, value):
            bits = _bits_of_float(np.float32(value))
            half = np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))  # to nearest, ties to even
            row[column] = np.uint16((bits + half) >> np.int32(16))

        return rounded

    def plain(row, column, value):
        row[column] = value

    return plain


def number(values: Any, value: Any) -> Any:
    """A value in the type that numbers of this array are computed in; float32 mixed with int64 would become float64."""
    raise NotImplementedError


@overload(number)
def _number(values, value):
    if values.dtype == types.float64:
        return lambda values, value: np.float64(value)
    return lambda values, value: np.float32(value)


def scratch(values: Any, shape: Any) -> Any:
    """Uninitialised memory in the type that numbers of this array are computed in."""
    raise NotImplementedError


@overload(scratch)
def _scratch(values, shape):
    if values.dtype == types.float64:
        return lambda values, shape: np.empty(shape, np.float64)
    return lambda values, shape: np.empty(shape, np.float32)


def exponential(value: Any) -> Any:
    """E to the power of a number that is not positive; relative error 4e-6 in float32 (2e-6 above -40), exact in float64."""
    raise NotImplementedError


@overload(exponential, jit_options={"fastmath": _FASTMATH})
def _exponential(value):
    if value == types.float64:
        return lambda value: np.exp(value)

    def fast(value):
        # 2^(whole + part): the whole goes into the exponent bits, the part through a polynomial (minimax on [0, 1),
        # the coefficients of the classic single-precision exp2 approximation). Unlike a library call it vectorises.
        power = max(value * np.float32(1.4426950408889634), np.float32(-126))
        whole = np.floor(power)
        part = power - whole
        result = np.float32(1.8775767e-3)
        result = result * part + np.float32(8.9893397e-3)
        result = result * part + np.float32(5.5826318e-2)
        result = result * part + np.float32(2.4015361e-1)
        result = result * part + np.float32(6.9315308e-1)
        result = result * part + np.float32(9.9999994e-1)
        return result * _float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))

    return fast


@compiled
def _flipped(bits: Any) -> Any:
    """The bits of a float as an integer that orders like it, and back: those of negative ones are flipped below the sign."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


def highest(row: Any) -> Any:
    """The largest number of a row of at least one, as a float to compute with; NaN or any number where one is NaN."""
    raise NotImplementedError


@overload(highest, jit_options={"fastmath": _FASTMATH})
def _highest(row):
    if row.dtype == types.float64:

        def plain(row):
            found = row[0]
            for column in range(row.shape[0]):
                found = max(found, row[column])
            return found

        return plain

    def by_bits(row):
        # The maximum of floats is not vectorised, that of integers is: seven times as fast.
        found = np.int32(-(2**31))
        for column in range(row.shape[0]):
            found = max(found, _flipped(_bits_of_float(load(row[column]))))
        return _float_of_bits(_flipped(found))

    return by_bits


@compiled
def random_bits(seed: Any, counter: Any) -> Any:
    """64 bits that depend on both numbers only (SplitMix64, Steele et al. 2014)."""
    mixed = np.uint64(seed) + (np.uint64(counter) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashed(seed: int, counter: int) -> int:
    """`random_bits` for callers outside the kernels: both arguments and the result in [0, 2^64)."""
    return int(random_bits(np.uint64(seed), np.uint64(counter)))
