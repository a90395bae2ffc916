import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mtdistill.config import KdConfig
from mtdistill.distillation import trainer as module
from mtdistill.distillation.pipeline import Materials
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.trainer import Schedule

SCHEDULE = Schedule(
    epochs=2, batch_size=8, gradient_accumulation=2, learning_rate=1e-3, weight_decay=0.0, max_sequence_length=16,
    evaluations=1,
)  # fmt: skip


@pytest.fixture
def make_trainer(tiny_teacher: tuple[Any, Any], materials: Materials, tmp_path: Path) -> Any:
    """Trains a copy of the teacher on 40 pairs."""

    def make(objective: KdConfig, schedule: Schedule = SCHEDULE) -> DistillationTrainer:
        rows = materials.data.split("train").select(range(40))
        targets = LiveTargets(materials.teacher.model)
        return DistillationTrainer(
            tiny_teacher[0], targets, objective, rows, schedule, tmp_path / "run", lambda _model: {"bleu": 1.0}
        )

    return make


def objective(**changes: float) -> KdConfig:
    return KdConfig(**{"temperature": 3.0, "alpha": 0.7, "beta": 0.3, "label_smoothing": 0.0, **changes})


def test_every_log_has_both_parts_of_the_loss(make_trainer: Any) -> None:
    trainer = make_trainer(objective())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == trainer.state.max_steps == 6
    for log in logs:
        assert log["loss"] == pytest.approx(0.7 * log["kd_loss"] + 0.3 * log["gold_loss"], abs=1e-3)
        assert log["gold_loss"] > 0
    # A copy of the teacher differs from it only after the first update.
    assert logs[0]["kd_loss"] == pytest.approx(0.0, abs=1e-4)
    assert logs[-1]["kd_loss"] > 1e-4


def test_the_temperature_goes_from_the_first_to_the_final_one(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures: list[float] = []
    kd_loss = module.kd_loss

    def recorded(*arguments: Any, temperature: float, **options: Any) -> Any:
        temperatures.append(temperature)
        return kd_loss(*arguments, temperature=temperature, **options)

    monkeypatch.setattr(module, "kd_loss", recorded)
    make_trainer(objective(temperature=4.0, final_temperature=1.5)).train()
    by_update = temperatures[::2][:2] + temperatures[-1:]
    assert by_update == pytest.approx([4.0, 3.5, 1.5])
    assert temperatures == sorted(temperatures, reverse=True)


def test_a_single_update_has_the_first_temperature(make_trainer: Any) -> None:
    schedule = dataclasses.replace(SCHEDULE, epochs=1, gradient_accumulation=5)
    trainer = make_trainer(objective(temperature=4.0, final_temperature=1.5), schedule)
    trainer.train()
    assert trainer.state.max_steps == 1
    assert "kd_loss" in trainer.state.log_history[0]
