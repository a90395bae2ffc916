"""The fused loss is the plain one, in value and gradient, and never holds tokens x vocabulary."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtdistill.training import fused_loss as module
from mtdistill.training.fused_loss import fused_loss

VOCABULARY, WIDTH, TEACHER_WIDTH = 13, 5, 7


def inputs(tokens: int, seed: int = 0, *, vocabulary: int = VOCABULARY) -> tuple[Tensor, ...]:
    """States, head, labels, teacher states, teacher head; float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    return (normal(tokens, WIDTH).requires_grad_(), normal(vocabulary, WIDTH).requires_grad_(), labels,
            normal(tokens, TEACHER_WIDTH), normal(vocabulary, TEACHER_WIDTH))  # fmt: skip


def plain_loss(states: Tensor, head: Tensor, labels: Tensor, teacher_states: Tensor | None, teacher_head: Tensor | None,
               *, temperature: float, alpha: float, beta: float, label_smoothing: float) -> tuple[Tensor, ...]:  # fmt: skip
    """Total, divergence and cross-entropy from whole matrices of logits, word for word from the definition."""
    logits = states @ head.T
    log_probs = logits.log_softmax(-1)
    gold_words = functional.one_hot(labels, len(head)).to(logits.dtype)
    target = gold_words * (1 - label_smoothing) + label_smoothing / len(head)
    gold = -(target * log_probs).sum()
    kd = logits.new_zeros(())
    if teacher_states is not None and teacher_head is not None:
        teacher = (teacher_states @ teacher_head.T / temperature).softmax(-1)
        student = (logits / temperature).log_softmax(-1)
        kd = temperature**2 * (teacher * (teacher.log() - student)).sum()
    return alpha * kd + beta * gold, kd, gold


def gradients(total: Tensor, states: Tensor, head: Tensor) -> tuple[Tensor, ...]:
    # As in training: divided by a number of tokens.
    return torch.autograd.grad(total * 0.37, (states, head), materialize_grads=True)


WEIGHT = st.sampled_from([0.0, 0.3, 1.0, 2.5])


@given(tokens=st.integers(1, 70), seed=st.integers(0, 9), chunk=st.integers(1, 80),
       temperature=st.floats(0.3, 8.0), alpha=WEIGHT, beta=WEIGHT,
       smoothing=st.sampled_from([0.0, 0.1, 0.9]), with_teacher=st.booleans())  # fmt: skip
def test_values_and_gradients_are_those_of_the_definition(
    tokens: int, seed: int, chunk: int, temperature: float, alpha: float, beta: float, smoothing: float,
    with_teacher: bool,
) -> None:  # fmt: skip
    states, head, labels, *teacher = inputs(tokens, seed)
    source = teacher if with_teacher else [None, None]
    weights = {"temperature": temperature, "alpha": alpha, "beta": beta, "label_smoothing": smoothing}
    expected = plain_loss(states, head, labels, *source, **weights)
    found = fused_loss(states, head, labels, *source, **weights, chunk_tokens=chunk)
    torch.testing.assert_close(torch.stack(tuple(found)), torch.stack(expected), rtol=1e-9, atol=1e-9)
    wanted = gradients(expected[0], states, head)
    for ours, theirs in zip(gradients(found.total, states, head), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_defaults_are_plain_cross_entropy() -> None:
    states, head, labels, *_ = inputs(20)
    found = fused_loss(states, head, labels)
    expected = functional.cross_entropy(states @ head.T, labels, reduction="sum")
    torch.testing.assert_close(found.total, expected)
    assert found.kd.item() == 0.0


def test_only_the_total_carries_a_gradient() -> None:
    found = fused_loss(*inputs(5), alpha=0.5, beta=0.5)
    assert found.total.requires_grad
    assert not found.kd.requires_grad
    assert not found.gold.requires_grad


def test_equal_distributions_do_not_diverge() -> None:
    states, head, labels, *_ = inputs(30)
    found = fused_loss(states, head, labels, states.detach(), head.detach(), alpha=1.0, beta=0.0, temperature=2.0)
    assert found.total.item() == pytest.approx(0.0, abs=1e-12)
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients(found.total, states, head))


def test_no_tokens_at_all() -> None:
    states, head, *rest = inputs(0)
    found = fused_loss(states, head, *rest, alpha=0.5, beta=0.5)
    assert [value.item() for value in found] == [0.0, 0.0, 0.0]
    assert not gradients(found.total, states, head)[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_number_formats_are_close_and_gradients_fit_the_weights(dtype: torch.dtype) -> None:
    states, head, labels, *teacher = inputs(200, vocabulary=60)
    weights = {"temperature": 2.0, "alpha": 0.7, "beta": 0.3, "label_smoothing": 0.1}
    expected = plain_loss(states, head, labels, *teacher, **weights)
    small = states.detach().to(dtype).requires_grad_()
    small_head = head.detach().float().requires_grad_()
    found = fused_loss(small, small_head, labels, *(part.to(dtype) for part in teacher), **weights)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert [value.item() for value in found] == pytest.approx([value.item() for value in expected], rel=tolerance)
    assert {value.dtype for value in found} == {torch.float32}
    ours = gradients(found.total, small, small_head)
    assert [gradient.dtype for gradient in ours] == [dtype, torch.float32]
    for gradient, wanted in zip(ours, gradients(expected[0], states, head), strict=True):
        assert (gradient.double() - wanted).norm() < tolerance * wanted.norm()


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_states_that_are_not_finite_show_in_the_total(alpha: float, beta: float) -> None:
    states, head, labels, *teacher = inputs(40)
    spoilt = states.detach().clone()
    spoilt[17, 2] = torch.nan
    assert not fused_loss(spoilt, head, labels, *teacher, alpha=alpha, beta=beta).total.isfinite()


def test_a_teacher_of_weight_0_has_no_influence_on_the_total() -> None:
    states, head, labels, teacher_states, teacher_head = inputs(40)
    teacher_states[3] = torch.inf
    found = fused_loss(states, head, labels, teacher_states, teacher_head, alpha=0.0, beta=1.0)
    torch.testing.assert_close(found.total, fused_loss(states, head, labels).total)


def test_a_teacher_of_weight_0_has_no_influence_on_the_gradient() -> None:
    states, head, labels, teacher_states, teacher_head = inputs(40)
    teacher_states[3] = torch.inf
    found = fused_loss(states, head, labels, teacher_states, teacher_head, alpha=0.0, beta=1.0)
    expected = gradients(fused_loss(states, head, labels).total, states, head)
    for ours, theirs in zip(gradients(found.total, states, head), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("tokens", "longest"), [(1, 256), (15, 16), (256, 256), (257, 256), (1000, 256), (70, 7)])
def test_logits_are_made_a_chunk_at_a_time(tokens: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[torch.Size, torch.Size]] = []
    objective_gradient = module.objective_gradient

    def recorded(logits: Tensor, teacher_logits: Tensor, labels: Tensor, **options: Any) -> tuple[float, float]:
        shapes.append((logits.shape, teacher_logits.shape))
        assert len(labels) == len(logits)
        return objective_gradient(logits, teacher_logits, labels, **options)

    monkeypatch.setattr(module, "objective_gradient", recorded)
    fused_loss(*inputs(tokens), alpha=0.5, beta=0.5, chunk_tokens=longest)
    lengths = [shape[0] for shape, _ in shapes]
    assert all(shape == teacher == (shape[0], VOCABULARY) for shape, teacher in shapes)
    assert sum(lengths) == tokens
    assert max(lengths) <= longest
    assert len(lengths) == -(-tokens // longest)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


def test_no_tensor_of_tokens_times_vocabulary_exists_forward_or_backward() -> None:
    tokens, vocabulary, chunk = 400, 300, 32
    states, head, *rest = inputs(tokens, vocabulary=vocabulary)
    with Largest() as plain:
        gradients(plain_loss(states, head, *rest, temperature=2.0, alpha=0.5, beta=0.5, label_smoothing=0.1)[0],
                  states, head)  # fmt: skip
    assert plain.numbers == tokens * vocabulary  # so this measure finds one
    with Largest() as fused:
        found = fused_loss(states, head, *rest, temperature=2.0, alpha=0.5, beta=0.5, chunk_tokens=chunk)
        gradients(found.total, states, head)
    assert 0 < fused.numbers <= chunk * vocabulary
