from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mtdistill.evaluation import ModelSize, model_size


def test_a_tied_table_counts_once(tiny_teacher: Any, tmp_path: Path) -> None:
    model, _ = tiny_teacher
    model.save_pretrained(tmp_path)  # safetensors stores a tied table once
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values())
    assert model_size(model).parameters == stored
    every_name = sum(tensor.numel() for tensor in model.state_dict().values())
    assert stored == every_name - 3 * 400 * 16  # encoder, decoder and output head share the table


def test_frozen_parameters_count(tiny_teacher: Any) -> None:
    model, _ = tiny_teacher
    before = model_size(model)
    model.requires_grad_(False)
    assert model_size(model) == before


def test_mebibytes_by_precision() -> None:
    size = ModelSize(3 * 2**20)
    assert (size.mib_float32, size.mib_float16, size.mib_int8) == (12, 6, 3)


@pytest.mark.parametrize("parameters", [0, 1])
def test_small_sizes(parameters: int) -> None:
    assert ModelSize(parameters).mib_float32 == parameters * 4 / 2**20
