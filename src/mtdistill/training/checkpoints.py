"""Checkpoints to resume from: when one is whole, which is the latest, and what to say of one that cannot be read.

Imported by distillation, teacher, training.callbacks, training.trainer and training.watch.
"""

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from mtdistill.display import Display
from mtdistill.errors import CheckpointError, MtdistillError
from mtdistill.files import changed_files, checksums_of, write_atomically
from mtdistill.messages import tr

_NAME = re.compile(r"checkpoint-[0-9]+")
COMPLETE_FILE = "complete"  # the last to be written; JSON: seconds of training, and the SHA-256 of every other file


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Marks every checkpoint as whole, and only then makes room.

    Must be the last callback, for what others write into a checkpoint belongs to it.

    Args:
        kept: how many stay, the newest ones. The best student is kept elsewhere.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._has_begun = False
        self._seconds_before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training so far, in all processes that worked on it."""
        return self._seconds_before + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse a state of the Trainer that would fail later; how often things are done is for the settings to say.

        What an interrupted save has left is removed: the checkpoint of that update would be written among it.
        """
        resumed = checkpoint_of(args, state)
        self._seconds_before, self._began = _seconds(resumed / COMPLETE_FILE), time.monotonic()
        state.compute_steps(args, state.max_steps)
        for name, usual in vars(TrainerState()).items():
            value = getattr(state, name)
            kind = (int, float) if isinstance(usual, float | int) else object if usual is None else type(usual)
            if not isinstance(value, kind):
                raise TypeError(f"{name} is {value!r}"[:200])
        if type(control).__name__ not in state.stateful_callbacks:
            raise TypeError(f"stateful_callbacks is without {type(control).__name__}")
        if state.is_world_process_zero:
            kept = [*whole_checkpoints_in(resumed.parent), resumed]
            _remove(each for each in checkpoints_in(resumed.parent) if each not in kept)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Everything has been read by now."""
        self._has_begun = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the marker, and remove the oldest."""
        if state.is_world_process_zero:
            folder = checkpoint_of(args, state)
            checksums = checksums_of(folder, (path for path in folder.iterdir() if path.name != COMPLETE_FILE))
            marker = {"seconds": round(self.seconds, 1), "sha256": checksums}
            write_atomically(folder / COMPLETE_FILE, json.dumps(marker, indent=2))
            self._make_room(folder)

    def _make_room(self, newest: Path) -> None:
        whole = [each for each in whole_checkpoints_in(newest.parent) if each != newest]
        kept = [*whole[max(0, len(whole) - self._kept + 1) :], newest]
        _remove(each for each in checkpoints_in(newest.parent) if each not in kept)

    @contextmanager
    def reading(self, checkpoint: str | None) -> Iterator[None]:
        """Training that begins with reading a checkpoint, if one is given.

        Raises:
            CheckpointError: something failed before the first update.
        """
        self._has_begun = checkpoint is None
        try:
            yield
        except MtdistillError:
            raise
        except Exception as error:  # torch, transformers, safetensors and json raise their own for every kind of damage
            if self._has_begun:
                raise
            raise CheckpointError(
                tr(
                    en=f"the checkpoint could not be read: got {checkpoint} ({type(error).__name__}: {error}), accepted "
                    "one that this version wrote for this run. Delete it to go on from the one before.",
                    zh=f"无法读取检查点：{checkpoint}（{type(error).__name__}：{error}），需要由本版本为该训练写出的检查点。"
                    "请删除它，以便从上一个检查点继续。",
                )
            ) from error


def checkpoint_of(args: Any, state: Any) -> Path:
    """Where the checkpoint of a Trainer's state is, or goes."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def update_of(checkpoint: Path) -> int:
    """How many updates had been made at a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """All, whole or not, the oldest first; what is only named like one is left alone."""
    return sorted((each for each in folder.glob("checkpoint-*") if _NAME.fullmatch(each.name)), key=update_of)


def whole_checkpoints_in(folder: Path) -> list[Path]:
    """Those that no kill interrupted, the oldest first; their files may still be damaged."""
    return [each for each in checkpoints_in(folder) if (each / COMPLETE_FILE).is_file()]


def latest_checkpoint(folder: Path, display: Display | None = None) -> Path | None:
    """The newest sound checkpoint in a folder; one that a kill interrupted does not count.

    Args:
        folder: holds folders named ``checkpoint-<update>``.
        display: where is said that a newer one is damaged; None: nowhere.

    Raises:
        CheckpointError: all are damaged.
    """
    damage = ""
    for checkpoint in reversed(whole_checkpoints_in(folder)):
        if not (changed := changed_files(checkpoint, _checksums(checkpoint / COMPLETE_FILE))):
            return checkpoint
        damage = f"{checkpoint} ({', '.join(changed)})"
        (display or Display()).say(
            tr(
                en=f"a checkpoint is damaged and left out: {damage} is not as it was written",
                zh=f"检查点已损坏，已跳过：{damage} 与写出时不同",
            )
        )
    if damage:
        raise CheckpointError(
            tr(
                en=f"no checkpoint can be resumed from: got {damage}, accepted one whose files are as they were written. "
                "Copy it again, or start anew without --resume.",
                zh=f"没有可以继续的检查点：{damage}，其文件必须与写出时一致。请重新复制，或去掉 --resume 重新开始。",
            )
        )
    return None


def _remove(checkpoints: Iterable[Path]) -> None:
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint, ignore_errors=True)


def _seconds(marker: Path) -> float:
    """Of training before a checkpoint; 0 where nothing is noted."""
    try:
        seconds = json.loads(marker.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0.0
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _checksums(marker: Path) -> Mapping[str, object]:
    """Of the files of a checkpoint; none in one of a version that wrote none, and a wrong one where none can be read."""
    try:
        content = marker.read_text(encoding="utf-8")
        checksums = json.loads(content)["sha256"] if content else {}
        return dict(checksums)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {marker.name: None}
