import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mtdistill.distillation import forecast as module
from mtdistill.distillation.forecast import forecast
from mtdistill.distillation.materials import Materials


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALIBRATION_UPDATES", 4)


def test_the_updates_are_counted_and_every_figure_is_positive(
    make_run: Any, materials: Materials, tmp_path: Path
) -> None:
    config = make_run(tmp_path, "training.epochs=5", "training.gradient_accumulation=3", "training.data_ratio=0.5")
    found = forecast(config, materials)
    rows = round(len(materials.data.split("train")) * 0.5)
    assert found.updates == 5 * math.ceil(math.ceil(rows / 8) / 3)
    assert all(math.isfinite(value) and value > 0 for value in found.as_dict().values())
    assert found.minutes * 60 > found.updates * found.seconds_per_update
    assert found.memory_gib > 0.05  # a process that has loaded PyTorch


def test_more_checkpoints_take_more_disk(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    few, many = (
        forecast(make_run(tmp_path, f"training.checkpoints_kept={kept}"), materials).disk_mib for kept in (1, 8)
    )
    assert many > 4 * few


def test_a_forecast_leaves_no_trace(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in materials.teacher.model.state_dict().items()}
    forecast(make_run(tmp_path), materials)
    after = materials.teacher.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert list(tmp_path.iterdir()) == []


def test_stored_states_take_disk_too(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    live, cached = (
        forecast(make_run(tmp_path, f"teacher.targets={targets}"), materials).disk_mib for targets in ("live", "cached")
    )
    rows = materials.data.split("train")
    tokens = sum(min(len(ids), 16) for ids in rows["target_ids"])  # the preset cuts at 16
    assert cached - live == pytest.approx(tokens * 16 * 2 / 2**20)  # width 16, two bytes
