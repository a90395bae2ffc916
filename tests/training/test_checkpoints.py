"""Which checkpoint is resumed from, and what is said of one that cannot be."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState

from mtdistill.display import Display
from mtdistill.errors import CheckpointError
from mtdistill.training.checkpoints import COMPLETE_FILE, Checkpoints, latest_checkpoint

UPDATES = (5, 90, 100)


def mark(folder: Path, update: int, *, first_process: bool = True) -> None:
    state = SimpleNamespace(global_step=update, is_world_process_zero=first_process)
    Checkpoints().on_save(SimpleNamespace(output_dir=str(folder)), state, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three whole checkpoints and one that a kill interrupted."""
    for update in (*UPDATES, 200):
        (tmp_path / f"checkpoint-{update}").mkdir()
        (tmp_path / f"checkpoint-{update}" / "optimizer.pt").write_bytes(b"moments")
    for update in (100, 5, 90):
        mark(tmp_path, update)
    return tmp_path


def test_the_newest_whole_one(folder: Path) -> None:
    assert latest_checkpoint(folder) == folder / "checkpoint-100"


def test_none_where_nothing_is_whole(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-5").mkdir()
    assert latest_checkpoint(tmp_path) is None


def test_another_process_does_not_mark(folder: Path) -> None:
    mark(folder, 200, first_process=False)
    assert latest_checkpoint(folder) == folder / "checkpoint-100"


def test_one_without_checksums_counts(folder: Path) -> None:
    (folder / "checkpoint-200" / COMPLETE_FILE).write_bytes(b"")
    assert latest_checkpoint(folder) == folder / "checkpoint-200"


@pytest.mark.parametrize("damage", ["flipped", "missing", "marker", "marker of lists"])
def test_the_one_before_a_damaged_one_and_it_is_said(damage: str, folder: Path) -> None:
    newest, shown = folder / "checkpoint-100", io.StringIO()
    if damage == "missing":
        (newest / "optimizer.pt").unlink()
    else:
        name = "optimizer.pt" if damage == "flipped" else COMPLETE_FILE
        content = json.dumps({"sha256": ["optimizer.pt"]}) if damage == "marker of lists" else "nomentS"
        (newest / name).write_text(content, encoding="utf-8")
    assert latest_checkpoint(folder, Display(Console(file=shown, width=300))) == folder / "checkpoint-90"
    [line] = shown.getvalue().splitlines()
    assert f"{newest} ({COMPLETE_FILE if 'marker' in damage else 'optimizer.pt'})" in line


def test_all_damaged(folder: Path) -> None:
    for update in UPDATES:
        (folder / f"checkpoint-{update}" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match=r"got .*checkpoint-5 \(optimizer\.pt\), .*without --resume"):
        latest_checkpoint(folder)


class TestReading:
    """Before the first update everything that fails is the checkpoint's fault; afterwards nothing is."""

    def begin(self, checkpoints: Checkpoints) -> None:
        checkpoints.on_step_begin(None, None, None)

    def test_a_failure_before_the_first_update(self) -> None:
        with (
            pytest.raises(CheckpointError, match=r"got run/checkpoint-5 \(KeyError: 'state'\), .*Delete it") as caught,
            Checkpoints().reading("run/checkpoint-5"),
        ):
            raise KeyError("state")
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_failure_after_it(self) -> None:
        checkpoints = Checkpoints()
        with pytest.raises(KeyError), checkpoints.reading("run/checkpoint-5"):
            raise KeyError(self.begin(checkpoints))

    def test_a_second_reading_begins_anew(self) -> None:
        checkpoints = Checkpoints()
        self.begin(checkpoints)
        with pytest.raises(CheckpointError), checkpoints.reading("run/checkpoint-5"):
            raise KeyError("state")

    @pytest.mark.parametrize("error", [CheckpointError("ours"), KeyboardInterrupt()], ids=["ours", "Ctrl-C"])
    def test_what_says_enough_already(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, Checkpoints().reading("run/checkpoint-5"):
            raise error
        assert caught.value is error

    def test_without_a_checkpoint(self) -> None:
        with pytest.raises(KeyError), Checkpoints().reading(None):
            raise KeyError("weight")


class TestState:
    """What the Trainer remembers comes from a file, and what is not as the Trainer wrote it must not train."""

    EVERY = SimpleNamespace(logging_steps=5, eval_steps=10, save_steps=20)

    def begin(self, **read: Any) -> TrainerState:
        state = TrainerState(**{"max_steps": 100, "stateful_callbacks": {"TrainerControl": {}}, **read})
        Checkpoints().on_train_begin(self.EVERY, state, TrainerControl())
        return state

    def test_as_it_was_written(self) -> None:
        assert self.begin(best_metric=3.5, epoch=1).best_metric == 3.5

    @pytest.mark.parametrize("value", [0, -1, None, "x", []])
    def test_how_often_is_for_the_settings_to_say(self, value: Any) -> None:
        state = self.begin(logging_steps=value, eval_steps=value, save_steps=value)
        assert (state.logging_steps, state.eval_steps, state.save_steps) == (5, 10, 20)

    @pytest.mark.parametrize(
        ("name", "value"), [("global_step", "x"), ("log_history", {}), ("stateful_callbacks", {}), ("total_flos", [])]
    )
    def test_of_the_wrong_kind(self, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=name):
            self.begin(**{name: value})
