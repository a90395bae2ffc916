"""What is kept, shown and written while a model trains."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from mtdistill.display import Display
from mtdistill.training.callbacks import (
    BestBy,
    BestModel,
    LogBeforeCheckpoint,
    MetricsFile,
    MovingAverage,
    ProgressDisplay,
    SampleTranslations,
)


def state_at(update: int, **values: Any) -> Any:
    return SimpleNamespace(**{"global_step": update, "epoch": update / 10, "max_steps": 20, "best_metric": None,
                              "is_world_process_zero": True, **values})  # fmt: skip


@pytest.fixture
def args(tmp_path: Path) -> Any:
    return SimpleNamespace(output_dir=str(tmp_path))


def model_of(value: float) -> Any:
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def set_to(model: Any, value: float) -> None:
    nn.init.constant_(model.weight, value)


class TestMovingAverage:
    def test_follows_the_weights_with_a_growing_decay(self, args: Any) -> None:
        average, model = MovingAverage(0.5), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        expected = 1.0
        for update, value in enumerate([2.0, 5.0, -3.0, 0.5, 4.0, 1.0, 7.0, 8.0, 9.0], start=1):
            set_to(model, value)
            average.on_step_end(args, state_at(update), None, model=model)
            decay = min(0.5, (1 + update) / (10 + update))
            expected = decay * expected + (1 - decay) * value
            assert average.weights["weight"].tolist() == [[pytest.approx(expected, rel=1e-4)] * 2]
        assert update > 8  # the point from which on the decay is the final one
        assert model.weight.tolist() == [[9.0, 9.0]]

    def test_goes_on_from_a_checkpoint(self, args: Any, tmp_path: Path) -> None:
        average, model = MovingAverage(0.9), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        set_to(model, 3.0)
        average.on_step_end(args, state_at(4), None, model=model)
        (tmp_path / "checkpoint-4").mkdir()
        average.on_save(args, state_at(4), None)
        resumed = MovingAverage(0.9)
        resumed.on_train_begin(args, state_at(4), None, model=model)
        assert torch.equal(resumed.weights["weight"], average.weights["weight"])
        assert resumed.weights["weight"].tolist() != model.weight.tolist()

    def test_a_new_run_does_not_read_an_old_checkpoint(self, args: Any, tmp_path: Path) -> None:
        average, model = MovingAverage(0.9), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        (tmp_path / "checkpoint-0").mkdir()
        average.on_save(args, state_at(0), None)
        set_to(model, 2.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        assert average.weights["weight"].tolist() == [[2.0, 2.0]]

    def test_is_applied_for_a_block_even_one_that_fails(self, args: Any) -> None:
        average, model = MovingAverage(0.9), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        set_to(model, 2.0)

        def fail() -> None:
            with average.applied_to(model):
                assert model.weight.tolist() == [[1.0, 1.0]]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert model.weight.tolist() == [[2.0, 2.0]]
        assert average.weights["weight"].tolist() == [[1.0, 1.0]]

    def test_is_no_alias_of_the_weights(self, args: Any) -> None:
        average, model = MovingAverage(0.9), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        set_to(model, 2.0)
        assert average.weights["weight"].tolist() == [[1.0, 1.0]]
        assert not average.weights["weight"].requires_grad


class TestBestModel:
    @pytest.fixture
    def saved(self) -> list[tuple[list[float], dict[str, float]]]:
        return []

    @pytest.fixture
    def save(self, saved: list[Any]) -> Callable[..., None]:
        return lambda model, scores: saved.append((model.weight.flatten().tolist(), dict(scores)))

    @pytest.mark.parametrize(
        ("best_so_far", "score", "is_saved"),
        [(None, 0.0, True), (5.0, 5.1, True), (5.0, 5.0, False), (5.0, 4.0, False), (None, float("nan"), False)],
    )
    def test_saves_what_is_better(
        self, args: Any, saved: list[Any], save: Any, best_so_far: float | None, score: float, is_saved: bool
    ) -> None:
        metrics = {"eval_bleu": score, "eval_chrf": 7.0}
        callback = BestModel(BestBy("bleu"), save, None)
        callback.on_evaluate(args, state_at(3, best_metric=best_so_far), None, metrics, model=model_of(2.0))
        assert saved == ([([2.0, 2.0], {"bleu": score, "chrf": 7.0})] if is_saved else [])

    def test_another_metric(self, args: Any, saved: list[Any], save: Any) -> None:
        callback = BestModel(BestBy("chrf"), save, None)
        state = state_at(3, best_metric=5.0)
        callback.on_evaluate(args, state, None, {"eval_bleu": 1.0, "eval_chrf": 7.0}, model=model_of(2.0))
        assert len(saved) == 1

    def test_of_two_as_good_the_later_and_small_losses_do_not_add_up(
        self, args: Any, saved: list[Any], save: Any
    ) -> None:
        callback, state = BestModel(BestBy("chrf", margin=0.5), save, None), state_at(3)
        for score in (40.0, 39.6, 39.3, 39.5, 40.2, 39.75, float("nan")):
            callback.on_evaluate(args, state, None, {"eval_chrf": score}, model=model_of(score))
        assert [scores["chrf"] for _, scores in saved] == [40.0, 39.6, 40.2, 39.75]
        assert state.best_metric == 40.2

    def test_saves_the_averaged_weights(self, args: Any, saved: list[Any], save: Any) -> None:
        average, model = MovingAverage(0.9), model_of(1.0)
        average.on_train_begin(args, state_at(0), None, model=model)
        set_to(model, 2.0)
        BestModel(BestBy("bleu"), save, average).on_evaluate(args, state_at(3), None, {"eval_bleu": 1.0}, model=model)
        assert saved[0][0] == [1.0, 1.0]
        assert model.weight.tolist() == [[2.0, 2.0]]

    def test_one_process_of_several_saves(self, args: Any, saved: list[Any], save: Any) -> None:
        state = state_at(3, is_world_process_zero=False)
        BestModel(BestBy("bleu"), save, None).on_evaluate(args, state, None, {"eval_bleu": 1.0}, model=model_of(1.0))
        assert saved == []


class TestProgressDisplay:
    def test_shows_loss_rate_and_scores(self, args: Any) -> None:
        stream = io.StringIO()
        progress = ProgressDisplay(Display(Console(file=stream, width=200, force_terminal=False)), "training")
        progress.on_train_begin(args, state_at(4), None)
        progress.on_log(args, state_at(5), None, {"loss": 2.34567, "learning_rate": 0.00123})
        progress.on_evaluate(args, state_at(6), None, {"eval_bleu": 12.345, "eval_success_rate": 0.5})
        progress.on_log(args, state_at(6), None, {"eval_bleu": 12.345})
        progress.on_step_end(args, state_at(20), None)
        progress.on_train_end(args, state_at(20), None)
        assert stream.getvalue().splitlines() == [
            "update 6: bleu 12.3 · success_rate 0.5",
            "training 20/20 · 0:00 left · loss 2.346 lr 1.2e-03 BLEU 12.3",
        ]

    def test_the_bar_is_closed_at_the_end_and_opened_anew(self, args: Any) -> None:
        opened: list[str] = []

        class Watched(Display):
            def bar(self, label: str, total: int, done: int = 0) -> Any:
                class Context:
                    def __enter__(self) -> Any:
                        opened.append(f"open {done}/{total}")
                        return SimpleNamespace(advance_to=lambda *_: None)

                    def __exit__(self, *_: Any) -> None:
                        opened.append("closed")

                return Context()

        progress = ProgressDisplay(Watched(), "training")
        progress.on_train_begin(args, state_at(0), None)
        progress.on_train_begin(args, state_at(5), None)
        progress.on_train_end(args, state_at(20), None)
        progress.on_train_end(args, state_at(20), None)
        assert opened == ["open 0/20", "closed", "open 5/20", "closed"]

    def test_another_process_shows_nothing(self, args: Any) -> None:
        stream = io.StringIO()
        progress = ProgressDisplay(Display(Console(file=stream, force_terminal=False)), "training")
        state = state_at(20, is_world_process_zero=False)
        progress.on_train_begin(args, state, None)
        progress.on_evaluate(args, state, None, {"eval_chrf": 1.0})
        progress.on_step_end(args, state, None)
        assert stream.getvalue() == ""


def test_sample_translations_go_to_the_writer(args: Any) -> None:
    written: list[Any] = []
    writer: Any = SimpleNamespace(add_text=lambda *values: written.append(values))
    SampleTranslations(writer, SimpleNamespace(samples="- 猫 → cat")).on_evaluate(args, state_at(7), None)
    assert written == [("samples", "- 猫 → cat", 7)]


class TestMetricsFile:
    def test_appends_a_line_for_every_log(self, args: Any, tmp_path: Path) -> None:
        path = tmp_path / "new" / "metrics.jsonl"
        metrics = MetricsFile(path)
        metrics.on_train_begin(args, state_at(0), None)
        metrics.on_log(args, state_at(1), None, {"loss": 2.5})
        metrics.on_log(args, state_at(2), None, {"eval_bleu": 7.0})
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            {"update": 1, "epoch": 0.1, "loss": 2.5},
            {"update": 2, "epoch": 0.2, "eval_bleu": 7.0},
        ]

    @pytest.mark.parametrize(("goes_on_from", "kept"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
    def test_a_resumed_run_does_not_log_twice(
        self, args: Any, tmp_path: Path, goes_on_from: int, kept: list[int]
    ) -> None:
        path = tmp_path / "metrics.jsonl"
        before = MetricsFile(path)
        for update in (1, 2, 3):
            before.on_log(args, state_at(update), None, {"loss": 0.0})
        # What is no line of ours, and a kill in the middle of one.
        path.write_text(path.read_text() + '[4]\n{"update": [4]}\n{"update": 4, "lo')
        after = MetricsFile(path)
        after.on_train_begin(args, state_at(goes_on_from), None)
        after.on_log(args, state_at(10), None, {"loss": 0.0})
        assert [json.loads(line)["update"] for line in path.read_text().splitlines()] == [*kept, 10]

    def test_the_summary_of_the_trainer_is_left_out(self, args: Any, tmp_path: Path) -> None:
        metrics = MetricsFile(tmp_path / "metrics.jsonl")
        metrics.on_log(args, state_at(9), None, {"train_runtime": 3.0, "train_loss": 1.0})
        assert list(tmp_path.iterdir()) == []

    def test_means_begin_anew_at_every_checkpoint(self) -> None:
        log, asked = LogBeforeCheckpoint(), []
        for update in range(1, 9):
            control = SimpleNamespace(should_log=update == 3, should_save=update % 4 == 0)
            log.on_step_end(None, state_at(update), control)
            asked.append(control.should_log)
        assert asked == [False, False, True, True, False, False, False, True]

    def test_another_process_writes_nothing(self, args: Any, tmp_path: Path) -> None:
        metrics = MetricsFile(tmp_path / "metrics.jsonl")
        metrics.on_log(args, state_at(1, is_world_process_zero=False), None, {"loss": 1.0})
        assert list(tmp_path.iterdir()) == []


class TestCheckpoints:
    def test_other_processes_do_not_write_into_it(self, args: Any, tmp_path: Path) -> None:
        (tmp_path / "checkpoint-5").mkdir()
        state = state_at(5, is_world_process_zero=False)
        average = MovingAverage(0.9)
        average.on_train_begin(args, state_at(0), None, model=model_of(1.0))
        average.on_save(args, state, None)
        assert list((tmp_path / "checkpoint-5").iterdir()) == []

    def test_the_average_in_it_is_a_plain_safetensors_file(self, args: Any, tmp_path: Path) -> None:
        (tmp_path / "checkpoint-5").mkdir()
        average = MovingAverage(0.9)
        average.on_train_begin(args, state_at(0), None, model=model_of(1.5))
        average.on_save(args, state_at(5), None)
        stored = load_file(tmp_path / "checkpoint-5" / "moving_average.safetensors")
        assert stored["weight"].tolist() == [[1.5, 1.5]]
