"""Muon against that of PyTorch, and what is different here: number formats, and threads that share the matrices."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mtdistill.training import muon
from mtdistill.training.muon import Muon, orthogonal

SHAPES = ((8, 12), (12, 8), (6, 6), (1, 5), (30, 7))


def alone(move: Any, sizes: Any) -> None:
    move(range(len(sizes)))


@pytest.fixture
def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]


def give_gradients(matrices: list[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)


def update(optimizer: torch.optim.Optimizer, matrices: list[Tensor], seed: int) -> None:
    give_gradients(matrices, seed)
    optimizer.step()


def test_in_bfloat16_it_is_the_optimizer_of_pytorch_to_the_bit(matrices: list[Tensor]) -> None:
    its = copy.deepcopy(matrices)
    ours = Muon(matrices, 0.01, 0.1, torch.bfloat16, alone)
    pytorch = torch.optim.Muon(its, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        update(ours, matrices, seed)
        update(pytorch, its, seed)
        for matrix, expected in zip(matrices, its, strict=True):
            assert torch.equal(matrix, expected)


def test_it_goes_on_from_a_state_of_pytorch(matrices: list[Tensor]) -> None:
    """Checkpoints of before this class was written are of that one."""
    its = copy.deepcopy(matrices)
    pytorch = torch.optim.Muon(its, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    update(pytorch, its, 0)
    going_on = copy.deepcopy(its)
    ours = Muon(going_on, 0.7, 0.0, torch.bfloat16, alone)
    ours.load_state_dict(copy.deepcopy(pytorch.state_dict()))
    update(ours, going_on, 1)
    update(pytorch, its, 1)
    for matrix, expected in zip(going_on, its, strict=True):
        assert torch.equal(matrix, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix, torch.float64)
    # In the matrix's own directions: nothing beside the diagonal.
    inside = left.T @ found @ right.T
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()))
    clear = values / values.norm() > 0.05  # five iterations bring what is smaller near 1, but not all the way
    assert clear.any()
    assert inside.diagonal()[clear].min() > 0.6
    assert inside.diagonal().max() < 1.3


def test_number_formats_agree_within_their_precision() -> None:
    matrix = torch.randn((40, 24), generator=torch.Generator().manual_seed(2))
    exact = orthogonal(matrix.double(), torch.float64)
    errors = [
        ((orthogonal(matrix, dtype).double() - exact).norm() / exact.norm()).item()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert errors[0] < 1e-4
    assert errors[0] < errors[1] < 0.1
    assert orthogonal(matrix, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(20, 120), (120, 20)])
def test_a_long_matrix_becomes_the_same_through_its_gram_matrix(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Singular values from 1 down to a thousandth, as gradients have them.
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64), full_matrices=False
    )
    matrix = left @ torch.diag(torch.logspace(0, -3, 20, dtype=torch.float64)) @ right
    short, rounded, coarse = (orthogonal(matrix, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16))
    monkeypatch.setattr(muon, "_WIDE", math.inf)
    monkeypatch.setattr(muon, "_all_iterations", None)
    whole = orthogonal(matrix, torch.float64)
    torch.testing.assert_close(short, whole)
    assert (rounded - whole).norm() < 0.1 * (coarse - whole).norm()  # bfloat16 is precise enough for training


@pytest.mark.parametrize("shape", [(3, 4), (3, 40)])
def test_nothing_comes_of_nothing(shape: tuple[int, int]) -> None:
    assert torch.equal(orthogonal(torch.zeros(shape), torch.float32), torch.zeros(shape))


def test_a_matrix_without_a_gradient_stays(matrices: list[Tensor]) -> None:
    optimizer = Muon(matrices, 0.1, 0.5, torch.float32, alone)
    give_gradients(matrices, 0)
    matrices[1].grad = None
    before = [matrix.detach().clone() for matrix in matrices]
    optimizer.step()
    assert [torch.equal(matrix, old) for matrix, old in zip(matrices, before, strict=True)] == [
        place == 1 for place in range(len(matrices))
    ]
