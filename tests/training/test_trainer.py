"""Any cut of a batch gives the same gradient, an interruption leaves no trace, and the best model is kept."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from mtdistill.errors import TrainingFailedError
from mtdistill.training.callbacks import AVERAGE_FILE, latest_checkpoint
from mtdistill.training.trainer import Schedule, TranslationTrainer, teacher_forced_logits

MakeTraining = Callable[..., Any]
Weights = dict[str, Tensor]


def without_momentum(training: Any, learning_rate: float) -> None:
    """SGD moves by the gradient itself, where Adam would hide a factor."""
    weights = [weight for weight in training.trainer.model.parameters() if weight.requires_grad]
    training.trainer.optimizer = torch.optim.SGD(weights, lr=learning_rate)


def mean_loss_gradient(training: Any, micro_batches: list[dict[str, Tensor]]) -> Weights:
    """Of the mean over all target tokens, sentence by sentence and without padding."""
    model = training.trainer.model
    model.zero_grad()
    losses, tokens = torch.zeros(()), 0
    for batch in micro_batches:
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            target = labels[labels != -100]
            decoder_input = torch.cat([torch.zeros(1, dtype=torch.long), target[:-1]])
            logits = model(input_ids=ids[mask == 1][None], decoder_input_ids=decoder_input[None]).logits[0]
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
    @pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (4, 2), (1, 8)])
    def test_any_cut_of_a_batch_gives_the_same(
        self, make_training: MakeTraining, batch_size: int, accumulation: int
    ) -> None:
        training = make_training(sentences=8, batch_size=batch_size, gradient_accumulation=accumulation,
                                 max_gradient_norm=0.0)  # fmt: skip
        without_momentum(training, learning_rate=0.5)
        before = training.weights()
        training.trainer.train()
        assert [len(batch["labels"]) for batch in training.trainer.micro_batches] == [batch_size] * accumulation
        after = training.weights()
        moved = {name: (before[name] - after[name]) / 0.5 for name in before}
        [gradient] = training.recorder.gradients
        training.trainer.model.load_state_dict(before, strict=False)
        expected = mean_loss_gradient(training, training.trainer.micro_batches)
        assert_same(gradient, expected)
        assert_same(moved, expected, scale=10)

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
        self, make_training: MakeTraining, sentences: int, batch_size: int, accumulation: int, cut: list[list[int]]
    ) -> None:
        training = make_training(sentences=sentences, batch_size=batch_size, gradient_accumulation=accumulation,
                                 max_gradient_norm=0.0)  # fmt: skip
        without_momentum(training, learning_rate=0.0)
        training.trainer.train()
        batches: Iterator[dict[str, Tensor]] = iter(training.trainer.micro_batches)
        groups = [[next(batches) for _ in sizes] for sizes in cut]
        assert [[len(batch["labels"]) for batch in group] for group in groups] == cut
        assert next(batches, None) is None
        assert training.trainer.state.global_step == len(cut)
        for gradient, group in zip(training.recorder.gradients, groups, strict=True):
            assert_same(gradient, mean_loss_gradient(training, group))

    def test_padding_has_no_influence_on_value_and_gradient(self, make_training: MakeTraining) -> None:
        trainer = make_training().trainer
        trainer.model.train()
        batch = next(iter(trainer.get_train_dataloader()))
        more = {
            # What stands at a masked position must not matter, so something real stands there.
            "input_ids": torch.cat([batch["input_ids"], torch.full((4, 3), 7)], dim=1),
            "attention_mask": torch.cat([batch["attention_mask"], torch.zeros(4, 3, dtype=torch.long)], dim=1),
            "labels": torch.cat([batch["labels"], torch.full((4, 5), -100)], dim=1),
        }
        results = []
        for inputs in (batch, more):
            trainer.model.zero_grad()
            loss = trainer.compute_loss(trainer.model, inputs)
            loss.backward()
            results.append((loss.item(), {name: w.grad.clone() for name, w in trainer.model.named_parameters()}))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
        assert_same(results[1][1], results[0][1])

    def test_gradients_are_clipped(self, make_training: MakeTraining) -> None:
        training = make_training(max_gradient_norm=0.01)
        training.trainer.train()
        for gradient in training.recorder.gradients:
            norm = torch.stack([tensor.norm() for tensor in gradient.values()]).norm().item()
            assert norm == pytest.approx(0.01, rel=1e-3)

    def test_a_long_target_is_cut_as_asked(self, make_training: MakeTraining) -> None:
        training = make_training(max_sequence_length=5)
        training.trainer.train()
        widths = {batch[name].shape[1] for batch in training.trainer.micro_batches for name in ("labels", "input_ids")}
        assert max(widths) == 5


class TestLog:
    @pytest.mark.parametrize(("sentences", "accumulation"), [(12, 1), (22, 3)])
    def test_parts_are_means_over_the_same_tokens_as_the_loss(
        self, make_training: MakeTraining, sentences: int, accumulation: int
    ) -> None:
        training = make_training(sentences=sentences, gradient_accumulation=accumulation, epochs=2)
        training.trainer.args.logging_steps = 2
        training.trainer.train()
        logs = [log for log in training.recorder.logs if "loss" in log]
        assert len(logs) >= 2
        for log in logs:
            assert log["gold_loss"] == pytest.approx(log["loss"], rel=1e-4)
            assert 0 < log["tokens_per_second"] < math.inf
            assert "total_loss" not in log

    def test_evaluation_is_no_training_time(self, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
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

        monkeypatch.setattr("mtdistill.training.trainer.time", Clock())
        training = make_training(validate=validate, evaluations=3, callbacks=[Tick()])
        training.trainer.train()
        tokens = [int((batch["labels"] != -100).sum()) for batch in training.trainer.micro_batches]
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
    @pytest.mark.parametrize(
        ("optimizer", "evaluations", "interrupted_at", "goes_on_from"),
        [
            pytest.param("adamw", 4, 8, 6, id="adamw, within an epoch"),
            pytest.param("muon", 4, 5, 3, id="muon, within an epoch"),
            pytest.param("muon", 3, 6, 4, id="muon, between epochs"),
        ],
    )
    def test_an_interrupted_run_ends_like_one_that_was_not(
        self, make_training: MakeTraining, optimizer: str, evaluations: int, interrupted_at: int, goes_on_from: int
    ) -> None:
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

    def test_a_checkpoint_holds_the_average_and_is_marked_last(self, make_training: MakeTraining) -> None:
        training = make_training(ema_decay=0.5)
        training.trainer.train()
        checkpoint = latest_checkpoint(Path(training.trainer.args.output_dir))
        assert checkpoint is not None
        assert (checkpoint / AVERAGE_FILE).is_file()
        newest = max(checkpoint.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert newest.name == "complete"

    def test_as_many_checkpoints_as_asked_for(self, make_training: MakeTraining) -> None:
        training = make_training(epochs=4, evaluations=6, checkpoints_kept=2)
        training.trainer.train()
        kept = {path.name for path in Path(training.trainer.args.output_dir).glob("checkpoint-*")}
        assert kept == {"checkpoint-2", "checkpoint-12"}  # the best one, which is the first, and the last


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
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite(self, make_training: MakeTraining, value: float) -> None:
        closed: list[bool] = []

        class Close(TrainerCallback):
            def on_train_end(self, *_: Any, **__: Any) -> None:
                closed.append(True)

        training = make_training(gradient_accumulation=2, epochs=3, evaluations=6, callbacks=[Close()])
        trainer = training.trainer
        token_losses = trainer.token_losses
        # The second micro-batch of the second update.
        trainer.token_losses = lambda model, inputs: {
            "total": token_losses(model, inputs)["total"] * (value if len(trainer.micro_batches) == 3 else 1.0)
        }
        with pytest.raises(TrainingFailedError, match=rf"not finite: got {value} at update 2\. Lower training"):
            trainer.train()
        assert closed == [True]
        assert len(training.recorder.gradients) == 1
        assert latest_checkpoint(Path(trainer.args.output_dir)) is not None

    def test_a_trainer_without_a_loss(self, make_training: MakeTraining) -> None:
        trainer = make_training().trainer
        with pytest.raises(NotImplementedError):
            TranslationTrainer.token_losses(trainer, trainer.model, {})


class TestSchedule:
    @pytest.mark.parametrize(
        ("sentences", "epochs", "batch_size", "accumulation", "updates"),
        [(12, 1, 4, 1, 3), (13, 2, 4, 1, 8), (29, 3, 4, 2, 12), (9, 1, 2, 4, 2), (1, 5, 64, 3, 5)],
    )
    def test_updates(
        self, make_training: MakeTraining, sentences: int, epochs: int, batch_size: int, accumulation: int, updates: int
    ) -> None:
        training = make_training(sentences=sentences, epochs=epochs, batch_size=batch_size,
                                 gradient_accumulation=accumulation)  # fmt: skip
        assert training.trainer.schedule.updates(sentences) == updates
        training.trainer.train()
        assert training.trainer.state.global_step == training.trainer.state.max_steps == updates

    def test_every_epoch_sees_every_sentence_in_another_order(self, make_training: MakeTraining) -> None:
        training = make_training(sentences=12, epochs=2, batch_size=4)
        training.trainer.train()
        epochs = [training.trainer.micro_batches[:3], training.trainer.micro_batches[3:]]
        seen = [[tuple(row.tolist()) for batch in epoch for row in batch["labels"]] for epoch in epochs]
        real = [sorted(tuple(token for token in row if token != -100) for row in rows) for rows in seen]
        assert real[0] == real[1] == sorted(map(tuple, training.trainer.train_dataset["target_ids"]))
        assert seen[0] != seen[1]

    def test_the_learning_rate_rises_and_falls_to_zero(self, make_training: MakeTraining) -> None:
        training = make_training(epochs=4, warmup_ratio=0.25, learning_rate=0.02)
        training.trainer.train()
        rates = [point[3] for point in training.recorder.trajectory()]
        assert rates[:4] == pytest.approx([0.0, 0.02 / 3, 0.04 / 3, 0.02])
        assert rates[3:] == sorted(rates[3:], reverse=True)
        assert 0 < rates[-1] < 0.001

    @pytest.mark.parametrize(("sentences", "dropout"), [(12, 0.0), (1, 0.3)], ids=["order", "dropout"])
    def test_the_seed_decides_the_order_and_the_dropout(
        self, make_training: MakeTraining, sentences: int, dropout: float
    ) -> None:
        runs = {}
        for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
            training = make_training(sentences=sentences, dropout=dropout, folder=folder, seed=seed)
            training.trainer.train()
            runs[folder] = training.recorder.trajectory()
        assert runs["a"] == runs["b"]
        assert runs["a"][-1][1] != pytest.approx(runs["c"][-1][1], rel=1e-4)

    @pytest.mark.parametrize("bfloat16", [False, True])
    def test_the_precision_of_matrix_products(self, make_training: MakeTraining, bfloat16: bool) -> None:
        training = make_training(bfloat16=bfloat16)
        kinds = set()
        training.trainer.model.lm_head.register_forward_hook(lambda _, __, output: kinds.add(output.dtype))
        training.trainer.train()
        assert kinds == {torch.bfloat16 if bfloat16 else torch.float32}
        assert {weight.dtype for weight in training.trainer.model.parameters()} == {torch.float32}

    def test_it_can_be_written_down(self) -> None:
        schedule = Schedule(1, 2, 3, 0.1, 0.0, 32)
        assert Schedule(**json.loads(json.dumps(dataclasses.asdict(schedule)))) == schedule


def test_teacher_forced_logits_are_those_of_the_labels(make_training: MakeTraining) -> None:
    trainer = make_training().trainer
    model = trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == -100).any()
    torch.testing.assert_close(teacher_forced_logits(model, batch), model(**batch).logits)


def test_nothing_is_printed(make_training: MakeTraining, capfd: pytest.CaptureFixture[str]) -> None:
    training = make_training()
    capfd.readouterr()
    training.trainer.train()
    assert capfd.readouterr().out == ""
