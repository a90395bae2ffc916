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
from mtdistill.training import checkpoints as module
from mtdistill.training.checkpoints import COMPLETE_FILE, Checkpoints, checkpoints_in, latest_checkpoint

UPDATES = (5, 90, 100)


def mark(folder: Path, update: int, *, first_process: bool = True, kept: int = 9) -> None:
    state = SimpleNamespace(global_step=update, is_world_process_zero=first_process)
    Checkpoints(kept).on_save(SimpleNamespace(output_dir=str(folder)), state, None)


def write(folder: Path, update: int) -> None:
    (folder / f"checkpoint-{update}").mkdir()
    (folder / f"checkpoint-{update}" / "optimizer.pt").write_bytes(b"moments")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three whole checkpoints and one that a kill interrupted."""
    for update in (100, 5, 90):
        write(tmp_path, update)
        mark(tmp_path, update)
    write(tmp_path, 200)
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


@pytest.mark.parametrize(
    ("kept", "left"),
    [(1, {200}), (2, {100, 200}), (3, {90, 100, 200}), (4, {5, 90, 100, 200}), (9, {5, 90, 100, 200})],
)
def test_the_newest_stay(folder: Path, kept: int, left: set[int]) -> None:
    write(folder, 150)  # half written, and older than the newest
    (folder / "checkpoint-90-copy").mkdir()
    (folder / "checkpoint-7.zip").touch()
    mark(folder, 200, kept=kept)
    assert {path.name for path in folder.iterdir()} == {f"checkpoint-{update}" for update in left} | {
        "checkpoint-90-copy",
        "checkpoint-7.zip",
    }
    assert latest_checkpoint(folder) == folder / "checkpoint-200"


def test_nothing_is_removed_before_the_new_one_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError, match="no space"):
        mark(folder, 200, kept=1)
    assert latest_checkpoint(folder) == folder / "checkpoint-100"
    assert len(list(folder.iterdir())) == 4


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


def test_what_an_interruption_left_is_not_written_into(folder: Path) -> None:
    (folder / "checkpoint-200" / COMPLETE_FILE).mkdir()
    state = TrainerState(max_steps=300, global_step=100, stateful_callbacks={"TrainerControl": {}})
    args = SimpleNamespace(logging_steps=5, eval_steps=10, save_steps=20, output_dir=str(folder))
    Checkpoints(9).on_train_begin(args, state, TrainerControl())
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-5", "checkpoint-90", "checkpoint-100"]
    write(folder, 200)
    mark(folder, 200)
    assert latest_checkpoint(folder) == folder / "checkpoint-200"


class TestSeconds:
    """Training may be the work of several processes."""

    ARGS = SimpleNamespace(logging_steps=5, eval_steps=10, save_steps=20)

    def begin(self, folder: Path, update: int) -> Checkpoints:
        checkpoints = Checkpoints(9)
        state = TrainerState(max_steps=100, global_step=update, stateful_callbacks={"TrainerControl": {}})
        checkpoints.on_train_begin(SimpleNamespace(**vars(self.ARGS), output_dir=str(folder)), state, TrainerControl())
        return checkpoints

    def test_are_added_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [1000.0]
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
        first = self.begin(tmp_path, 0)
        clock[0] += 40
        write(tmp_path, 5)
        args, state = SimpleNamespace(output_dir=str(tmp_path)), TrainerState(global_step=5)
        first.on_save(args, state, None)
        clock[0] += 7  # lost
        second = self.begin(tmp_path, 5)
        clock[0] += 2
        assert second.seconds == 42

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": {}}', '{"seconds": "many"}', '{"seconds": null}'])
    def test_where_nothing_is_noted_they_begin_now(
        self, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, 5)
        (tmp_path / "checkpoint-5" / COMPLETE_FILE).write_text(content, encoding="utf-8")
        monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)
        assert self.begin(tmp_path, 5).seconds == 0


class TestReading:
    """Before the first update everything that fails is the checkpoint's fault; afterwards nothing is."""

    def begin(self, checkpoints: Checkpoints) -> None:
        checkpoints.on_step_begin(None, None, None)

    def test_a_failure_before_the_first_update(self) -> None:
        with (
            pytest.raises(CheckpointError, match=r"got run/checkpoint-5 \(KeyError: 'state'\), .*Delete it") as caught,
            Checkpoints(9).reading("run/checkpoint-5"),
        ):
            raise KeyError("state")
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_failure_after_it(self) -> None:
        checkpoints = Checkpoints(9)
        with pytest.raises(KeyError), checkpoints.reading("run/checkpoint-5"):
            raise KeyError(self.begin(checkpoints))

    def test_a_second_reading_begins_anew(self) -> None:
        checkpoints = Checkpoints(9)
        self.begin(checkpoints)
        with pytest.raises(CheckpointError), checkpoints.reading("run/checkpoint-5"):
            raise KeyError("state")

    @pytest.mark.parametrize("error", [CheckpointError("ours"), KeyboardInterrupt()], ids=["ours", "Ctrl-C"])
    def test_what_says_enough_already(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, Checkpoints(9).reading("run/checkpoint-5"):
            raise error
        assert caught.value is error

    def test_without_a_checkpoint(self) -> None:
        with pytest.raises(KeyError), Checkpoints(9).reading(None):
            raise KeyError("weight")


class TestState:
    """What the Trainer remembers comes from a file, and what is not as the Trainer wrote it must not train."""

    EVERY = SimpleNamespace(logging_steps=5, eval_steps=10, save_steps=20, output_dir="nowhere")

    def begin(self, **read: Any) -> TrainerState:
        state = TrainerState(**{"max_steps": 100, "stateful_callbacks": {"TrainerControl": {}}, **read})
        Checkpoints(9).on_train_begin(self.EVERY, state, TrainerControl())
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
