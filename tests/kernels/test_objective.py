"""The objective of a chunk is the documented one, and what it leaves in place of the logits is its gradient."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mtdistill.distillation.losses import forward_kl, gold_loss, kd_loss
from mtdistill.kernels.objective import objective_gradient


class Weights(NamedTuple):
    temperature: float
    kd_weight: float
    gold_weight: float
    label_smoothing: float


WEIGHTS = st.builds(
    Weights,
    st.sampled_from([0.5, 1.0, 2.0, 8.0]),
    st.sampled_from([0.0, 0.3, 4.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.1, 0.6]),
)
BOTH = Weights(2.0, 0.7, 0.4, 0.1)


def numbers(tokens: int, vocabulary: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Logits of student and teacher, labels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, tokens, vocabulary, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    return student.to(dtype), teacher.to(dtype), labels


def run(student: Tensor, teacher: Tensor | None, labels: Tensor, weights: Weights) -> tuple[float, float, Tensor]:
    """Both sums, and the gradient."""
    logits = student.clone()
    return *objective_gradient(logits, teacher, labels, **weights._asdict()), logits


def plain(student: Tensor, teacher: Tensor | None, labels: Tensor, weights: Weights) -> tuple[float, float, Tensor]:
    """The formula, written out in float64, and its gradient from autograd."""
    student = student.double().requires_grad_()
    kd = student.new_zeros(())
    if teacher is not None:
        below = functional.log_softmax(student / weights.temperature, -1)
        wanted = functional.log_softmax(teacher.double() / weights.temperature, -1)
        kd = (wanted.exp() * (wanted - below)).sum()
    log_probabilities = functional.log_softmax(student, -1)
    smoothing = weights.label_smoothing
    hit = log_probabilities.gather(1, labels[:, None]).sum()
    gold = -(1 - smoothing) * hit - smoothing * log_probabilities.mean(-1).sum()
    total = weights.kd_weight * kd + weights.gold_weight * gold
    return kd.item(), gold.item(), torch.autograd.grad(total, student)[0]


@given(st.integers(1, 5), st.integers(1, 25), st.integers(0, 1000), WEIGHTS, st.booleans())
@settings(max_examples=25)
def test_losses_and_gradient_are_those_of_the_formula(
    tokens: int, vocabulary: int, seed: int, weights: Weights, with_teacher: bool
) -> None:
    student, teacher, labels = numbers(tokens, vocabulary, seed)
    given_teacher = teacher if with_teacher else None
    kd_expected, gold_expected, expected = plain(student, given_teacher, labels, weights)
    kd, gold, gradient = run(student, given_teacher, labels, weights)
    assert kd == pytest.approx(kd_expected, rel=1e-9, abs=1e-9)
    assert gold == pytest.approx(gold_expected, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 12), st.integers(2, 40), st.integers(0, 1000), WEIGHTS)
@settings(max_examples=25)
def test_in_float32_it_is_the_plain_loss_of_this_project(
    tokens: int, vocabulary: int, seed: int, weights: Weights
) -> None:
    student, teacher, labels = numbers(tokens, vocabulary, seed, torch.float32)
    temperature, alpha, beta, smoothing = weights
    squared = temperature**2
    given_student = student.clone().requires_grad_()
    losses = kd_loss(
        given_student, teacher, labels, temperature=temperature, alpha=alpha, beta=beta, label_smoothing=smoothing,
        count=1,
    )  # fmt: skip
    expected = torch.zeros_like(student)
    if alpha > 0 or beta > 0:
        (expected,) = torch.autograd.grad(losses.total, given_student)
    kd, gold, gradient = run(student, teacher, labels, weights._replace(kd_weight=alpha * squared))
    assert squared * kd == pytest.approx(losses.kd.item(), rel=1e-4, abs=1e-3)
    assert gold == pytest.approx(losses.gold.item(), rel=1e-4, abs=1e-3)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=2e-5)


def test_in_bfloat16_only_the_gradient_is_rounded() -> None:
    student, teacher, labels = numbers(20, 300, 3, torch.bfloat16)
    kd_expected = forward_kl(student, teacher, temperature=2.0).sum().item()
    gold_expected = gold_loss(student, labels, label_smoothing=0.1).sum().item()
    kd, gold, gradient = run(student, teacher, labels, BOTH)
    assert (kd, gold) == (pytest.approx(kd_expected, rel=1e-4), pytest.approx(gold_expected, rel=1e-4))
    assert gradient.dtype == torch.bfloat16
    _, _, expected = plain(student, teacher, labels, BOTH)
    torch.testing.assert_close(gradient.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_have_no_divergence(dtype: torch.dtype) -> None:
    student, _, labels = numbers(6, 50, 4, dtype)
    kd, _, gradient = run(student, student.clone(), labels, BOTH._replace(gold_weight=0.0))
    assert abs(kd) < 1e-5
    assert gradient.abs().max() < 1e-6


def test_the_teacher_and_the_labels_are_left_alone() -> None:
    student, teacher, labels = numbers(4, 9, 5)
    copies = teacher.clone(), labels.clone()
    run(student, teacher, labels, BOTH)
    assert torch.equal(teacher, copies[0])
    assert torch.equal(labels, copies[1])


def test_the_gradient_of_every_token_adds_up_to_nothing() -> None:
    _, _, gradient = run(*numbers(7, 31, 6), BOTH)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_huge_logits_do_not_overflow(dtype: torch.dtype, shift: float) -> None:
    student, teacher, labels = numbers(3, 12, 7, dtype)
    kd_expected, gold_expected, expected = plain(student, teacher, labels, BOTH)
    kd, gold, gradient = run(student + shift, teacher + shift, labels, BOTH)
    assert (kd, gold) == (pytest.approx(kd_expected, rel=1e-3), pytest.approx(gold_expected, rel=1e-3))
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-4)


def test_a_certain_model_that_is_wrong_pays_the_whole_distance() -> None:
    student = torch.zeros(1, 4)
    student[0, 1] = 500.0
    _, gold, gradient = run(student, None, torch.tensor([2]), Weights(1.0, 0.0, 1.0, 0.0))
    assert gold == pytest.approx(500)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0, -1.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
class TestNotFinite:
    @pytest.mark.parametrize("word", [0, 3, 6])  # the first, the label, the last
    @pytest.mark.parametrize("with_teacher", [True, False])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_a_logit_that_is_not_finite_shows_in_the_loss(
        self, dtype: torch.dtype, bad: float, word: int, with_teacher: bool, smoothing: float
    ) -> None:
        student, teacher, labels = numbers(3, 7, 8, dtype)
        labels[1], student[1, word] = 3, bad
        weights = BOTH._replace(label_smoothing=smoothing)
        kd, gold, _ = run(student, teacher if with_teacher else None, labels, weights)
        assert not math.isfinite(gold)
        assert math.isfinite(kd) is not with_teacher

    @pytest.mark.parametrize("word", [0, 3, 6])
    def test_one_of_the_teacher_shows_in_the_divergence_alone(self, dtype: torch.dtype, bad: float, word: int) -> None:
        student, teacher, labels = numbers(3, 7, 8, dtype)
        teacher[1, word] = bad
        kd, gold, _ = run(student, teacher, labels, BOTH)
        assert not math.isfinite(kd)
        assert math.isfinite(gold)
