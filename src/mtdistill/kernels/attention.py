"""Multi-head attention over packed sentences: no padding, no masks, no rearranged copies.

Sentence b owns the rows starts[b] to starts[b + 1] of its matrices. Scores are not scaled (T5), and get an offset that
depends on head and positions. Imported by modeling; imports kernels.numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtdistill.kernels.numbers import Array, array, compiled, exponential, load, number, scratch, store


@dataclass(frozen=True)
class Projected:
    """Columns of a matrix that hold one projection of every token: (tokens, columns), heads side by side."""

    rows: Tensor
    first_column: int


class Attending:
    """Which tokens see which; made once for a batch and used by every layer.

    Args:
        query_starts: (sentences + 1,) int64, first row of each sentence and the end of the last.
        key_starts: likewise for keys and values; the same for self-attention.
        causal: a query sees the keys up to its own position only.
        heads: number of heads.
    """

    def __init__(self, query_starts: Tensor, key_starts: Tensor, causal: bool, heads: int) -> None:
        self.query_starts, self.key_starts = array(query_starts), array(key_starts)
        self.causal, self.heads = causal, heads
        counts = np.diff(self.query_starts) * np.diff(self.key_starts) * heads
        # Where the scores of each sentence begin in a flat list.
        self.score_starts = np.concatenate([[0], counts.cumsum()])


def attention(queries: Projected, keys: Projected, values: Projected, offsets: Tensor | None, attending: Attending,
              width: int) -> tuple[Tensor, Tensor]:  # fmt: skip
    """softmax(queries keys^T + offsets) values for every sentence and head.

    Args:
        queries: matrix and first column; keys and values likewise.
        keys: the sentence's keys.
        values: the sentence's values.
        offsets: (heads, query position, key position), float32 (float64 with float64 rows), or None.
        attending: boundaries and heads.
        width: of all heads together.

    Returns:
        (query tokens, width) in the type of the queries, rows after the last sentence 0; and the probabilities, flat.
    """
    mixed = torch.zeros(len(queries.rows), width, dtype=queries.rows.dtype)
    exact = torch.float64 if queries.rows.dtype == torch.float64 else torch.float32
    probabilities = torch.empty(int(attending.score_starts[-1]), dtype=exact)
    shifts = torch.empty(0, 0, 0, dtype=exact) if offsets is None else offsets
    _forward(
        array(queries.rows), queries.first_column, array(keys.rows), keys.first_column, array(values.rows),
        values.first_column, attending.query_starts, attending.key_starts, attending.score_starts,
        array(shifts), attending.causal, attending.heads, array(probabilities), array(mixed),
    )  # fmt: skip
    return mixed, probabilities


def attention_backward(gradient: Tensor, queries: Projected, keys: Projected, values: Projected, probabilities: Tensor,
                       offsets: Tensor | None, attending: Attending, query_gradient: Projected,
                       key_gradient: Projected, value_gradient: Projected) -> Tensor | None:  # fmt: skip
    """Write the gradients of queries, keys and values into the given columns; return that of the offsets.

    Args:
        gradient: (query tokens, width) of the result.
        queries: as in the forward pass, as are keys, values, offsets and attending.
        keys: see queries.
        values: see queries.
        probabilities: from the forward pass.
        offsets: None: there are none.
        attending: see queries.
        query_gradient: matrix and first column to write to; rows after the last sentence are not written.
        key_gradient: likewise.
        value_gradient: likewise.
    """
    exact = probabilities.dtype
    offset_gradient = torch.zeros(0, 0, 0, dtype=exact) if offsets is None else torch.zeros_like(offsets)
    _backward(
        array(gradient), array(queries.rows), queries.first_column, array(keys.rows), keys.first_column,
        array(values.rows), values.first_column, attending.query_starts, attending.key_starts,
        attending.score_starts, array(probabilities), attending.causal, attending.heads,
        array(offset_gradient), array(query_gradient.rows), query_gradient.first_column, array(key_gradient.rows),
        key_gradient.first_column, array(value_gradient.rows), value_gradient.first_column,
    )  # fmt: skip
    return None if offsets is None else offset_gradient


# The helpers index from 0 only: where an index might be negative, numba adds a test and the loop does not vectorise.


@compiled
def _read(row: Array, into: Array) -> None:
    for e in range(len(into)):
        into[e] = load(row[e])


@compiled
def _write(values: Array, into: Array) -> None:
    for e in range(len(values)):
        store(into, e, values[e])


@compiled
def _longest(starts: Array) -> int:
    longest = 1
    for sentence in range(len(starts) - 1):
        longest = max(longest, starts[sentence + 1] - starts[sentence])
    return longest


@compiled
def _dot(left: Array, right: Array) -> Any:
    total = number(left, 0)
    for e in range(len(left)):
        total += left[e] * right[e]
    return total


@compiled
def _add_multiple(sums: Array, factor: Any, values: Array) -> None:
    for e in range(len(sums)):
        sums[e] += factor * values[e]


@compiled
def _add_multiples(value_sums: Array, probability: Any, slope: Array, key_sums: Array, score_slope: Any, query: Array,
                   query_sums: Array, key: Array) -> None:  # fmt: skip
    for e in range(len(query)):
        value_sums[e] += probability * slope[e]
        key_sums[e] += score_slope * query[e]
        query_sums[e] += score_slope * key[e]


@compiled
def _forward(
    query_rows: Array, query_column: int, key_rows: Array, key_column: int, value_rows: Array, value_column: int,
    query_starts: Array, key_starts: Array, score_starts: Array, offsets: Array, causal: bool, heads: int,
    probabilities: Array, mixed: Array,
) -> None:  # fmt: skip
    width = mixed.shape[1] // heads
    longest = _longest(key_starts)
    key, value = scratch(query_rows, (longest, width)), scratch(query_rows, (longest, width))
    query, sums, scores = scratch(query_rows, width), scratch(query_rows, width), scratch(query_rows, longest)
    has_offsets = offsets.shape[0] > 0
    for sentence in range(len(query_starts) - 1):
        first_query, first_key = query_starts[sentence], key_starts[sentence]
        query_count = query_starts[sentence + 1] - first_query
        key_count = key_starts[sentence + 1] - first_key
        for head in range(heads):
            shift = head * width
            for j in range(key_count):
                _read(key_rows[first_key + j, key_column + shift :], key[j])
                _read(value_rows[first_key + j, value_column + shift :], value[j])
            for i in range(query_count):
                visible = min(i + 1, key_count) if causal else key_count
                _read(query_rows[first_query + i, query_column + shift :], query)
                for e in range(width):
                    sums[e] = number(query_rows, 0)
                for j in range(visible):
                    scores[j] = _dot(query, key[j])
                if has_offsets:
                    for j in range(visible):
                        scores[j] += offsets[head, i, j]
                highest = scores[0]
                for j in range(1, visible):
                    highest = max(highest, scores[j])
                total = number(query_rows, 0)
                for j in range(visible):
                    scores[j] = exponential(scores[j] - highest)
                    total += scores[j]
                begin = score_starts[sentence] + (head * query_count + i) * key_count
                for j in range(visible):
                    probability = scores[j] / total
                    probabilities[begin + j] = probability
                    _add_multiple(sums, probability, value[j])
                _write(sums, mixed[first_query + i, shift:])


@compiled
def _backward(
    gradient: Array, query_rows: Array, query_column: int, key_rows: Array, key_column: int, value_rows: Array,
    value_column: int, query_starts: Array, key_starts: Array, score_starts: Array, probabilities: Array, causal: bool,
    heads: int, offset_gradient: Array, query_out: Array, query_out_column: int, key_out: Array, key_out_column: int,
    value_out: Array, value_out_column: int,
) -> None:  # fmt: skip
    width = gradient.shape[1] // heads
    longest = _longest(key_starts)
    key, value = scratch(query_rows, (longest, width)), scratch(query_rows, (longest, width))
    key_sums, value_sums = scratch(query_rows, (longest, width)), scratch(query_rows, (longest, width))
    query, slope, query_sums = scratch(query_rows, width), scratch(query_rows, width), scratch(query_rows, width)
    slopes = scratch(query_rows, longest)
    has_offsets = offset_gradient.shape[0] > 0
    for sentence in range(len(query_starts) - 1):
        first_query, first_key = query_starts[sentence], key_starts[sentence]
        query_count = query_starts[sentence + 1] - first_query
        key_count = key_starts[sentence + 1] - first_key
        for head in range(heads):
            shift = head * width
            for j in range(key_count):
                _read(key_rows[first_key + j, key_column + shift :], key[j])
                _read(value_rows[first_key + j, value_column + shift :], value[j])
                for e in range(width):
                    key_sums[j, e] = value_sums[j, e] = number(query_rows, 0)
            for i in range(query_count):
                visible = min(i + 1, key_count) if causal else key_count
                _read(query_rows[first_query + i, query_column + shift :], query)
                _read(gradient[first_query + i, shift:], slope)
                for e in range(width):
                    query_sums[e] = number(query_rows, 0)
                begin = score_starts[sentence] + (head * query_count + i) * key_count
                along = number(query_rows, 0)
                for j in range(visible):
                    slopes[j] = _dot(slope, value[j])
                    along += slopes[j] * probabilities[begin + j]
                for j in range(visible):
                    probability = probabilities[begin + j]
                    score_slope = probability * (slopes[j] - along)
                    slopes[j] = score_slope
                    _add_multiples(
                        value_sums[j], probability, slope, key_sums[j], score_slope, query, query_sums, key[j]
                    )
                if has_offsets:
                    for j in range(visible):
                        offset_gradient[head, i, j] += slopes[j]
                _write(query_sums, query_out[first_query + i, query_out_column + shift :])
            for j in range(key_count):
                _write(key_sums[j], key_out[first_key + j, key_out_column + shift :])
                _write(value_sums[j], value_out[first_key + j, value_out_column + shift :])
