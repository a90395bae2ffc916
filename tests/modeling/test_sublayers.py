"""Every sublayer is what autograd makes of the plain formula, with and without dropout."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mtdistill.kernels.attention import Attending
from mtdistill.kernels.dropout import drop
from mtdistill.modeling.sublayers import CrossAttention, Drop, Dropout, FeedForward, Norm, SelfAttention

EPSILON, WIDTH, HEADS, HEAD_WIDTH, INNER = 1e-6, 12, 2, 5, 20
SOURCES, TARGETS = [3, 1, 6], [2, 5, 1]
TAIL = 4  # rows after the last sentence
DROPOUTS = [None, Dropout(0.4, 77)]


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gains() -> Tensor:
    return random(WIDTH, seed=20).abs() + 0.5


def starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def normed(x: Tensor, gain: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[1],), gain, EPSILON)


def dropped(x: Tensor, dropout: Dropout | None) -> Tensor:
    return x if dropout is None else x * drop(torch.ones_like(x), dropout.rate, dropout.seed)


def attended(queries: Tensor, keys: Tensor, values: Tensor, offsets: Tensor | None, query_lengths: list[int],
             key_lengths: list[int], causal: bool) -> Tensor:  # fmt: skip
    sentences = []
    lengths = (query_lengths, key_lengths, key_lengths)
    parts = [m[: sum(counts)].split(counts) for m, counts in zip((queries, keys, values), lengths, strict=True)]
    for query, key, value in zip(*parts, strict=True):
        q, k, v = (part.view(len(part), HEADS, HEAD_WIDTH).transpose(0, 1) for part in (query, key, value))
        scores = q @ k.transpose(1, 2)
        if offsets is not None:
            scores = scores + offsets[:, : len(query), : len(key)]
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        sentences.append((scores.softmax(-1) @ v).transpose(0, 1).reshape(len(query), -1))
    return functional.pad(torch.cat(sentences), (0, 0, 0, len(queries) - sum(query_lengths)))


def compare(ours: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Values and all gradients, float64."""
    for tensor in inputs:
        tensor.requires_grad_()
    expected, made = plain(*inputs), ours(*inputs)
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-11)
    slope = random(*expected.shape, seed=99)
    wanted, found = torch.autograd.grad(expected, inputs, slope), torch.autograd.grad(made, inputs, slope)
    for gradient, want in zip(found, wanted, strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(gradient, want, rtol=1e-9, atol=1e-10)


def self_attention_inputs() -> list[Tensor]:
    inner, longest = HEADS * HEAD_WIDTH, max(TARGETS)
    projections = [random(inner, WIDTH, seed=seed) * 0.4 for seed in (2, 3, 4)]
    x, back = random(sum(TARGETS) + TAIL, WIDTH, seed=1), random(WIDTH, inner, seed=5)
    return [x, gains(), *projections, back, random(HEADS, longest, longest, seed=6)]


def cross_attention_inputs() -> list[Tensor]:
    inner = HEADS * HEAD_WIDTH
    projections = [random(inner, WIDTH, seed=seed) * 0.4 for seed in (3, 4, 5)]
    x, states = random(sum(TARGETS) + TAIL, WIDTH, seed=1), random(sum(SOURCES) + TAIL, WIDTH, seed=2)
    return [x, gains(), states, *projections, random(WIDTH, inner, seed=6)]


def feed_forward_inputs() -> list[Tensor]:
    x, wi, wo = random(9, WIDTH, seed=1), random(INNER, WIDTH, seed=2), random(WIDTH, INNER, seed=3)
    return [x, gains(), wi, wo]


def test_the_norm() -> None:
    inputs = [random(9, WIDTH, seed=1), gains()]
    compare(lambda x, gain: Norm.apply(x, gain, EPSILON, torch.float64), normed, inputs)


def test_dropout_of_a_matrix() -> None:
    dropout = Dropout(0.4, 5)
    compare(lambda x: Drop.apply(x, dropout), lambda x: dropped(x, dropout), [random(9, WIDTH, seed=1)])


def test_dropout_of_a_transposed_matrix_and_gradient() -> None:
    dropout = Dropout(0.4, 5)
    compare(lambda x: Drop.apply(x.T, dropout).T, lambda x: dropped(x.T, dropout).T, [random(9, WIDTH, seed=1)])


@pytest.mark.parametrize("outer", DROPOUTS)
@pytest.mark.parametrize("inner", [None, Dropout(0.3, 5)])
def test_the_feed_forward_layer(inner: Dropout | None, outer: Dropout | None) -> None:
    def plain(x: Tensor, gain: Tensor, wi: Tensor, wo: Tensor) -> Tensor:
        hidden = dropped((normed(x, gain) @ wi.T).relu(), inner)
        return x + dropped(hidden @ wo.T, outer)

    compare(lambda *given: FeedForward.apply(*given, EPSILON, torch.float64, inner, outer), plain,
            feed_forward_inputs())  # fmt: skip


@pytest.mark.parametrize("outer", DROPOUTS)
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(causal: bool, outer: Dropout | None) -> None:
    def plain(x: Tensor, gain: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, offsets: Tensor) -> Tensor:
        read = normed(x, gain)
        mixed = attended(read @ wq.T, read @ wk.T, read @ wv.T, offsets, TARGETS, TARGETS, causal)
        return x + dropped(mixed @ wo.T, outer)

    attending = Attending(starts(TARGETS), starts(TARGETS), causal, HEADS)
    compare(lambda *given: SelfAttention.apply(*given, attending, EPSILON, torch.float64, outer), plain,
            self_attention_inputs())  # fmt: skip


@pytest.mark.parametrize("outer", DROPOUTS)
def test_cross_attention(outer: Dropout | None) -> None:
    def plain(x: Tensor, gain: Tensor, states: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
        mixed = attended(normed(x, gain) @ wq.T, states @ wk.T, states @ wv.T, None, TARGETS, SOURCES, causal=False)
        return x + dropped(mixed @ wo.T, outer)

    attending = Attending(starts(TARGETS), starts(SOURCES), False, HEADS)
    compare(lambda *given: CrossAttention.apply(*given, attending, EPSILON, torch.float64, outer), plain,
            cross_attention_inputs())  # fmt: skip


@pytest.mark.parametrize("outer", DROPOUTS)
class TestBfloat16:
    """The stream and the weights stay float32; only the matrix products are in bfloat16."""

    def close(self, ours: Callable[..., Tensor], inputs: list[Tensor], states: int | None = None) -> None:
        results = []
        for dtype in (torch.float64, torch.bfloat16):
            stream = torch.float64 if dtype == torch.float64 else torch.float32
            given = [
                tensor.to(dtype if place == states else stream).requires_grad_() for place, tensor in enumerate(inputs)
            ]
            made = ours(dtype, *given)
            assert made.dtype == stream
            slope = random(*made.shape, seed=99).to(stream)
            gradients = torch.autograd.grad(made, given, slope)
            assert [gradient.dtype for gradient in gradients] == [tensor.dtype for tensor in given]
            results.append([made.detach(), *gradients])
        for place, (exact, rounded) in enumerate(zip(*results, strict=True)):
            assert (rounded.double() - exact).norm() < (0.02 if place == 0 else 0.1) * exact.norm()

    def test_the_feed_forward_layer(self, outer: Dropout | None) -> None:
        self.close(lambda dtype, *given: FeedForward.apply(*given, EPSILON, dtype, Dropout(0.3, 5), outer),
                   feed_forward_inputs())  # fmt: skip

    def test_self_attention(self, outer: Dropout | None) -> None:
        attending = Attending(starts(TARGETS), starts(TARGETS), True, HEADS)
        self.close(lambda dtype, *given: SelfAttention.apply(*given, attending, EPSILON, dtype, outer),
                   self_attention_inputs())  # fmt: skip

    def test_cross_attention(self, outer: Dropout | None) -> None:
        attending = Attending(starts(TARGETS), starts(SOURCES), False, HEADS)
        self.close(lambda dtype, *given: CrossAttention.apply(*given, attending, EPSILON, dtype, outer),
                   cross_attention_inputs(), states=2)  # fmt: skip


def test_the_same_seed_drops_the_same_and_another_does_not() -> None:
    given = feed_forward_inputs()

    def run(inner: int, outer: int) -> Tensor:
        made: Tensor = FeedForward.apply(*given, EPSILON, torch.float64, Dropout(0.3, inner), Dropout(0.3, outer))
        return made

    assert torch.equal(run(1, 2), run(1, 2))
    assert not torch.equal(run(1, 2), run(3, 2))
    assert not torch.equal(run(1, 2), run(1, 3))


def test_the_inputs_are_left_alone() -> None:
    given = self_attention_inputs()
    copies = [tensor.clone() for tensor in given]
    attending = Attending(starts(TARGETS), starts(TARGETS), True, HEADS)
    for tensor in given:
        tensor.requires_grad_()
    SelfAttention.apply(*given, attending, EPSILON, torch.float64, Dropout(0.3, 5)).sum().backward()
    assert all(torch.equal(*pair) for pair in zip(given, copies, strict=True))
