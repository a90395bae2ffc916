"""Which rule moves which weight: AdamW for everything, or Muon for the matrices inside the layers.

Muon (Jordan et al. 2024; torch.optim.Muon) orthogonalises the momentum of a matrix. On our teacher it reached after 412
updates what AdamW needs about twice as many for (docs/experiments.md, 2026-11-23), at the same time per update.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

OptimizerName = Literal["adamw", "muon"]
# Calls a function with shares of the places of some things, of which it knows the sizes.
SideBySide = Callable[[Callable[[Sequence[int]], None], Sequence[int]], object]
_BETAS, _EPSILON = (0.9, 0.98), 1e-9


def build_optimizer(
    model: T5ForConditionalGeneration,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    embedding_learning_rate_ratio: float,
    side_by_side: SideBySide = lambda move, sizes: move(range(len(sizes))),
) -> torch.optim.Optimizer:
    """The optimizer over all trainable weights.

    The embedding table has a rate of its own; neither it nor any vector decays. With "muon" the matrices of the layers
    move by Muon, its step scaled to the size AdamW's would have, so that one learning rate serves both rules.

    Args:
        model: weights that need no gradient are left out.
        name: the rule for the matrices.
        learning_rate: of everything but the embedding table, > 0.
        weight_decay: of the matrices, >= 0.
        embedding_learning_rate_ratio: rate of the embedding table / learning_rate.
        side_by_side: has threads share the matrices of Muon; what they become does not depend on it.
    """
    table = model.shared.weight
    # The relative position biases are tables too: their rows are looked up, not multiplied with.
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [weight for weight in model.parameters() if weight.requires_grad and weight is not table]
    matrices = [weight for weight in trained if weight.dim() > 1 and id(weight) not in looked_up]
    others = [weight for weight in trained if weight.dim() == 1 or id(weight) in looked_up]
    adam_groups: list[dict[str, Any]] = [
        {"params": others, "lr": learning_rate, "weight_decay": 0.0},
        {"params": [table], "lr": learning_rate * embedding_learning_rate_ratio, "weight_decay": 0.0},
    ]
    if name == "adamw":
        adam_groups.insert(0, {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay})
        return torch.optim.AdamW(adam_groups, betas=_BETAS, eps=_EPSILON, fused=True)
    return _Both(
        _Muon(side_by_side, matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam_groups, betas=_BETAS, eps=_EPSILON, fused=True),
    )


class _Muon(torch.optim.Muon):
    """Muon whose matrices threads share, since it takes as long as the gradient; AdamW is over before they are awake."""

    def __init__(self, side_by_side: SideBySide, matrices: list[Tensor], **options: Any) -> None:
        super().__init__(matrices, **options)
        self._side_by_side = side_by_side

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        matrices = group["params"]

        def move(places: Sequence[int]) -> None:
            share = copy.copy(self)  # with the same state
            share.param_groups = [{**group, "params": [matrices[place] for place in places]}]
            super(_Muon, share).step()  # type: ignore[no-untyped-call]

        self._side_by_side(move, [matrix.numel() for matrix in matrices])


class _Both(torch.optim.Optimizer):
    """Two optimizers over disjoint weights that schedulers and checkpoints see as one."""

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self._parts = {"muon": muon, "adamw": adamw}
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts.values() for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self.param_groups = self._groups()
