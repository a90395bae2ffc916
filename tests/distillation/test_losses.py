import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mtdistill.distillation.losses import (
    IGNORED_LABEL,
    DistillationLoss,
    forward_kl,
    gold_loss,
    kd_loss,
    state_distance,
    state_weight_at,
    temperature_at,
    token_mean,
)
from mtdistill.errors import TeacherError

VOCABULARY = 11
few_examples = settings(max_examples=30)


def logits(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(*shape, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def labels_with_padding() -> Tensor:
    labels = torch.randint(0, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(7))
    labels[0, 3:] = IGNORED_LABEL
    labels[2, 1:] = IGNORED_LABEL
    return labels


def gradient(loss_of: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    loss_of(at).backward()
    assert at.grad is not None
    return at.grad


temperatures = st.floats(0.5, 10.0)
seeds = st.integers(0, 10_000)


class TestForwardKl:
    @few_examples
    @given(seeds, temperatures)
    def test_zero_for_equal_logits(self, seed: int, temperature: float) -> None:
        same = logits(2, 3, seed=seed)
        assert torch.equal(forward_kl(same, same.clone(), temperature=temperature), torch.zeros(2, 3))

    @few_examples
    @given(seeds, temperatures, st.sampled_from([1e-4, 1e-2, 1.0, 30.0]))
    def test_never_negative(self, seed: int, temperature: float, distance: float) -> None:
        teacher = logits(4, 5, seed=seed)
        student = teacher + distance * logits(4, 5, seed=seed + 1)
        assert (forward_kl(student, teacher, temperature=temperature) >= 0).all()

    @few_examples
    @given(seeds, st.floats(-50, 50), st.floats(-50, 50))
    def test_ignores_a_constant_added_to_the_logits(self, seed: int, shift: float, teacher_shift: float) -> None:
        student, teacher = logits(2, 3, seed=seed), logits(2, 3, seed=seed + 1)
        shifted = forward_kl(student + shift, teacher + teacher_shift, temperature=2.0)
        torch.testing.assert_close(shifted, forward_kl(student, teacher, temperature=2.0), rtol=1e-3, atol=1e-4)

    def test_value_computed_by_hand(self) -> None:
        teacher, student = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
        by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
        assert forward_kl(student.log(), teacher.log()).item() == pytest.approx(by_hand, abs=1e-6)

    def test_direction_is_teacher_first(self) -> None:
        teacher, student = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
        reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
        assert forward_kl(student.log(), teacher.log()).item() != pytest.approx(reverse, abs=0.05)

    def test_temperature_softens_both_sides(self) -> None:
        # Halved log odds: 3 : 1 becomes sqrt(3) : 1.
        teacher, student = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.1, 0.9]).log()
        p, q = math.sqrt(3) / (1 + math.sqrt(3)), 1 / (1 + 3.0)
        by_hand = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        assert forward_kl(student, teacher, temperature=2.0).item() == pytest.approx(by_hand, abs=1e-6)

    @few_examples
    @given(seeds, temperatures)
    def test_agrees_with_torch(self, seed: int, temperature: float) -> None:
        student, teacher = logits(2, 3, seed=seed), logits(2, 3, seed=seed + 1)
        reference = functional.kl_div(
            torch.log_softmax(student / temperature, -1), torch.softmax(teacher / temperature, -1), reduction="none"
        ).sum(-1)
        found = forward_kl(student, teacher, temperature=temperature)
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-5)

    def test_gradient_is_the_difference_of_the_distributions(self) -> None:
        student, teacher = logits(4), logits(4, seed=1)
        found = gradient(lambda z: forward_kl(z, teacher, temperature=3.0).sum(), student)
        expected = (torch.softmax(student / 3, -1) - torch.softmax(teacher / 3, -1)) / 3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    def test_gradient_survives_where_rounding_would_make_the_value_negative(self) -> None:
        teacher = logits(500, seed=3)
        student = teacher + 1e-4 * logits(500, seed=4)
        found = gradient(lambda z: forward_kl(z, teacher).sum(), student)
        assert (found.abs().sum(-1) > 0).all()

    def test_teacher_gets_no_gradient(self) -> None:
        student, teacher = logits(2).requires_grad_(), logits(2, seed=1).requires_grad_()
        forward_kl(student, teacher).sum().backward()
        assert teacher.grad is None

    def test_float32_result_for_bfloat16_logits(self) -> None:
        student, teacher = logits(6).bfloat16(), logits(6, seed=1).bfloat16()
        found = forward_kl(student, teacher, temperature=3.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, forward_kl(student.float(), teacher.float(), temperature=3.0))

    def test_different_vocabularies_are_refused(self) -> None:
        with pytest.raises(TeacherError, match=r"got logits of the shapes \(2, 11\) / \(2, 9\)"):
            forward_kl(logits(2), logits(2)[:, :9])

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
    def test_impossible_temperatures_are_refused(self, temperature: float) -> None:
        with pytest.raises(ValueError, match="temperature must be positive"):
            forward_kl(logits(2), logits(2), temperature=temperature)


class TestGoldLoss:
    @few_examples
    @given(seeds, st.sampled_from([0.0, 0.1, 0.3]))
    def test_agrees_with_torch(self, seed: int, label_smoothing: float) -> None:
        student, labels = logits(3, 5, seed=seed), labels_with_padding()
        reference = functional.cross_entropy(
            student.flatten(0, 1), labels.flatten(), label_smoothing=label_smoothing, ignore_index=IGNORED_LABEL
        )
        found = token_mean(gold_loss(student, labels, label_smoothing=label_smoothing), labels != IGNORED_LABEL)
        torch.testing.assert_close(found, reference)

    def test_value_computed_by_hand(self) -> None:
        student = torch.tensor([[0.7, 0.2, 0.1]]).log()
        smoothed = -(0.9 * math.log(0.2) + 0.1 / 3 * (math.log(0.7) + math.log(0.2) + math.log(0.1)))
        assert gold_loss(student, torch.tensor([1])).item() == pytest.approx(-math.log(0.2), abs=1e-6)
        assert gold_loss(student, torch.tensor([1]), label_smoothing=0.1).item() == pytest.approx(smoothed, abs=1e-6)

    def test_one_float32_value_per_token(self) -> None:
        found = gold_loss(logits(3, 5).bfloat16(), labels_with_padding())
        assert found.dtype == torch.float32
        assert found.shape == (3, 5)


class TestTokenMean:
    def test_divides_by_its_own_tokens_or_by_the_given_count(self) -> None:
        values, mask = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True])
        assert token_mean(values, mask).item() == 3.5
        assert token_mean(values, mask, count=10).item() == pytest.approx(0.7)
        assert token_mean(values, mask, count=torch.tensor(10)).item() == pytest.approx(0.7)

    def test_what_the_mask_hides_may_be_anything(self) -> None:
        values = torch.tensor([1.0, math.nan, math.inf], requires_grad=True)
        mean = token_mean(values, torch.tensor([True, False, False]))
        mean.backward()
        assert mean.item() == 1.0
        assert values.grad is not None
        assert values.grad.tolist() == [1.0, 0.0, 0.0]

    def test_zero_for_an_empty_mask(self) -> None:
        assert token_mean(torch.ones(2), torch.zeros(2, dtype=torch.bool)).item() == 0.0


def loss(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 3.0, alpha: float = 0.7,
         beta: float = 0.3, label_smoothing: float = 0.1, count: int | None = None) -> DistillationLoss:  # fmt: skip
    return kd_loss(student, teacher, labels, temperature=temperature, alpha=alpha, beta=beta,
                   label_smoothing=label_smoothing, count=count)  # fmt: skip


class TestKdLoss:
    def test_is_the_sum_of_its_parts(self) -> None:
        student, teacher, labels = logits(3, 5), logits(3, 5, seed=1), labels_with_padding()
        real = labels != IGNORED_LABEL
        kd = 9.0 * forward_kl(student, teacher, temperature=3.0)[real].mean()
        gold = functional.cross_entropy(student[real], labels[real], label_smoothing=0.1)
        found = loss(student, teacher, labels)
        torch.testing.assert_close(found.kd, kd)
        torch.testing.assert_close(found.gold, gold)
        torch.testing.assert_close(found.total, 0.7 * kd + 0.3 * gold)

    def test_gradient_keeps_its_size_at_any_temperature(self) -> None:
        # For logits near zero the softened gradient tends to 1 / T² of the plain one (Hinton et al. 2015, section 2).
        student, teacher = logits(3, 5, spread=0.02), logits(3, 5, seed=1, spread=0.02)
        labels = labels_with_padding()

        def of(temperature: float) -> Tensor:
            return gradient(
                lambda z: loss(z, teacher, labels, temperature=temperature, alpha=1.0, beta=0.0).total, student
            )

        torch.testing.assert_close(of(4.0), of(1.0), rtol=0.05, atol=1e-5)

    @pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 1e30])
    def test_padding_has_no_influence_on_value_or_gradient(self, rubbish: float) -> None:
        student, teacher, labels = logits(3, 5), logits(3, 5, seed=1), labels_with_padding()
        padding = labels == IGNORED_LABEL
        spoilt_student, spoilt_teacher = student.clone(), teacher.clone()
        spoilt_student[padding], spoilt_teacher[padding] = rubbish, rubbish
        assert torch.equal(loss(spoilt_student, spoilt_teacher, labels).total, loss(student, teacher, labels).total)
        clean = gradient(lambda z: loss(z, teacher, labels).total, student)
        spoilt = gradient(lambda z: loss(z, spoilt_teacher, labels).total, spoilt_student)
        assert torch.equal(spoilt, clean)
        assert not clean[padding].any()

    def test_weights_zero_and_one_are_the_limits_of_small_weights(self) -> None:
        student, teacher, labels = logits(3, 5), logits(3, 5, seed=1), labels_with_padding()

        def of(alpha: float, beta: float) -> tuple[Tensor, Tensor]:
            return (
                loss(student, teacher, labels, alpha=alpha, beta=beta).total,
                gradient(lambda z: loss(z, teacher, labels, alpha=alpha, beta=beta).total, student),
            )

        torch.testing.assert_close(of(1.0, 0.0), of(1.0 - 1e-6, 1e-6), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(of(0.0, 1.0), of(1e-6, 1.0 - 1e-6), rtol=1e-4, atol=1e-5)

    def test_a_term_of_weight_zero_cannot_spoil_the_other(self) -> None:
        student, labels = logits(3, 5), labels_with_padding()
        found = gradient(lambda z: loss(z, torch.full_like(z, math.nan), labels, alpha=0.0, beta=1.0).total, student)
        assert found.isfinite().all()
        assert found.any()
        assert loss(student, torch.full_like(student, math.nan), labels, alpha=0.0, beta=1.0).total.isfinite()

    def test_parts_are_reported_also_at_weight_zero(self) -> None:
        student, teacher, labels = logits(3, 5), logits(3, 5, seed=1), labels_with_padding()
        found = loss(student, teacher, labels, alpha=1.0, beta=0.0)
        assert found.gold.item() == loss(student, teacher, labels).gold.item() > 0

    @few_examples
    @given(seeds)
    def test_any_cut_into_micro_batches_gives_the_same_gradient(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 8, (8,), generator=generator)
        lengths[0] = 7  # unequal whatever the draw
        lengths[1] = 1
        inputs, targets = torch.randn(8, 7, 6, generator=generator), logits(8, 7, seed=seed)
        labels = torch.randint(0, VOCABULARY, (8, 7), generator=generator)
        labels[torch.arange(7) >= lengths[:, None]] = IGNORED_LABEL
        count = int(lengths.sum())
        weight = torch.randn(VOCABULARY, 6, generator=generator)

        def accumulated(micro_batches: int) -> Tensor:
            head = weight.clone().requires_grad_()
            for rows in torch.arange(8).chunk(micro_batches):
                longest = int(lengths[rows].max())
                loss(
                    inputs[rows, :longest] @ head.T, targets[rows, :longest], labels[rows, :longest], count=count
                ).total.backward()
            assert head.grad is not None
            return head.grad

        whole = accumulated(1)
        for micro_batches in (2, 4, 8):
            torch.testing.assert_close(accumulated(micro_batches), whole, rtol=1e-4, atol=1e-6)

    def test_float32_sums_for_bfloat16_logits(self) -> None:
        student, teacher = logits(2, 4000).bfloat16(), logits(2, 4000, seed=1).bfloat16()
        labels = torch.randint(0, VOCABULARY, (2, 4000))
        found = loss(student, teacher, labels)
        assert found.total.dtype == torch.float32
        torch.testing.assert_close(found, loss(student.float(), teacher.float(), labels))

    def test_tokens_may_come_without_a_batch_dimension(self) -> None:
        student, teacher, labels = logits(3, 5), logits(3, 5, seed=1), labels_with_padding()
        real = labels != IGNORED_LABEL
        flat = loss(student[real], teacher[real], labels[real])
        torch.testing.assert_close(flat.total, loss(student, teacher, labels).total)

    def test_a_batch_of_padding_alone_counts_nothing(self) -> None:
        labels = torch.full((2, 3), IGNORED_LABEL)
        found = gradient(lambda z: loss(z, logits(2, 3), labels).total, logits(2, 3))
        assert not found.any()


class TestTemperatureAt:
    def test_constant_without_an_end(self) -> None:
        assert {temperature_at(progress, 4.0, None) for progress in (0.0, 0.3, 1.0)} == {4.0}

    def test_linear_and_clamped(self) -> None:
        assert temperature_at(0.25, 4.0, 2.0) == 3.5
        assert temperature_at(-1.0, 4.0, 2.0) == 4.0
        assert temperature_at(1.001, 4.0, 2.0) == 2.0


class TestStateDistance:
    @few_examples
    @given(seeds, st.floats(0.1, 100.0))
    def test_only_the_angle_counts(self, seed: int, length: float) -> None:
        random = torch.Generator().manual_seed(seed)
        readout = torch.randn(6, 4, generator=random, dtype=torch.float64)
        teacher = torch.randn(5, 6, generator=random, dtype=torch.float64)
        seen = teacher @ readout
        assert state_distance(length * seen, teacher, readout).abs().max() < 1e-9
        torch.testing.assert_close(state_distance(-length * seen, teacher, readout), seen.new_full((5,), 2.0))
        states = torch.randn(5, 4, generator=random, dtype=torch.float64)
        expected = 1 - (states * seen).sum(-1) / (states.norm(dim=-1) * seen.norm(dim=-1))
        torch.testing.assert_close(state_distance(states, teacher, readout), expected)

    def test_the_teacher_gets_no_gradient(self) -> None:
        teacher = torch.randn(3, 4, requires_grad=True)
        states = torch.randn(3, 2, requires_grad=True)
        state_distance(states, teacher, torch.randn(4, 2)).sum().backward()
        assert teacher.grad is None
        assert states.grad is not None

    def test_half_precision_is_good_enough(self) -> None:
        random = torch.Generator().manual_seed(1)
        teacher, readout = torch.randn(50, 64, generator=random), torch.randn(64, 32, generator=random)
        states = teacher @ readout + torch.randn(50, 32, generator=random)
        found = state_distance(states.bfloat16(), teacher.bfloat16(), readout)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, state_distance(states, teacher, readout), rtol=0.1, atol=1e-3)

    def test_the_weight_falls_to_nothing(self) -> None:
        assert [state_weight_at(progress / 10, 8.0) for progress in range(11)] == pytest.approx(
            [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
        )
