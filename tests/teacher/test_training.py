"""A teacher learns, can be sliced, goes on after an interruption, and is never overwritten by mistake."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from mtdistill.data.batches import PackedBatch, PackedRows
from mtdistill.data.prepared import PreparedData
from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.errors import CheckpointError, TeacherError
from mtdistill.modeling import load_model
from mtdistill.modeling.folder import RECORD_FILE
from mtdistill.modeling.packed import decoder_states
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.teacher.loading import load_teacher
from mtdistill.teacher.training import BEST_FOLDER, TeacherRecipe, TeacherTrainer, train_teacher
from mtdistill.training.checkpoints import COMPLETE_FILE, latest_checkpoint
from mtdistill.training.engine import Engine
from mtdistill.training.trainer import Schedule

RECIPE = TeacherRecipe(
    encoder_layers=2, decoder_layers=1, width=16, heads=2, head_width=8, feed_forward_width=32, dropout=0.1,
    layer_drop=0.2,
    schedule=Schedule(epochs=3, batch_size=16, gradient_accumulation=1, learning_rate=0.02, weight_decay=0.01,
                      max_sequence_length=32, optimizer="muon", ema_decay=0.8, evaluations=3),
)  # fmt: skip


def whole_split(data: PreparedData, split: str) -> PackedBatch:
    rows = PackedRows(data.split(split), 32)
    return rows.batch(list(range(len(rows))))


def transformers_loss(model: Any, batch: PackedBatch) -> torch.Tensor:
    ids, mask, labels = batch.padded()
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


@pytest.fixture
def validate(tiny_data: PreparedData) -> Callable[[Any], dict[str, float]]:
    """Mean loss on the validation split, as a score that grows."""
    batch = whole_split(tiny_data, "validation")

    def score(model: Any) -> dict[str, float]:
        with torch.no_grad():
            return {"bleu": -transformers_loss(model, batch).item()}

    return score


class Interrupt(TrainerCallback):
    def __init__(self, update: int) -> None:
        self.update = update

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.update:
            raise KeyboardInterrupt


ENGINES = pytest.mark.parametrize("engine", [Engine(fused=False), Engine(parts=2)], ids=["plain", "fused"])


@ENGINES
def test_learns_and_leaves_a_teacher_that_can_be_sliced(
    tiny_data: PreparedData, validate: Callable[[Any], dict[str, float]], tmp_path: Path, engine: Engine
) -> None:
    scores: list[dict[str, float]] = []

    def noted(model: Any) -> dict[str, float]:
        scores.append(validate(model))
        return scores[-1]

    best = train_teacher(tiny_data, RECIPE, tmp_path, noted, engine=engine)
    assert best == tmp_path / BEST_FOLDER
    highest = max(scores, key=lambda score: score["bleu"])
    assert scores[0]["bleu"] < highest["bleu"] - 0.5

    model = load_model(best)
    assert validate(model)["bleu"] == pytest.approx(highest["bleu"], abs=1e-5)
    assert (len(model.encoder.block), len(model.decoder.block)) == (2, 1)
    # A frozen gain of ones keeps the tied output head exact under a rotation.
    assert model.decoder.final_layer_norm.weight.tolist() == [1.0] * 16
    assert model.encoder.final_layer_norm.weight.tolist() != [1.0] * 16
    assert model.lm_head.weight is model.shared.weight
    assert load_tokenizer(best)("猫")["input_ids"] == tiny_data.tokenizer("猫")["input_ids"]

    record = json.loads((best / RECORD_FILE).read_text(encoding="utf-8"))
    assert (record["source_lang"], record["target_lang"]) == ("zh", "en")
    assert record["recipe"] == json.loads(json.dumps(dataclasses.asdict(RECIPE)))
    assert record["data"]["identity"] == tiny_data.manifest.identity
    assert record["validation"] == highest

    (best / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\), accepted the checksums in training_record\.json"):
        load_teacher(str(best))


@ENGINES
def test_an_interrupted_training_is_neither_overwritten_nor_lost(
    tiny_data: PreparedData, validate: Callable[[Any], dict[str, float]], tmp_path: Path, engine: Engine
) -> None:
    whole = train_teacher(tiny_data, RECIPE, tmp_path / "whole", validate, engine=engine)
    updates = RECIPE.schedule.updates(len(tiny_data.split("train")))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_data, RECIPE, tmp_path / "cut", validate, callbacks=[Interrupt(updates - 1)], engine=engine)
    with pytest.raises(TeacherError, match=r"holds a teacher already: got .*cut\. Add --resume"):
        train_teacher(tiny_data, RECIPE, tmp_path / "cut", validate)

    started_at: list[int] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            started_at.append(state.global_step)

    resumed = train_teacher(
        tiny_data, RECIPE, tmp_path / "cut", validate, resume=True, callbacks=[Watch()], engine=engine
    )
    assert 0 < started_at[0] < updates
    expected, weights = load_model(whole).state_dict(), load_model(resumed).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_training_is_not_resumed_with_other_settings_or_text(
    tiny_data: PreparedData,
    validate: Callable[[Any], dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates = RECIPE.schedule.updates(len(tiny_data.split("train")))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_data, RECIPE, tmp_path, validate, callbacks=[Interrupt(updates - 1)])
    other = dataclasses.replace(RECIPE, dropout=0.2, schedule=dataclasses.replace(RECIPE.schedule, epochs=9))
    with pytest.raises(CheckpointError, match=r"different now: dropout, schedule\. Use the same again"):
        train_teacher(tiny_data, other, tmp_path, validate, resume=True)
    with monkeypatch.context() as changed:
        changed.setattr(tiny_data, "manifest", dataclasses.replace(tiny_data.manifest, identity="other"))
        with pytest.raises(CheckpointError, match=r"different now: data\."):
            train_teacher(tiny_data, RECIPE, tmp_path, validate, resume=True)


def test_a_finished_teacher_without_checkpoints_is_not_overwritten(
    tiny_data: PreparedData, validate: Callable[[Any], dict[str, float]], tmp_path: Path
) -> None:
    (tmp_path / BEST_FOLDER).mkdir()
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(TeacherError, match="holds a teacher already"):
        train_teacher(tiny_data, RECIPE, tmp_path, validate)


def test_a_finished_teacher_is_not_trained_anew_where_its_checkpoints_are_gone(
    tiny_data: PreparedData, validate: Callable[[Any], dict[str, float]], tmp_path: Path
) -> None:
    best = tmp_path / BEST_FOLDER
    best.mkdir()
    (best / "training_record.json").write_text(json.dumps({"test": {"beam_1": {}}}), encoding="utf-8")
    with pytest.raises(TeacherError, match=r"is finished and its checkpoints are gone: got .*best\. To train one anew"):
        train_teacher(tiny_data, RECIPE, tmp_path, validate, resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_where_nothing_whole_is_training_starts(
    tiny_data: PreparedData, validate: Callable[[Any], dict[str, float]], tmp_path: Path, *, resume: bool
) -> None:
    (tmp_path / "checkpoint-2" / COMPLETE_FILE).mkdir(parents=True)
    schedule = dataclasses.replace(RECIPE.schedule, epochs=1, batch_size=100, evaluations=1)
    recipe = dataclasses.replace(RECIPE, schedule=schedule)
    assert train_teacher(tiny_data, recipe, tmp_path, validate, resume=resume).is_dir()


def test_the_loss_is_the_summed_cross_entropy(tiny_teacher: Any, tiny_data: PreparedData) -> None:
    model, _ = tiny_teacher
    batch = whole_split(tiny_data, "test")
    expected = transformers_loss(model, batch) * len(batch.labels)
    logits = teacher_forced_logits(model, batch)
    states = decoder_states(model, batch, torch.float32)
    for losses in (
        TeacherTrainer.losses_from_logits(None, logits, states, batch),  # type: ignore[arg-type]
        TeacherTrainer.losses_from_states(None, states, model.shared.weight, batch),  # type: ignore[arg-type]
    ):
        assert {*losses} == {"total"}
        torch.testing.assert_close(losses["total"], expected, rtol=1e-4, atol=1e-4)
