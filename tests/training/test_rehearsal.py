"""A rehearsed update is the update of a run, and what is timed has been seen before."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mtdistill.training.engine import Engine
from mtdistill.training.rehearsal import rehearse, update

MakeTraining = Callable[..., Any]
BOTH = pytest.mark.parametrize("engine", [Engine(fused=False), Engine(parts=2)], ids=["plain", "fused"])


class TestUpdate:
    @BOTH
    def test_moves_the_weights_as_a_run_does(self, make_training: MakeTraining, engine: Engine) -> None:
        # Unequal lengths, two micro-batches, clipping at work: each would show if it were left out.
        values = {"sentences": 8, "gradient_accumulation": 2, "max_gradient_norm": 0.1, "engine": engine}
        run, alone = (make_training(folder=folder, **values) for folder in ("run", "alone"))
        start = alone.weights()
        run.trainer.train()
        assert run.trainer.state.global_step == 1
        alone.trainer.model.train()
        loader = iter(alone.trainer.get_train_dataloader())
        loss = update(alone.trainer, list(itertools.islice(loader, alone.trainer.args.gradient_accumulation_steps)))
        assert loss == pytest.approx(run.recorder.trajectory()[0][1], abs=1e-4)  # the log is rounded
        for name, weight in alone.weights().items():
            torch.testing.assert_close(weight, run.weights()[name], rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(weight, start[name]) for name, weight in alone.weights().items())
        assert all(weight.grad is None for weight in alone.trainer.model.parameters())


class TestRehearse:
    @BOTH
    def test_times_what_it_did_before(self, make_training: MakeTraining, engine: Engine) -> None:
        training = make_training(sentences=24, gradient_accumulation=2, engine=engine)
        told: list[int] = []
        rehearsed = rehearse(training.trainer, 3, told.append)
        assert told == [1, 2, 3, 4, 5, 6]
        each = 1 if engine.fused else 2
        assert len(rehearsed.batches) == 3 * each
        rows = [batch.rows.tolist() for batch in rehearsed.batches]
        assert sorted(row for batch in rows for row in batch) == list(range(24))
        if not engine.fused:
            assert [batch.rows.tolist() for batch in training.trainer.parts] == rows * 2
        assert rehearsed.seconds > 0

    @pytest.mark.parametrize("each", [1, 2])
    def test_the_optimizer_has_the_threads_of_a_part_as_in_a_run(self, make_training: MakeTraining, each: int) -> None:
        seen: list[int] = []
        torch.set_num_threads(3)
        for folder, updates in (("rehearsal", lambda trainer: rehearse(trainer, 2)), ("run", lambda it: it.train())):
            trainer = make_training(sentences=8, folder=folder, engine=Engine(parts=2, threads_per_part=each)).trainer
            trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
            updates(trainer)
            assert torch.get_num_threads() == 3
        assert seen == [each] * 6

    def test_beyond_an_epoch_comes_the_next(self, make_training: MakeTraining) -> None:
        rows = [batch.rows.tolist() for batch in rehearse(make_training(sentences=8).trainer, 4).batches]
        assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3]) == list(range(8))

    def test_phases_are_those_of_the_second_go(self, make_training: MakeTraining) -> None:
        training = make_training(sentences=12)
        training.trainer.phases.seconds["forward"] = 1e9
        rehearsed = rehearse(training.trainer, 3)
        assert {"data", "forward", "loss", "backward", "optimizer"} <= training.trainer.phases.seconds.keys()
        assert sum(training.trainer.phases.seconds.values()) <= rehearsed.seconds * 1.01
