"""The RMS norm is torch's, as is its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mtdistill.kernels.norm import rms_norm, rms_norm_backward

EPSILON = 1e-6


def numbers(rows: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, gains, and the gradient of the result."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64) * 3
    gain = torch.rand(width, generator=generator, dtype=torch.float64) + 0.5
    slope = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return x.to(dtype), gain.to(dtype), slope


def plain(x: Tensor, gain: Tensor, slope: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Tensor, Tensor]:
    """Result and gradients of torch, float64."""
    x, gain = x.double().requires_grad_(), gain.double().requires_grad_()
    normed = functional.rms_norm(x, (x.shape[1],), gain, epsilon)
    x_gradient, gain_gradient = torch.autograd.grad(normed, (x, gain), slope.double())
    return normed.detach(), x_gradient, gain_gradient


@given(st.integers(0, 5), st.integers(1, 20), st.integers(0, 1000), st.sampled_from([1e-6, 1e-2, 1.0]))
@settings(max_examples=25)
def test_values_and_gradients_are_those_of_torch(rows: int, width: int, seed: int, epsilon: float) -> None:
    x, gain, slope = numbers(rows, width, seed)
    expected, x_expected, gain_expected = plain(x, gain, slope, epsilon)
    normed, inverse = rms_norm(x, gain, epsilon, torch.float64)
    x_gradient, gain_gradient = rms_norm_backward(slope, x, gain, inverse)
    torch.testing.assert_close(normed, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(x_gradient, x_expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gain_gradient, gain_expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_with_less_precision_the_result_is_close(dtype: torch.dtype, tolerance: float) -> None:
    x, gain, slope = numbers(30, 65, 1, torch.float32)
    slope = slope.to(dtype)
    expected, x_expected, gain_expected = plain(x, gain, slope)
    normed, inverse = rms_norm(x, gain, EPSILON, dtype)
    x_gradient, gain_gradient = rms_norm_backward(slope, x, gain, inverse)
    assert (normed.dtype, inverse.dtype) == (dtype, torch.float32)
    assert (x_gradient.dtype, gain_gradient.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(normed.double(), expected, rtol=tolerance, atol=1e-6)
    # The gradient that comes in is rounded for both, so these are exact to float32.
    torch.testing.assert_close(x_gradient.double(), x_expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gain_gradient.double(), gain_expected, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_it_is_the_rounded_float32_result() -> None:
    x, gain, _ = numbers(10, 33, 2, torch.float32)
    exact, rounded = (rms_norm(x, gain, EPSILON, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(rounded, exact.to(torch.bfloat16))


@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-3])
def test_nearly_nothing_is_not_blown_up(size: float) -> None:
    x = torch.linspace(-size, size, 24)[None]
    normed, inverse = rms_norm(x, torch.ones(24), EPSILON, torch.float32)
    torch.testing.assert_close(normed, functional.rms_norm(x, (24,), torch.ones(24), EPSILON))
    assert inverse.item() <= 1001


def test_the_inputs_are_left_alone() -> None:
    x, gain, slope = numbers(3, 9, 3)
    copies = [tensor.clone() for tensor in (x, gain, slope)]
    _, inverse = rms_norm(x, gain, EPSILON, torch.float64)
    rms_norm_backward(slope, x, gain, inverse)
    assert all(torch.equal(*pair) for pair in zip((x, gain, slope), copies, strict=True))


def test_a_value_that_is_not_a_number_shows() -> None:
    x = torch.ones(2, 4)
    x[1, 2] = torch.nan
    normed, _ = rms_norm(x, torch.ones(4), EPSILON, torch.float32)
    assert normed[0].isfinite().all()
    assert normed[1].isnan().all()
