"""Attention over packed sentences is softmax attention of every sentence and head by itself."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtdistill.kernels.attention import Attending, Projected, attention, attention_backward

TAIL = 3  # rows after the last sentence, as training adds them


@dataclass
class Case:
    """Everything that goes in; the matrices hold other columns too."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    offsets: Tensor | None
    slope: Tensor
    query_lengths: list[int]
    key_lengths: list[int]
    causal: bool
    heads: int

    @property
    def attending(self) -> Attending:
        return Attending(starts(self.query_lengths), starts(self.key_lengths), self.causal, self.heads)

    def run(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """The result, and the gradients of queries, keys, values and offsets; each projection beside other columns."""
        width = self.queries.shape[1]
        ours = [
            Projected(torch.cat([torch.full_like(matrix[:, :column], 7), matrix, torch.ones_like(matrix)], 1), column)
            for matrix, column in ((self.queries, 0), (self.keys, width), (self.values, 1))
        ]
        mixed, probabilities = attention(*ours, self.offsets, self.attending, width)
        found = [Projected(torch.full_like(one.rows, torch.nan), one.first_column) for one in ours]
        offsets = attention_backward(self.slope, *ours, probabilities, self.offsets, self.attending, *found)
        lengths = (sum(self.query_lengths), sum(self.key_lengths), sum(self.key_lengths))
        gradients = []
        for one, length in zip(found, lengths, strict=True):
            columns = slice(one.first_column, one.first_column + width)
            gradients.append(one.rows[:length, columns].clone())
            one.rows[:length, columns] = torch.nan
            assert one.rows.isnan().all()  # nothing else was written to
        return mixed, (gradients[0], gradients[1], gradients[2], offsets)

    def plain(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """The same in plain torch, float64, with autograd."""
        queries, keys, values = (m.double().requires_grad_() for m in (self.queries, self.keys, self.values))
        offsets = None if self.offsets is None else self.offsets.double().requires_grad_()
        width = self.queries.shape[1] // self.heads
        mixed = torch.zeros_like(queries)
        first_query = first_key = 0
        for query_count, key_count in zip(self.query_lengths, self.key_lengths, strict=True):
            rows, seen = slice(first_query, first_query + query_count), slice(first_key, first_key + key_count)
            for head in range(self.heads):
                columns = slice(head * width, (head + 1) * width)
                scores = queries[rows, columns] @ keys[seen, columns].T
                if offsets is not None:
                    scores = scores + offsets[head, :query_count, :key_count]
                if self.causal:
                    scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
                mixed[rows, columns] = scores.softmax(-1) @ values[seen, columns]
            first_query, first_key = first_query + query_count, first_key + key_count
        leaves = [queries, keys, values, *([] if offsets is None else [offsets])]
        found = torch.autograd.grad(mixed, leaves, self.slope.double())
        gradients = (found[0][:first_query], found[1][:first_key], found[2][:first_key])
        return mixed.detach(), (*gradients, None if offsets is None else found[3])


def starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def case(lengths: list[tuple[int, int]], *, heads: int = 2, width: int = 4, causal: bool = False,
         with_offsets: bool = True, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0,
         tail: int = TAIL) -> Case:  # fmt: skip
    """Random numbers; with a causal mask the keys are as long as the queries."""
    generator = torch.Generator().manual_seed(seed)
    query_lengths = [query for query, _ in lengths]
    key_lengths = query_lengths if causal else [key for _, key in lengths]
    rows, seen = sum(query_lengths) + tail, sum(key_lengths) + tail

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    offsets = random(heads, max(query_lengths), max(key_lengths)) if with_offsets else None
    if offsets is not None and dtype != torch.float64:
        offsets = offsets.float()
    matrices = [random(count, heads * width).mul(scale).to(dtype) for count in (rows, seen, seen, rows)]
    return Case(*matrices[:3], offsets, matrices[3], query_lengths, key_lengths, causal, heads)


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    st.integers(1, 3), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 1000), st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=25)
def test_values_and_gradients_are_those_of_torch(
    lengths: list[tuple[int, int]], heads: int, width: int, causal: bool, with_offsets: bool, seed: int, tail: int
) -> None:
    given_case = case(lengths, heads=heads, width=width, causal=causal, with_offsets=with_offsets, seed=seed, tail=tail)
    (expected, wanted), (mixed, gradients) = given_case.plain(), given_case.run()
    torch.testing.assert_close(mixed, expected, rtol=1e-9, atol=1e-11)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_with_less_precision_the_result_is_close(
    dtype: torch.dtype, tolerance: float, with_offsets: bool, causal: bool
) -> None:
    given_case = case(
        [(5, 9), (1, 1), (17, 6)], heads=3, width=32, causal=causal, with_offsets=with_offsets, dtype=dtype, scale=0.5
    )
    (expected, wanted), (mixed, gradients) = given_case.plain(), given_case.run()
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.double(), expected, rtol=tolerance, atol=tolerance)
    for gradient, want in zip(gradients[:3], wanted[:3], strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), want, rtol=tolerance, atol=tolerance)
    if gradients[3] is not None and wanted[3] is not None:
        assert gradients[3].dtype == torch.float32
        torch.testing.assert_close(gradients[3].double(), wanted[3], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_after_the_last_sentence_are_zero_and_not_read(causal: bool) -> None:
    given_case = case([(3, 4), (2, 1)], causal=causal)
    expected, _ = given_case.run()
    assert (expected[5:] == 0).all()
    for matrix, lengths in ((given_case.queries, given_case.query_lengths),
                            (given_case.keys, given_case.key_lengths),
                            (given_case.values, given_case.key_lengths)):  # fmt: skip
        matrix[sum(lengths) :] = torch.nan
    mixed, gradients = given_case.run()
    assert torch.equal(mixed, expected)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("matrix", ["queries", "keys", "values"])
def test_another_sentence_has_no_influence(matrix: str) -> None:
    given_case = case([(3, 3), (4, 4), (2, 2)])
    before, _ = given_case.run()
    getattr(given_case, matrix)[3:7] *= 2
    after, _ = given_case.run()
    assert torch.equal(after[:3], before[:3])
    assert torch.equal(after[7:], before[7:])
    assert not torch.allclose(after[3:7], before[3:7])


def test_a_later_position_has_no_influence_where_it_is_causal() -> None:
    given_case = case([(6, 6)], causal=True)
    before, _ = given_case.run()
    given_case.keys[4], given_case.values[4] = 5.0, 5.0
    after, _ = given_case.run()
    assert torch.equal(after[:4], before[:4])
    assert not torch.allclose(after[4:6], before[4:6])


def test_with_one_key_the_result_is_its_value() -> None:
    given_case = case([(3, 1)], tail=0)
    mixed, gradients = given_case.run()
    torch.testing.assert_close(mixed, given_case.values.expand(3, -1))
    assert gradients[0].abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_do_not_overflow(dtype: torch.dtype) -> None:
    given_case = case([(4, 4), (2, 5)], dtype=dtype, scale=30.0)
    (expected, wanted), (mixed, gradients) = given_case.plain(), given_case.run()
    torch.testing.assert_close(mixed.double(), expected, rtol=1e-3, atol=1e-2)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(gradients[2].double(), wanted[2], rtol=1e-3, atol=1e-2)


def test_probabilities_add_up_to_one() -> None:
    given_case = case([(3, 5), (2, 2)], heads=2)
    width = given_case.queries.shape[1]
    ours = [Projected(matrix, 0) for matrix in (given_case.queries, given_case.keys, given_case.values)]
    _, probabilities = attention(*ours, given_case.offsets, given_case.attending, width)
    sums = torch.cat([probabilities[:30].view(6, 5).sum(1), probabilities[30:].view(4, 2).sum(1)])
    torch.testing.assert_close(sums, torch.ones(10, dtype=torch.float64))
