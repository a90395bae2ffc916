"""The figures of the objective on a few sentences, against the plain definitions."""

from typing import TYPE_CHECKING

import pytest
import torch

from mtdistill.config import KdConfig
from mtdistill.data.batches import PackedRows
from mtdistill.distillation.losses import kd_loss
from mtdistill.distillation.pieces import pieces_by_turns
from mtdistill.distillation.probe import Probe
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.teacher.targets import LiveTargets

if TYPE_CHECKING:
    from mtdistill.distillation.materials import Materials

OBJECTIVE = KdConfig(temperature=3.0, alpha=0.7, beta=0.3, label_smoothing=0.1)


@pytest.fixture
def probe(materials: "Materials") -> Probe:
    rows = materials.data.split("validation")
    return Probe(PackedRows(rows, 32).batch(list(range(8))), LiveTargets(materials.teacher.model))


def test_a_teacher_probed_as_its_own_student(materials: "Materials", probe: Probe) -> None:
    found = probe(materials.teacher.model, OBJECTIVE, 3.0)
    assert found.student_entropy == pytest.approx(found.teacher_entropy, rel=1e-3)
    assert found.kd_norm == pytest.approx(0, abs=1e-4)
    assert found.gold_norm > 0


def test_the_loss_is_that_of_the_objective(materials: "Materials", probe: Probe) -> None:
    from mtdistill.distillation.construction import rehearsal_student
    from mtdistill.presets import load_preset

    model = rehearsal_student(load_preset("quick").config, materials.teacher).eval()
    batch = PackedRows(materials.data.split("validation"), 32).batch(list(range(8)))
    input_ids, mask, labels = batch.padded()
    with torch.no_grad():
        student = model(input_ids=input_ids, attention_mask=mask, labels=labels).logits
        teacher = materials.teacher.model(input_ids=input_ids, attention_mask=mask, labels=labels).logits
    wanted = kd_loss(student, teacher, labels, temperature=3.0, alpha=0.7, beta=0.3, label_smoothing=0.1)
    found = probe(model, OBJECTIVE, 3.0)
    assert found.loss == pytest.approx(wanted.total.item(), rel=1e-3)


def test_the_loss_over_some_pieces_is_that_of_an_update(materials: "Materials") -> None:
    from mtdistill.distillation.construction import rehearsal_student
    from mtdistill.presets import load_preset

    rows, live = materials.data.split("train"), LiveTargets(materials.teacher.model)
    model = rehearsal_student(load_preset("quick").config, materials.teacher).eval()
    turns = pieces_by_turns(materials.teacher, materials.data, rows, 8)
    assert turns
    pieces, batch = turns.at(0), PackedRows(rows, 32).batch(list(range(8)))
    student = teacher_forced_logits(model, batch, start_id=model.config.decoder_start_token_id)
    teacher = teacher_forced_logits(materials.teacher.model, batch, start_id=model.config.decoder_start_token_id)
    wanted = kd_loss(
        student[:, pieces.ids], teacher[:, pieces.ids], pieces.places[batch.labels], temperature=3.0, alpha=0.7,
        beta=0.3, label_smoothing=0.1,
    )  # fmt: skip
    found, everywhere = Probe(batch, live, pieces)(model, OBJECTIVE, 3.0), Probe(batch, live)(model, OBJECTIVE, 3.0)
    assert found.loss == pytest.approx(wanted.total.item(), rel=1e-3)
    assert everywhere.loss != pytest.approx(found.loss, rel=1e-3)


def test_the_loss_can_be_at_another_temperature_than_the_gradients(materials: "Materials", probe: Probe) -> None:
    from mtdistill.distillation.construction import rehearsal_student
    from mtdistill.presets import load_preset

    model = rehearsal_student(load_preset("quick").config, materials.teacher).eval()
    now, last, both = probe(model, OBJECTIVE, 3.0), probe(model, OBJECTIVE, 1.0), probe(model, OBJECTIVE, 3.0, 1.0)
    assert both.loss == last.loss != now.loss
    assert (both.kd_norm, both.softened_entropy) == (now.kd_norm, now.softened_entropy)
    assert now.kd_norm != last.kd_norm


def test_a_tiny_temperature_silences_the_teacher(materials: "Materials", probe: Probe) -> None:
    from mtdistill.distillation.construction import rehearsal_student
    from mtdistill.presets import load_preset

    model = rehearsal_student(load_preset("quick").config, materials.teacher).eval()
    usual, tiny = probe(model, OBJECTIVE, 3.0), probe(model, OBJECTIVE, 0.01)
    assert tiny.kd_norm < 0.2 * usual.kd_norm
    assert tiny.softened_entropy < 0.1 * usual.softened_entropy
    assert tiny.gold_norm == pytest.approx(usual.gold_norm)


def test_a_part_that_is_switched_off_has_no_gradient(materials: "Materials", probe: Probe) -> None:
    found = probe(materials.teacher.model, KdConfig(temperature=2.0, alpha=0.0, beta=1.0, label_smoothing=0.0), 2.0)
    assert found.kd_norm == 0
