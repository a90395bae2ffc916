"""The folder of a run: what is where, what is written first, and what happens to an older run of the same name.

Imported by cli, distillation.pipeline, distillation.student_run, distillation.sweep and distillation.teacher_run;
imports config, evaluation and presets.
"""

import json
import os
import platform
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from mtdistill.config import RunConfig, dump_toml, read_toml
from mtdistill.errors import ConfigError
from mtdistill.evaluation.speed import cpu_name
from mtdistill.files import refusal_of, write_atomically
from mtdistill.messages import tr
from mtdistill.presets import load_preset

_PACKAGES = ("mtdistill", "torch", "transformers", "tokenizers", "ctranslate2", "datasets", "sacrebleu", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Holds the students and what is needed to resume."""
        return self.path / "checkpoints"

    @property
    def best_bundle(self) -> Path:
        """The best student as one file."""
        return self.checkpoints / "student_best.pt"

    @property
    def best_folder(self) -> Path:
        """The best student as a Hugging Face folder."""
        return self.checkpoints / "student_best"

    @property
    def report(self) -> Path:
        """The report card."""
        return self.path / "report.json"


def run_folder(config: RunConfig) -> RunFolder:
    """Where a run with these settings lives."""
    return RunFolder(Path(config.output) / f"distillation-{config.run_name}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes into a run folder while the block lasts; the lock ends with its process, however it ends.

    Raises:
        ConfigError: another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            tr(
                en=f"another run is writing into this folder: {folder}. Wait for it, stop it, or choose another --output.",
                zh=f"另一个训练任务正在写入该文件夹：{folder}。请等待它结束、停止它，或换一个 --output。",
            )
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def says_what_the_disk_said(folder: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written, anywhere in the block, into a message.

    Files are written beside their final place, so what was whole stays whole.

    Raises:
        ConfigError: the system refused to write.
    """
    try:
        yield
    except Exception as error:
        if refusal_of(error) is None:
            raise
        told = str(error)
        raise ConfigError(
            tr(
                en=f"the disk refused to write: got {told}, in {folder}. What was saved before is kept. Free some disk or "
                "make it writable, then go on with --resume.",
                zh=f"磁盘拒绝写入：{told}，位于 {folder}。之前保存的内容都在。请腾出磁盘空间或设为可写，然后用 --resume 继续。",
            )
        ) from error


def start_run(config: RunConfig) -> tuple[RunFolder, Path | None]:
    """A fresh run folder; an older run of this name is kept under a name with its time.

    Returns:
        The folder, and where the older run went.

    Raises:
        ConfigError: the folder cannot be written.
    """
    run = run_folder(config)
    older: Path | None = None
    try:
        if run.path.exists():
            older = _name_for_older(run.path)
            run.path.rename(older)
        run.path.mkdir(parents=True)
        write_atomically(run.path / "config.toml", dump_toml(config))
        write_atomically(run.path / "environment.json", json.dumps(environment(), ensure_ascii=False, indent=2))
    except OSError as error:
        raise _unwritable(run.path, error) from error
    return run, older


def resume_run(config: RunConfig) -> tuple[RunFolder, RunConfig]:
    """The folder and the settings of an interrupted run.

    Raises:
        ConfigError: there is nothing to resume, or the settings asked for are not those of the run.
    """
    run = run_folder(config)
    if not (run.path / "config.toml").is_file():
        raise ConfigError(
            tr(
                en=f"there is no run to resume: got {run.path}. Start one without --resume.",
                zh=f"没有可以继续的训练：{run.path}。请去掉 --resume 重新开始。",
            )
        )
    # A run folder may be moved, and the same one can be named in more than one way.
    stored = read_toml(run.path / "config.toml").model_copy(update={"output": config.output})
    if stored != config:
        ours, theirs = config.model_dump(), stored.model_dump()
        changed = [f"{a}.{b}" for a in ours if isinstance(ours[a], dict) for b in ours[a] if ours[a][b] != theirs[a][b]]
        raise ConfigError(
            tr(
                en=f"a run is resumed with the settings it was started with; different now: {', '.join(changed)}. "
                "Use the same --set options, or start anew without --resume.",
                zh=f"继续训练时必须使用开始时的设置；现在不同的有：{'、'.join(changed)}。"
                "请使用相同的 --set 选项，或去掉 --resume 重新开始。",
            )
        )
    return run, stored


def has_begun(config: RunConfig) -> bool:
    """Whether the run folder holds a run of exactly these settings."""
    try:
        resume_run(config)
    except ConfigError:
        return False
    return True


def resume_command(config: RunConfig, *, compare_random: bool = False) -> str:
    """What to type to go on with an interrupted run, its changed settings included."""
    return distill_command(config, "--resume", *(["--compare-random"] if compare_random else []))


def distill_command(config: RunConfig, *options: str) -> str:
    """What to type for a run with these settings: the preset, the options, and every setting that is not the preset's."""
    changes = (f"--set {shlex.quote(change)}" for change in changed_settings(config))
    return " ".join(["mtdistill", "distill", config.preset, *options, *changes])


def changed_settings(config: RunConfig) -> list[str]:
    """Every setting that is not the preset's, as ``section.key=value``."""
    changed = []
    usual, given = load_preset(config.preset).config.model_dump(), config.model_dump()
    for section, values in given.items():
        parts = values.items() if isinstance(values, dict) else [("", values)]
        for key, value in parts:
            name, before = (f"{section}.{key}", usual[section][key]) if key else (section, usual[section])
            if value != before:
                text = (
                    "none"
                    if value is None
                    else value
                    if isinstance(value, str)
                    else json.dumps(value, ensure_ascii=False)
                )
                changed.append(f"{name}={text}")
    return changed


def environment() -> dict[str, object]:
    """Versions and machine that results were made with."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        tr(
            en=f"the run folder cannot be written: got {folder} ({error.strerror}). Choose another --output.",
            zh=f"无法写入训练文件夹：{folder}（{error.strerror}）。请换一个 --output。",
        )
    )


def _name_for_older(folder: Path) -> Path:
    """A free name with the time of the last change; two runs may end within a second."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(folder.stat().st_mtime))
    free, number = folder.with_name(f"{folder.name}-{stamp}"), 1
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{stamp}-{number}")
    return free
