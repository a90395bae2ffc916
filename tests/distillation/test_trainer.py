import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mtdistill.config import KdConfig, apply_overrides
from mtdistill.data.batches import PackedRows
from mtdistill.distillation import trainer as module
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pieces import PiecesByTurns, pieces_by_turns
from mtdistill.distillation.trainer import DistillationTrainer, rehearsal_trainer
from mtdistill.modeling.packed import decoder_states
from mtdistill.modeling.padded import teacher_forced
from mtdistill.presets import load_preset
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.engine import Engine
from mtdistill.training.trainer import Schedule

SCHEDULE = Schedule(
    epochs=2, batch_size=8, gradient_accumulation=2, learning_rate=1e-3, weight_decay=0.0, max_sequence_length=16,
    evaluations=1,
)  # fmt: skip
PLAIN, FUSED = Engine(fused=False), Engine(parts=2)
BOTH = pytest.mark.parametrize("engine", [PLAIN, FUSED], ids=["plain", "fused"])


@pytest.fixture
def make_trainer(tiny_teacher: tuple[Any, Any], materials: Materials, tmp_path: Path) -> Any:
    """Trains a copy of the teacher on 40 pairs."""

    def make(
        objective: KdConfig, schedule: Schedule = SCHEDULE, engine: Engine = FUSED, turns: int = 1, **options: Any
    ) -> DistillationTrainer:
        rows = materials.data.split("train").select(range(40))
        targets = LiveTargets(materials.teacher.model, engine)
        options.setdefault("pieces", pieces_by_turns(materials.teacher, materials.data, rows, turns))
        validate = options.pop("validate", lambda _model: {"bleu": 1.0, "chrf": 1.0})
        return DistillationTrainer(
            tiny_teacher[0], targets, objective, rows, schedule, tmp_path / "run", validate,
            readout=torch.eye(targets.head.shape[1]), engine=engine, **options,
        )  # fmt: skip

    return make


def objective(**changes: float) -> KdConfig:
    return KdConfig(**{"temperature": 3.0, "alpha": 0.7, "beta": 0.3, "label_smoothing": 0.0, **changes})


@BOTH
def test_every_log_has_both_parts_of_the_loss(make_trainer: Any, engine: Engine) -> None:
    trainer = make_trainer(objective(), engine=engine)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == trainer.state.max_steps == 6
    for log in logs:
        assert log["loss"] == pytest.approx(0.7 * log["kd_loss"] + 0.3 * log["gold_loss"], abs=1e-3)
        assert log["gold_loss"] > 0
    # A copy of the teacher differs from it only after the first update.
    assert logs[0]["kd_loss"] == pytest.approx(0.0, abs=1e-4)
    assert logs[-1]["kd_loss"] > 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.2},
        {"alpha": 1.0, "beta": 0.0},
        {"alpha": 0.0, "beta": 1.0},
        {"temperature": 1.0},
        {"state_weight": 50.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("turns", [1, 5])
def test_both_ways_to_the_loss_give_the_same_values_and_gradients(
    make_trainer: Any, changes: dict[str, float], turns: int
) -> None:
    trainer = make_trainer(objective(**changes), turns=turns)
    model = trainer.model.eval()
    weights = list(model.parameters())
    with torch.no_grad():
        for weight in weights:  # away from the teacher, so that there is something to compare
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    batch = PackedRows(trainer.eval_dataset, 16).batch([3, 39, 0, 17, 8])
    expected = trainer.losses_from_logits(*teacher_forced(model, batch), batch)
    wanted = torch.autograd.grad(expected["total"], weights, materialize_grads=True)
    found = trainer.losses_from_states(decoder_states(model, batch, torch.float32), model.shared.weight, batch)
    gradients = torch.autograd.grad(found["total"], weights, materialize_grads=True)
    assert [*found] == [*expected] == ["total", "kd", "gold", *(["states"] if "state_weight" in changes else [])]
    assert expected["kd"] > 0.1
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


def test_pieces_without_a_turn_are_out_of_both_losses(make_trainer: Any) -> None:
    """As if the logits of the others were minus infinity, in the teacher's distribution as in the student's."""
    trainer = make_trainer(objective(), turns=5)
    trainer.state.global_step = 8
    batch = PackedRows(trainer.eval_dataset, 16).batch([3, 39, 0, 17, 8])
    generator = torch.Generator().manual_seed(1)
    states = trainer.targets.states(batch)
    states += 0.3 * torch.randn(states.shape, generator=generator)
    head = trainer.model.shared.weight.detach().clone().requires_grad_()
    out = torch.ones(len(head), dtype=torch.bool)
    out[trainer._pieces.at(3).ids] = False
    student = (states @ head.T).masked_fill(out, -torch.inf).log_softmax(-1)
    teacher = (trainer.targets.states(batch) @ trainer.targets.head.T).masked_fill(out, -torch.inf)
    softened = ((states @ head.T) / 3).masked_fill(out, -torch.inf).log_softmax(-1)
    wanted_kd = torch.nn.functional.kl_div(
        softened[:, ~out], (teacher / 3).log_softmax(-1)[:, ~out], log_target=True, reduction="sum"
    )
    wanted_gold = -student.gather(1, batch.labels[:, None]).sum()
    losses = trainer.losses_from_states(states, head, batch)
    assert losses["kd"].item() == pytest.approx(9 * wanted_kd.item(), rel=1e-4)
    assert losses["gold"].item() == pytest.approx(wanted_gold.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(losses["total"], head)
    assert not gradient[out].any()
    assert gradient[~out].any(dim=1).all()


@BOTH
def test_a_label_without_a_turn_brings_all_pieces_back(make_trainer: Any, engine: Engine) -> None:
    def gold(**options: Any) -> float:
        trainer = make_trainer(objective(), engine=engine, **options)
        trainer.state.global_step = 1
        batch = PackedRows(trainer.eval_dataset, 16).batch([3, 39, 0])
        logits, states = teacher_forced(trainer.model.eval(), batch)
        if engine.fused:
            states = trainer.targets.states(batch)
            return float(trainer.losses_from_states(states, trainer.model.shared.weight, batch)["gold"])
        return float(trainer.losses_from_logits(logits, states, batch)["gold"])

    trainer = make_trainer(objective())
    label = int(PackedRows(trainer.eval_dataset, 16).batch([3]).labels[0])
    without = PiecesByTurns(len(trainer.model.shared.weight), sorted({label, *range(300, 400)}), 3)
    assert without.at(1).places[label] == -1
    assert gold(pieces=without) == gold() > gold(turns=5)


def test_states_pull_without_a_part_in_the_loss(make_trainer: Any) -> None:
    """Their gradient is that of weight x distance; it is gone at four fifths of the run, where they are only shown."""
    trainer = make_trainer(objective(state_weight=50.0))
    batch = PackedRows(trainer.eval_dataset, 16).batch([3, 39, 0, 17, 8])
    teacher_states = trainer.targets.states(batch)
    states = (teacher_states + 0.1 * torch.randn_like(teacher_states)).requires_grad_()
    head = trainer.model.shared.weight

    def losses_and_gradient() -> tuple[Any, torch.Tensor]:
        losses = trainer.losses_from_states(states, head, batch)
        return losses, torch.autograd.grad(losses["total"], states)[0]

    trainer.state.max_steps = 11
    begun, pulled = losses_and_gradient()
    trainer.state.global_step = 4
    half, less = losses_and_gradient()
    trainer.state.global_step = 8
    ended, plain = losses_and_gradient()
    distance = (1 - torch.nn.functional.cosine_similarity(states, teacher_states)).sum()
    assert begun["states"].item() == ended["states"].item() == pytest.approx(distance.item(), rel=1e-5)
    assert begun["total"].item() == half["total"].item() == ended["total"].item()
    (slope,) = torch.autograd.grad(distance, states)
    torch.testing.assert_close(pulled - plain, 50 * slope, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(less - plain, 25 * slope, rtol=1e-3, atol=1e-4)
    assert slope.norm() > 0.1


def test_a_student_without_a_readout_is_not_pulled(make_trainer: Any) -> None:
    trainer = make_trainer(objective(state_weight=50.0))
    batch = PackedRows(trainer.eval_dataset, 16).batch([0])
    states = trainer.targets.states(batch)
    trainer._readout = None
    assert "states" not in trainer.losses_from_states(states, trainer.model.shared.weight, batch)


def test_a_rehearsal_does_all_that_a_run_does(materials: Materials, tiny_teacher: Any, tmp_path: Path) -> None:
    config = apply_overrides(load_preset("balanced").config, ["kd.state_weight=50"])
    targets = LiveTargets(materials.teacher.model, FUSED)
    trainer = rehearsal_trainer(config, tiny_teacher[0], targets, materials.data.split("train"), tmp_path, FUSED)
    _, losses = trainer.batch_gradients(trainer.train_dataset.batch([0, 1, 2]))
    assert {*losses} == {"total", "kd", "gold", "states"}
    assert trainer.schedule.gradient_accumulation == 2


@BOTH
def test_the_temperature_goes_from_the_first_to_the_final_one(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    temperatures: list[float] = []
    name = "fused_loss" if engine.fused else "kd_loss"
    loss = getattr(module, name)

    def recorded(*arguments: Any, temperature: float, **options: Any) -> Any:
        temperatures.append(temperature)
        return loss(*arguments, temperature=temperature, **options)

    monkeypatch.setattr(module, name, recorded)
    make_trainer(objective(temperature=4.0, final_temperature=1.5), engine=engine).train()
    # Two micro-batches or two parts an update, but for the last of an epoch: one micro-batch, or again two parts.
    by_update = temperatures[::2] if engine.fused else [temperatures[place] for place in (0, 2, 4, 5, 7, 9)]
    assert len(temperatures) == (12 if engine.fused else 10)
    assert by_update == pytest.approx([4.0, 3.5, 3.0, 2.5, 2.0, 1.5])
    assert temperatures == sorted(temperatures, reverse=True)


def test_losses_of_evaluations_are_all_at_the_last_temperature(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(objective(temperature=4.0, final_temperature=1.5))
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(trainer, "_probe", lambda _model, _objective, now, last: asked.append((now, last)))
    trainer.state.max_steps = 11
    for trainer.state.global_step in (0, 5, 10):
        trainer.probe(trainer.model)
    assert asked == [(4.0, 1.5), (2.75, 1.5), (1.5, 1.5)]


@BOTH
def test_a_single_update_has_the_first_temperature(make_trainer: Any, engine: Engine) -> None:
    schedule = dataclasses.replace(SCHEDULE, epochs=1, gradient_accumulation=5)
    trainer = make_trainer(objective(temperature=4.0, final_temperature=1.5), schedule, engine)
    trainer.train()
    assert trainer.state.max_steps == 1
    assert "kd_loss" in trainer.state.log_history[0]
    trainer.state.global_step = 0
    assert trainer.temperature == 4.0


def test_chrf_chooses_the_best_student_and_of_two_as_good_the_later(make_trainer: Any) -> None:
    bleu, chrf, saved = iter([20.9, 20.5, 20.4, 20.6]), iter([37.9, 38.5, 38.1, 37.9]), []
    make_trainer(
        objective(),
        dataclasses.replace(SCHEDULE, epochs=4, evaluations=4),
        validate=lambda _model: {"bleu": next(bleu), "chrf": next(chrf)},
        save_best=lambda _model, scores: saved.append(scores["chrf"]),
    ).train()
    assert saved == [37.9, 38.5, 38.1]
