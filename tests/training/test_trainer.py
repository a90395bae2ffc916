"""Any cut of a batch gives the same gradient, an interruption leaves no trace, and the best model is kept."""

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from mtdistill.data.batches import Batches, PackedBatch
from mtdistill.errors import CheckpointError, TrainingFailedError
from mtdistill.modeling import packed
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.training.callbacks import AVERAGE_FILE
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.engine import Engine
from mtdistill.training.fused_updates import TIMED_BATCHES
from mtdistill.training.muon import Muon
from mtdistill.training.trainer import Schedule, TranslationTrainer

MakeTraining = Callable[..., Any]
Weights = dict[str, Tensor]

PLAIN = Engine(fused=False)
# One part at a time, several side by side, and more parts than run at once.
FUSED = {
    "1 part": Engine(),
    "2 parts": Engine(parts=2),
    "3 parts": Engine(parts=3),
    "2 parts, 20 tokens each": Engine(parts=2, max_part_tokens=20),
    "1 part, a sentence each": Engine(max_part_tokens=1),
}
BOTH = pytest.mark.parametrize("engine", [PLAIN, Engine(parts=2)], ids=["plain", "fused"])


def without_momentum(training: Any, learning_rate: float) -> None:
    """SGD moves by the gradient itself, where Adam would hide a factor."""
    weights = [weight for weight in training.trainer.model.parameters() if weight.requires_grad]
    training.trainer.optimizer = torch.optim.SGD(weights, lr=learning_rate)


def mean_loss_gradient(training: Any, micro_batches: list[PackedBatch]) -> Weights:
    """Of the mean over all target tokens, sentence by sentence and without padding."""
    model = training.trainer.model
    model.zero_grad()
    losses, tokens = torch.zeros(()), 0
    for batch in micro_batches:
        sources = batch.source_ids.split(batch.source_starts.diff().tolist())
        targets = batch.labels.split(batch.target_starts.diff().tolist())
        for source, target in zip(sources, targets, strict=True):
            decoder_input = torch.cat([torch.zeros(1, dtype=torch.long), target[:-1]])
            logits = model(input_ids=source[None], decoder_input_ids=decoder_input[None]).logits[0]
            losses = losses + nn.functional.cross_entropy(logits, target, reduction="sum")
            tokens += len(target)
    (losses / tokens).backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return gradients


def assert_same(actual: Weights, expected: Weights, scale: float = 1.0) -> None:
    assert {*actual} == {*expected}
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=1e-4, atol=1e-6 * scale, msg=lambda m, name=name: f"{name} {m}"
        )


class TestGradients:
    @pytest.mark.parametrize(
        ("batch_size", "accumulation", "engine", "parts"),
        [
            pytest.param(8, 1, PLAIN, 1, id="plain, 8"),
            pytest.param(4, 2, PLAIN, 2, id="plain, 4 + 4"),
            pytest.param(1, 8, PLAIN, 8, id="plain, one by one"),
            *(pytest.param(8, 1, engine, None, id=f"fused, {name}") for name, engine in FUSED.items()),
            pytest.param(4, 2, FUSED["1 part"], 1, id="fused, accumulated"),
            pytest.param(2, 4, FUSED["3 parts"], 3, id="fused, accumulated, 3 parts"),
        ],
    )
    def test_any_cut_of_a_batch_gives_the_same(
        self, make_training: MakeTraining, batch_size: int, accumulation: int, engine: Engine, parts: int | None
    ) -> None:
        training = make_training(sentences=8, batch_size=batch_size, gradient_accumulation=accumulation,
                                 max_gradient_norm=0.0, engine=engine)  # fmt: skip
        without_momentum(training, learning_rate=0.5)
        before = training.weights()
        training.trainer.train()
        steps = [8] if engine.fused else [batch_size] * accumulation
        assert [len(batch) for batch in training.trainer.micro_batches] == steps
        assert parts is None or len(training.trainer.parts) == parts
        assert sorted(row for part in training.trainer.parts for row in part.rows.tolist()) == list(range(8))
        after = training.weights()
        moved = {name: (before[name] - after[name]) / 0.5 for name in before}
        [gradient] = training.recorder.gradients
        training.trainer.model.load_state_dict(before, strict=False)
        expected = mean_loss_gradient(training, training.trainer.micro_batches)
        assert_same(gradient, expected)
        assert_same(moved, expected, scale=10)

    def test_the_cuts_of_this_test_are_different(self, make_training: MakeTraining) -> None:
        counts = {}
        for name, engine in FUSED.items():
            training = make_training(sentences=8, batch_size=8, engine=engine)
            training.trainer.train()
            counts[name] = len(training.trainer.parts)
        assert list(counts.values())[:3] == [1, 2, 3]
        assert 2 < counts["2 parts, 20 tokens each"] <= counts["1 part, a sentence each"] == 8

    def test_without_the_kernels_a_model_that_they_do_not_cover(self, make_training: MakeTraining) -> None:
        training = make_training(sentences=8, batch_size=4, gradient_accumulation=2, feed_forward="gated-gelu",
                                 max_gradient_norm=0.0, engine=Engine(parts=2))  # fmt: skip
        assert training.trainer.engine == Engine(fused=False, parts=2)
        without_momentum(training, learning_rate=0.0)
        training.trainer.train()
        assert [len(part) for part in training.trainer.parts] == [4, 4]
        assert_same(training.recorder.gradients[0], mean_loss_gradient(training, training.trainer.micro_batches))

    def test_to_ask_for_gradients_changes_no_weight(self, make_training: MakeTraining) -> None:
        training = make_training(sentences=8, batch_size=8, engine=Engine(parts=2))
        before = training.weights()
        batch = training.trainer.train_dataset.batch(list(range(8)))
        gradients, losses = training.trainer.batch_gradients(batch)
        assert_same(gradients, mean_loss_gradient(training, [batch]))
        assert losses["gold"] == pytest.approx(losses["total"], rel=1e-5)
        assert_equal(training.weights(), before)
        assert all(weight.grad is None or not weight.grad.any() for weight in training.trainer.model.parameters())

    # Adam divides by the gradient's own size, so rounding shows where a gradient is close to 0; Muon rounds to bfloat16.
    @pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 1e-3), ("muon", 1e-2)])
    @pytest.mark.parametrize("engine", [Engine(), Engine(parts=2, threads_per_part=2)], ids=["1 part", "2 parts"])
    def test_plain_and_fused_training_take_the_same_course(
        self, make_training: MakeTraining, engine: Engine, optimizer: str, tolerance: float
    ) -> None:
        plain, fused = (
            make_training(sentences=14, epochs=2, batch_size=4, gradient_accumulation=2, folder=folder, engine=each,
                          optimizer=optimizer, warmup_ratio=0.3)
            for folder, each in (("plain", PLAIN), ("fused", engine))
        )  # fmt: skip
        plain.trainer._batches = Batches(14, 4, plain.trainer.schedule.seed)  # the sentences that the fused one sees
        start = plain.weights()
        for training in (plain, fused):
            training.trainer.train()
        assert len(plain.recorder.trajectory()) == 4
        for ours, theirs in zip(fused.recorder.trajectory(), plain.recorder.trajectory(), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        expected, found = plain.weights(), fused.weights()
        for name, weight in expected.items():
            distance, moved = (found[name] - weight).norm(), (weight - start[name]).norm()
            assert distance < tolerance * moved, f"{name}: {distance / moved}"

    @BOTH
    @pytest.mark.parametrize(
        ("sentences", "batch_size", "accumulation", "cut"),
        [
            (12, 4, 1, [[4], [4], [4]]),
            (11, 2, 3, [[2, 2, 2], [2, 2, 1]]),
            (9, 2, 3, [[2, 2, 2], [2, 1]]),
            (9, 2, 4, [[2, 2, 2, 2], [1]]),
            (3, 8, 4, [[3]]),
        ],
    )
    def test_the_last_partial_group_counts_by_its_own_tokens(
        self, make_training: MakeTraining, sentences: int, batch_size: int, accumulation: int, cut: list[list[int]],
        engine: Engine,
    ) -> None:  # fmt: skip
        training = make_training(sentences=sentences, batch_size=batch_size, gradient_accumulation=accumulation,
                                 max_gradient_norm=0.0, engine=engine)  # fmt: skip
        without_momentum(training, learning_rate=0.0)
        training.trainer.train()
        batches: Iterator[PackedBatch] = iter(training.trainer.micro_batches)
        if engine.fused:
            cut = [[sum(sizes)] for sizes in cut]
        groups = [[next(batches) for _ in sizes] for sizes in cut]
        assert [[len(batch) for batch in group] for group in groups] == cut
        assert next(batches, None) is None
        assert training.trainer.state.global_step == len(cut)
        for gradient, group in zip(training.recorder.gradients, groups, strict=True):
            assert_same(gradient, mean_loss_gradient(training, group))

    def test_padding_has_no_influence_on_value_and_gradient(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_training(engine=PLAIN).trainer
        trainer.model.train()
        batch = next(iter(trainer.get_train_dataloader()))
        padded = PackedBatch.padded

        def more(self: PackedBatch, pad_id: int = 0) -> tuple[Tensor, Tensor, Tensor]:
            ids, mask, labels = padded(self, pad_id)
            # What stands at a masked position must not matter, so something real stands there.
            return (
                torch.cat([ids.masked_fill(mask == 0, 9), torch.full((4, 3), 7)], dim=1),
                torch.cat([mask, torch.zeros(4, 3, dtype=torch.long)], dim=1),
                torch.cat([labels, torch.full((4, 5), -100)], dim=1),
            )

        results = []
        for padding in (padded, more):
            monkeypatch.setattr(PackedBatch, "padded", padding)
            trainer.model.zero_grad()
            loss = trainer.compute_loss(trainer.model, batch)
            loss.backward()
            results.append((loss.item(), {name: w.grad.clone() for name, w in trainer.model.named_parameters()}))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
        assert_same(results[1][1], results[0][1])

    def test_rows_that_fill_a_matrix_have_no_influence(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_training(engine=Engine(parts=2)).trainer
        batch = PackedBatch(**next(iter(trainer.get_train_dataloader())))
        results = []
        for filler in (0, 3, 17):
            fill = (0, filler)
            monkeypatch.setattr(packed, "_filled", lambda ids, fill=fill: nn.functional.pad(ids, fill, value=7))
            results.append(trainer.batch_gradients(batch))
        for gradients, losses in results[1:]:
            assert losses["total"] == pytest.approx(results[0][1]["total"], rel=1e-5)
            assert_same(gradients, results[0][0])

    @BOTH
    def test_gradients_are_clipped(self, make_training: MakeTraining, engine: Engine) -> None:
        training = make_training(max_gradient_norm=0.01, engine=engine)
        training.trainer.train()
        for gradient in training.recorder.gradients:
            norm = torch.stack([tensor.norm() for tensor in gradient.values()]).norm().item()
            assert norm == pytest.approx(0.01, rel=1e-3)

    @BOTH
    def test_a_gradient_within_the_limit_is_left_as_it_is(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, engine: Engine
    ) -> None:
        monkeypatch.setattr(torch.nn.utils, "clip_grads_with_norm_", lambda *_: pytest.fail("multiplied by 1"))
        training = make_training(max_gradient_norm=1000.0, engine=engine)
        training.trainer.train()
        assert len(training.recorder.gradients) > 1

    def test_a_long_target_is_cut_as_asked(self, make_training: MakeTraining) -> None:
        training = make_training(max_sequence_length=5)
        training.trainer.train()
        starts = [s for batch in training.trainer.micro_batches for s in (batch.source_starts, batch.target_starts)]
        assert max(int(each.diff().max()) for each in starts) == 5


class TestLog:
    @BOTH
    @pytest.mark.parametrize(("sentences", "accumulation"), [(12, 1), (22, 3)])
    def test_parts_are_means_over_the_same_tokens_as_the_loss(
        self, make_training: MakeTraining, sentences: int, accumulation: int, engine: Engine
    ) -> None:
        training = make_training(sentences=sentences, gradient_accumulation=accumulation, epochs=2, engine=engine)
        training.trainer.args.logging_steps = 2
        training.trainer.train()
        logs = [log for log in training.recorder.logs if "loss" in log]
        assert len(logs) >= 2
        for log in logs:
            assert log["gold_loss"] == pytest.approx(log["loss"], rel=1e-4)
            assert 0 < log["tokens_per_second"] < math.inf
            assert "total_loss" not in log

    @BOTH
    def test_evaluation_is_no_training_time(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, engine: Engine
    ) -> None:
        now = 0.0

        class Clock:
            def monotonic(self) -> float:
                return now

        def validate(_model: Any) -> dict[str, float]:
            nonlocal now
            now += 1000.0
            return {"bleu": 1.0}

        class Tick(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                nonlocal now
                now += 1.0

        for name in ("trainer", "since_log"):
            monkeypatch.setattr(f"mtdistill.training.{name}.time", Clock())
        training = make_training(validate=validate, evaluations=3, callbacks=[Tick()], engine=engine)
        training.trainer.train()
        tokens = [len(batch.labels) for batch in training.trainer.micro_batches]
        speeds = [log["tokens_per_second"] for log in training.recorder.logs if "loss" in log]
        assert speeds == [pytest.approx(count) for count in tokens]


class Interrupt(TrainerCallback):
    """Stands for Ctrl-C after an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.update:
            raise KeyboardInterrupt


class TestResume:
    @BOTH
    @pytest.mark.parametrize(
        ("optimizer", "evaluations", "interrupted_at", "goes_on_from"),
        [
            pytest.param("adamw", 4, 8, 6, id="adamw, within an epoch"),
            pytest.param("muon", 4, 5, 3, id="muon, within an epoch"),
            pytest.param("muon", 3, 6, 4, id="muon, between epochs"),
        ],
    )
    def test_an_interrupted_run_ends_like_one_that_was_not(
        self, make_training: MakeTraining, optimizer: str, evaluations: int, interrupted_at: int, goes_on_from: int,
        engine: Engine,
    ) -> None:  # fmt: skip
        scores: list[float] = []

        def validate(model: Any) -> dict[str, float]:
            torch.rand(3)  # a validation that draws random numbers must not matter either
            scores.append(sum(weight.double().abs().sum().item() for weight in model.parameters()))
            return {"bleu": -scores[-1]}

        def make(folder: str, *callbacks: TrainerCallback) -> Any:
            # Four updates an epoch, the last one of an incomplete group.
            return make_training(
                sentences=29, batch_size=4, gradient_accumulation=2, epochs=3, dropout=0.2, layer_drop=0.3,
                ema_decay=0.8, warmup_ratio=0.2, optimizer=optimizer, evaluations=evaluations,
                embedding_learning_rate_ratio=3.0, folder=folder, validate=validate, callbacks=callbacks,
                engine=engine,
            )  # fmt: skip

        whole = make("whole")
        whole.trainer.train()
        assert whole.trainer.state.max_steps == 12
        expected_scores, scores[:] = scores[:], []

        first = make("cut", Interrupt(interrupted_at))
        with pytest.raises(KeyboardInterrupt):
            first.trainer.train()
        checkpoint = latest_checkpoint(Path(first.trainer.args.output_dir))
        assert checkpoint is not None
        assert checkpoint.name == f"checkpoint-{goes_on_from}"
        torch.manual_seed(99)
        second = make("cut")
        second.trainer.train(str(checkpoint))

        trajectory = first.recorder.trajectory()[:goes_on_from] + second.recorder.trajectory()
        assert [int(point[0]) for point in trajectory] == list(range(1, 13))
        assert trajectory == whole.recorder.trajectory()
        assert scores == expected_scores
        assert_equal(second.weights(), whole.weights())
        assert_equal(second.trainer.average.weights, whole.trainer.average.weights)
        assert [saved for saved, _ in first.saved + second.saved] == [saved for saved, _ in whole.saved]

    def test_the_means_of_the_first_log_are_those_of_this_run(self, make_training: MakeTraining) -> None:
        first = make_training(epochs=4, evaluations=4, callbacks=[Interrupt(7)])
        with pytest.raises(KeyboardInterrupt):
            first.trainer.train()
        second = make_training(epochs=4, evaluations=4)
        second.trainer.train(str(latest_checkpoint(Path(first.trainer.args.output_dir))))
        log = next(log for log in second.recorder.logs if "loss" in log)
        assert log["update"] == 7
        assert log["gold_loss"] == pytest.approx(log["loss"], rel=1e-4)

    @pytest.mark.parametrize(
        "name", ["optimizer.pt", "scheduler.pt", "trainer_state.json", "model.safetensors", AVERAGE_FILE]
    )
    def test_a_damaged_file_is_named_before_any_update(self, name: str, make_training: MakeTraining) -> None:
        first = make_training(epochs=4, evaluations=4, ema_decay=0.5, callbacks=[Interrupt(7)])
        with pytest.raises(KeyboardInterrupt):
            first.trainer.train()
        checkpoint = latest_checkpoint(Path(first.trainer.args.output_dir))
        assert checkpoint is not None
        (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:-40])
        second = make_training(epochs=4, evaluations=4, ema_decay=0.5)
        with pytest.raises(CheckpointError, match=r"could not be read: got .*checkpoint-6"):
            second.trainer.train(str(checkpoint))

    def test_a_checkpoint_holds_the_average_and_is_marked_last(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there: list[set[str]] = []

        def mark(path: Path, content: str) -> None:
            there.append({each.name for each in path.parent.iterdir()})
            path.write_text(content, encoding="utf-8")

        monkeypatch.setattr("mtdistill.training.checkpoints.write_atomically", mark)
        training = make_training(ema_decay=0.5)
        training.trainer.train()
        checkpoint = latest_checkpoint(Path(training.trainer.args.output_dir))
        assert checkpoint is not None
        assert (checkpoint / AVERAGE_FILE).is_file()
        assert there == [{path.name for path in checkpoint.iterdir()} - {"complete"}]

    def test_as_many_checkpoints_as_asked_for(self, make_training: MakeTraining) -> None:
        training = make_training(epochs=4, evaluations=6, checkpoints_kept=2)
        training.trainer.train()
        kept = {path.name for path in Path(training.trainer.args.output_dir).glob("checkpoint-*")}
        assert kept == {"checkpoint-10", "checkpoint-12"}  # the best student, the first one, is kept elsewhere


def assert_equal(actual: Weights, expected: Weights) -> None:
    assert {*actual} == {*expected}
    different = [name for name, tensor in expected.items() if not torch.equal(actual[name], tensor)]
    assert not different


class TestBestModel:
    @pytest.mark.parametrize("ema_decay", [None, 0.6])
    def test_the_best_by_validation_is_saved(self, make_training: MakeTraining, ema_decay: float | None) -> None:
        scores = iter([1.0, 3.0, 2.0, 3.0, 3.5, 0.0])
        seen: list[Weights] = []

        def validate(model: Any) -> dict[str, float]:
            assert not model.training
            seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
            return {"bleu": next(scores), "chrf": 50.0}

        training = make_training(epochs=2, evaluations=6, validate=validate, ema_decay=ema_decay)
        training.trainer.train()
        assert [scores for scores, _ in training.saved] == [{"bleu": bleu, "chrf": 50.0} for bleu in (1.0, 3.0, 3.5)]
        for (_, weights), index in zip(training.saved, (0, 1, 4), strict=True):
            assert_equal(weights, seen[index])
        assert (training.weights()["shared.weight"] == seen[-1]["shared.weight"]).all() == (ema_decay is None)

    def test_the_best_before_an_interruption_stays_the_best(self, make_training: MakeTraining) -> None:
        first = make_training(epochs=2, evaluations=6, validate=lambda _: {"bleu": 9.0}, callbacks=[Interrupt(4)])
        with pytest.raises(KeyboardInterrupt):
            first.trainer.train()
        assert len(first.saved) == 1
        scores = iter([8.0, 8.5, 9.5])
        second = make_training(epochs=2, evaluations=6, validate=lambda _: {"bleu": next(scores)})
        second.trainer.train(str(latest_checkpoint(Path(first.trainer.args.output_dir))))
        assert [scores["bleu"] for scores, _ in second.saved] == [9.5]

    @pytest.mark.parametrize(
        ("updates", "evaluations", "at"), [(12, 5, [3, 6, 9, 12]), (10, 3, [4, 8, 10]), (3, 9, [1, 2, 3])]
    )
    def test_the_last_update_is_always_evaluated(
        self, make_training: MakeTraining, updates: int, evaluations: int, at: list[int]
    ) -> None:
        training = make_training(sentences=4, epochs=updates, evaluations=evaluations)
        training.trainer.train()
        assert [log["update"] for log in training.recorder.logs if "eval_bleu" in log] == at

    def test_a_failed_validation_leaves_the_weights_of_the_training(self, make_training: MakeTraining) -> None:
        def fail(_model: Any) -> dict[str, float]:
            raise InterruptedError

        training = make_training(ema_decay=0.9, learning_rate=0.1, validate=fail)
        with pytest.raises(InterruptedError):
            training.trainer.train()
        own, average = training.weights(), training.trainer.average.weights
        assert not torch.allclose(own["shared.weight"], average["shared.weight"])
        with training.trainer.average.applied_to(training.trainer.model):
            assert_equal(training.weights(), average)
        assert_equal(training.weights(), own)


class TestFailure:
    @BOTH
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite(self, make_training: MakeTraining, value: float, engine: Engine) -> None:
        closed: list[bool] = []

        class Close(TrainerCallback):
            def on_train_end(self, *_: Any, **__: Any) -> None:
                closed.append(True)

        training = make_training(gradient_accumulation=2, epochs=3, evaluations=6, callbacks=[Close()], engine=engine)
        trainer = training.trainer
        name = "losses_from_states" if engine.fused else "losses_from_logits"
        losses = getattr(trainer, name)

        def spoilt(*arguments: Any) -> dict[str, Tensor]:
            # The micro-batch or part of the second update that holds one certain sentence.
            bad = trainer.state.global_step == 1 and trainer.micro_batches[-1].rows[-1] in arguments[-1].rows
            return {"total": losses(*arguments)["total"] * (value if bad else 1.0)}

        setattr(trainer, name, spoilt)
        with pytest.raises(TrainingFailedError, match=rf"not finite: got {value} at update 2\. Lower training"):
            trainer.train()
        assert closed == [True]
        assert len(training.recorder.gradients) == 1
        assert latest_checkpoint(Path(trainer.args.output_dir)) is not None

    def test_a_trainer_without_a_loss(self, make_training: MakeTraining) -> None:
        trainer = make_training().trainer
        batch = trainer.train_dataset.batch([0])
        with pytest.raises(NotImplementedError):
            TranslationTrainer.losses_from_states(trainer, torch.zeros(1), torch.zeros(1), batch)
        with pytest.raises(NotImplementedError):
            TranslationTrainer.losses_from_logits(trainer, torch.zeros(1), torch.zeros(1), batch)


class TestSchedule:
    @BOTH
    @pytest.mark.parametrize(
        ("sentences", "epochs", "batch_size", "accumulation", "updates"),
        [(12, 1, 4, 1, 3), (13, 2, 4, 1, 8), (29, 3, 4, 2, 12), (9, 1, 2, 4, 2), (1, 5, 64, 3, 5)],
    )
    def test_updates(
        self, make_training: MakeTraining, sentences: int, epochs: int, batch_size: int, accumulation: int,
        updates: int, engine: Engine,
    ) -> None:  # fmt: skip
        training = make_training(sentences=sentences, epochs=epochs, batch_size=batch_size,
                                 gradient_accumulation=accumulation, engine=engine)  # fmt: skip
        assert training.trainer.schedule.updates(sentences) == updates
        training.trainer.train()
        assert training.trainer.state.global_step == training.trainer.state.max_steps == updates

    def test_every_epoch_sees_every_sentence_in_another_order(self, make_training: MakeTraining) -> None:
        training = make_training(sentences=12, epochs=2, batch_size=4)
        training.trainer.train()
        epochs = [training.trainer.micro_batches[:3], training.trainer.micro_batches[3:]]
        rows = [[row for batch in epoch for row in batch.rows.tolist()] for epoch in epochs]
        assert sorted(rows[0]) == sorted(rows[1]) == list(range(12))
        assert rows[0] != rows[1]
        wanted = training.trainer.eval_dataset["target_ids"]
        for epoch, order in zip(epochs, rows, strict=True):
            targets = [t.tolist() for batch in epoch for t in batch.labels.split(batch.target_starts.diff().tolist())]
            assert targets == [wanted[row] for row in order]

    def test_sentences_of_similar_length_share_a_batch_only_where_it_is_padded(
        self, make_training: MakeTraining
    ) -> None:
        def spread(engine: Engine) -> float:
            trainer = make_training(sentences=300, batch_size=10, engine=engine).trainer
            batches = [batch["target_starts"].diff().float() for batch in trainer.get_train_dataloader()]
            assert len(batches) == 30
            return float(torch.stack([lengths.std() for lengths in batches]).mean())

        assert spread(PLAIN) < 0.3 * spread(Engine())

    def test_the_learning_rate_rises_and_falls_to_zero(self, make_training: MakeTraining) -> None:
        training = make_training(epochs=4, warmup_ratio=0.25, learning_rate=0.02)
        training.trainer.train()
        rates = [point[3] for point in training.recorder.trajectory()]
        assert rates[:4] == pytest.approx([0.0, 0.02 / 3, 0.04 / 3, 0.02])
        assert rates[3:] == sorted(rates[3:], reverse=True)
        assert 0 < rates[-1] < 0.001

    @BOTH
    def test_a_run_of_one_update_learns(self, make_training: MakeTraining, engine: Engine) -> None:
        training = make_training(sentences=4, batch_size=4, warmup_ratio=0.1, learning_rate=0.02, engine=engine)
        before = training.weights()
        training.trainer.train()
        assert [point[3] for point in training.recorder.trajectory()] == [0.02]
        assert not torch.equal(training.weights()["shared.weight"], before["shared.weight"])

    def test_several_processes_share_the_batches(self) -> None:
        schedule = Schedule(2, 4, 3, 0.1, 0.0, 32)
        assert [schedule.updates(100, processes) for processes in (1, 2, 3, 25, 99)] == [18, 10, 6, 2, 2]

    @BOTH
    @pytest.mark.parametrize(("sentences", "dropout"), [(12, 0.0), (1, 0.3)], ids=["order", "dropout"])
    def test_the_seed_decides_the_order_and_the_dropout(
        self, make_training: MakeTraining, sentences: int, dropout: float, engine: Engine
    ) -> None:
        runs = {}
        for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
            training = make_training(sentences=sentences, dropout=dropout, folder=folder, seed=seed, engine=engine)
            training.trainer.train()
            runs[folder] = training.recorder.trajectory()
        assert runs["a"] == runs["b"]
        assert runs["a"][-1][1] != pytest.approx(runs["c"][-1][1], rel=1e-4)

    @pytest.mark.parametrize("bfloat16", [False, True])
    @pytest.mark.parametrize("fused", [False, True])
    def test_the_precision_of_matrix_products(self, make_training: MakeTraining, fused: bool, bfloat16: bool) -> None:
        training = make_training(engine=Engine(fused=fused, bfloat16=bfloat16))
        kinds = set()
        training.trainer.model.lm_head.register_forward_hook(lambda _, __, output: kinds.add(output.dtype))
        training.trainer.train()
        wanted = {torch.bfloat16 if bfloat16 else torch.float32}
        assert training.trainer.dtypes == wanted
        assert kinds == (set() if fused else wanted)
        assert {weight.dtype for weight in training.trainer.model.parameters()} == {torch.float32}
        assert {tensor.dtype for tensor in training.recorder.gradients[0].values()} == {torch.float32}

    def test_it_can_be_written_down(self) -> None:
        schedule = Schedule(1, 2, 3, 0.1, 0.0, 32)
        assert Schedule(**json.loads(json.dumps(dataclasses.asdict(schedule)))) == schedule


def test_teacher_forced_logits_are_those_of_the_labels(make_training: MakeTraining) -> None:
    trainer = make_training().trainer
    model = trainer.model.eval()
    batch = PackedBatch(**next(iter(trainer.get_train_dataloader())))
    ids, mask, labels = batch.padded()
    assert (labels == -100).any()
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).logits[labels != -100]
    torch.testing.assert_close(teacher_forced_logits(model, batch), expected)


class TestEngine:
    def test_the_fastest_is_kept(self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
        engines = [Engine(), Engine(parts=2), Engine(parts=3)]
        seconds = {engines[0]: 1.0, engines[1]: 0.5, engines[2]: 2.0}
        trainer, now, rows = make_training(sentences=40).trainer, 0.0, []

        class Clock:
            def perf_counter(self) -> float:
                return now

        def batch_gradients(batch: PackedBatch) -> None:
            nonlocal now
            now += seconds[trainer.engine]
            rows.append(tuple(batch.rows.tolist()))

        monkeypatch.setattr("mtdistill.training.fused_updates.time", Clock())
        monkeypatch.setattr(trainer, "batch_gradients", batch_gradients)
        assert trainer.use_fastest(engines) is engines[1]
        assert trainer.engine is engines[1]
        assert len({*rows}) == TIMED_BATCHES  # all raced over the same batches

    def test_each_races_with_the_threads_it_would_have(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_training(sentences=40).trainer
        seen: set[tuple[int, int]] = set()
        monkeypatch.setattr(
            trainer, "batch_gradients", lambda _: seen.add((trainer.engine.parts, torch.get_num_threads()))
        )
        torch.set_num_threads(3)
        trainer.use_fastest([Engine(parts=2), Engine(threads_per_part=2)])
        assert seen == {(2, 1), (1, 2)}
        assert torch.get_num_threads() == 3

    def test_a_single_one_needs_no_race(self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = make_training().trainer
        monkeypatch.setattr(trainer, "batch_gradients", None)
        assert trainer.use_fastest([Engine(parts=2)]) == trainer.engine == Engine(parts=2)

    def test_a_race_leaves_no_trace_in_the_training(self, make_training: MakeTraining) -> None:
        kept = Engine(parts=2)
        with_race, without = (make_training(dropout=0.2, folder=name, engine=kept) for name in ("race", "none"))
        with_race.trainer.use_fastest([kept, Engine()])
        with_race.trainer.use_engine(kept)
        for training in (with_race, without):
            training.trainer.train()
        assert with_race.recorder.trajectory() == without.recorder.trajectory()
        assert_equal(with_race.weights(), without.weights())

    def test_every_part_and_update_has_its_own_dropout(self, make_training: MakeTraining) -> None:
        trainer = make_training(sentences=1, dropout=0.3, engine=Engine(parts=2)).trainer
        trainer.model.train()
        one = trainer.train_dataset.batch([0])
        twins = trainer.train_dataset.batch([0, 0])
        losses: list[float] = []
        from_states = trainer.losses_from_states

        def recorded(states: Tensor, head: Tensor, batch: PackedBatch) -> Any:
            found = from_states(states, head, batch)
            losses.append(found["total"].item())
            return found

        trainer.losses_from_states = recorded
        trainer.batch_gradients(twins)
        assert len({*losses}) == len(losses) == 2
        first, again = (trainer.batch_gradients(one)[1]["total"] for _ in range(2))
        trainer.state.global_step += 1
        assert first == again != trainer.batch_gradients(one)[1]["total"]

    @pytest.mark.parametrize(("parts", "shares"), [(1, 1), (2, 2)])
    def test_muon_is_shared_by_as_many_threads(
        self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, parts: int, shares: int
    ) -> None:
        moved: list[tuple[str, int]] = []
        formats: set[torch.dtype] = set()
        move = Muon._move
        meeting = threading.Barrier(shares)  # a thread that is quick to finish could take both shares otherwise

        def recorded(optimizer: Muon, matrix: Tensor, group: Any) -> None:
            thread = threading.current_thread().name
            if thread not in {name for name, _ in moved}:
                meeting.wait(timeout=60)
            moved.append((thread, id(matrix)))
            formats.add(optimizer._dtype)
            move(optimizer, matrix, group)

        monkeypatch.setattr(Muon, "_move", recorded)
        engine = Engine(parts=parts, bfloat16=parts > 1)
        training = make_training(engine=engine, optimizer="muon", epochs=1)
        training.trainer.train()
        assert formats == {engine.dtype}
        matrices = {matrix for _, matrix in moved}
        assert len(moved) == training.trainer.state.global_step * len(matrices) > 2 * len(matrices)
        first = {name for name, _ in moved[: len(matrices)]}
        assert len(first) == shares
        assert all(name.startswith("part") == (parts > 1) for name in first)


@BOTH
def test_nothing_is_printed(make_training: MakeTraining, capfd: pytest.CaptureFixture[str], engine: Engine) -> None:
    training = make_training(engine=engine)
    capfd.readouterr()
    training.trainer.train()
    assert capfd.readouterr().out == ""
