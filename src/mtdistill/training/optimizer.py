"""Which rule moves which weight: AdamW for everything, or Muon for the matrices inside the layers.

On our teacher Muon reached after 412 updates what AdamW needs about twice as many for, at the same time per update
(docs/experiments.md, 2026-11-23).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from mtdistill.training.muon import Muon, SideBySide

OptimizerName = Literal["adamw", "muon"]
_BETAS, _EPSILON = (0.9, 0.98), 1e-9


def build_optimizer(
    model: T5ForConditionalGeneration,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    embedding_learning_rate_ratio: float,
    dtype: torch.dtype = torch.float32,
    side_by_side: SideBySide = lambda move, sizes: move(range(len(sizes))),
) -> torch.optim.Optimizer:
    """The optimizer over all trainable weights.

    Tables of the vocabulary, the output head among them, have a rate of their own; neither they nor any vector decay. With
    "muon" the matrices of the layers move by Muon, its step scaled to the size AdamW's would have, so that one learning
    rate serves both rules.

    Args:
        model: weights that need no gradient are left out.
        name: the rule for the matrices.
        learning_rate: of everything but the tables, > 0.
        weight_decay: of the matrices, >= 0.
        embedding_learning_rate_ratio: rate of the tables / learning_rate.
        dtype: of the matrix products of Muon.
        side_by_side: has threads share the matrices of Muon; what they become does not depend on it.
    """
    # One and the same where the model ties them.
    of_vocabulary = (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head)
    tables = {id(module.weight) for module in of_vocabulary}
    # The relative position biases are tables too: their rows are looked up, not multiplied with.
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    layers = [weight for weight in trained if id(weight) not in tables]
    matrices = [weight for weight in layers if weight.dim() > 1 and id(weight) not in looked_up]
    others = [weight for weight in layers if weight.dim() == 1 or id(weight) in looked_up]
    rows = [weight for weight in trained if id(weight) in tables]
    adam_groups: list[dict[str, Any]] = [
        {"params": others, "lr": learning_rate, "weight_decay": 0.0},
        {"params": rows, "lr": learning_rate * embedding_learning_rate_ratio, "weight_decay": 0.0},
    ]
    if name == "adamw":
        adam_groups.insert(0, {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay})
        return torch.optim.AdamW(adam_groups, betas=_BETAS, eps=_EPSILON, fused=True)
    return _Both(
        Muon(matrices, learning_rate, weight_decay, dtype, side_by_side),
        torch.optim.AdamW(adam_groups, betas=_BETAS, eps=_EPSILON, fused=True),
    )


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
