import dataclasses
from typing import Any

import pytest

from mtdistill.config import TrainingConfig, apply_overrides
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.materials import Materials
from mtdistill.presets import load_preset


def training(**changes: Any) -> TrainingConfig:
    overrides = [f"training.{name}={value}" for name, value in changes.items()]
    return apply_overrides(load_preset("quick").config, overrides).training


def test_every_setting_of_the_schedule_is_taken_over() -> None:
    changed = {
        "epochs": 7, "batch_size": 11, "gradient_accumulation": 3, "learning_rate": 0.0123, "weight_decay": 0.5,
        "max_sequence_length": 19, "embedding_learning_rate_ratio": 4.0, "warmup_ratio": 0.25,
        "max_gradient_norm": 0.5, "ema_decay": 0.75, "evaluations": 9, "checkpoints_kept": 5, "seed": 42,
        "optimizer": "muon",
    }  # fmt: skip
    assert dataclasses.asdict(training_schedule(training(**changed), 8)) == {**changed, "per_epoch": 8}


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.1])
def test_the_share_of_the_training_split(ratio: float, materials: Materials) -> None:
    whole = materials.data.split("train")
    rows = training_rows(materials.data, training(data_ratio=ratio))
    assert len(rows) == round(ratio * len(whole))
    assert set(rows["source"]) <= set(whole["source"])
    assert len(set(rows["source"])) == len(rows)


def test_a_seed_always_chooses_the_same_sentences(materials: Materials) -> None:
    chosen = [training_rows(materials.data, training(data_ratio=0.2, seed=seed))["source"][:] for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_tiny_share_is_still_a_sentence(materials: Materials) -> None:
    assert len(training_rows(materials.data, training(data_ratio=0.0001))) == 1
