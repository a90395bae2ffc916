"""How large a model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_BYTES_PER_MIB = 2**20


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model; a tied table counts once."""

    parameters: int

    @property
    def mib_float32(self) -> float:
        """MiB of the weights alone at 4 bytes each."""
        return 4 * self.parameters / _BYTES_PER_MIB

    @property
    def mib_float16(self) -> float:
        """MiB of the weights alone at 2 bytes each."""
        return 2 * self.parameters / _BYTES_PER_MIB

    @property
    def mib_int8(self) -> float:
        """MiB of the weights alone at 1 byte each; scales, norms and biases add a few percent to a real int8 file.

        One for CTranslate2 is smaller where a student has two tables, for of that of its targets it holds only the pieces
        that it can write; with one table it is larger by these.
        """
        return self.parameters / _BYTES_PER_MIB


def model_size(model: nn.Module) -> ModelSize:
    """Count the parameters of a model, frozen ones included.

    >>> import torch
    >>> table = torch.nn.Embedding(8, 4)
    >>> head = torch.nn.Linear(4, 8, bias=False)
    >>> head.weight = table.weight
    >>> model_size(torch.nn.Sequential(table, head))
    ModelSize(parameters=32)
    """
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()))
