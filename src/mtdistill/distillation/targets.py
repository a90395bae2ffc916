"""Whether a run's teacher runs live or once: `teacher.targets`, decided and carried out.

Imported by cli, distillation.forecast, distillation.roofline and distillation.student_run; imports config, health,
teacher and training.
"""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
from transformers import T5ForConditionalGeneration

from mtdistill.config import RunConfig
from mtdistill.display import Display
from mtdistill.health.finding import Finding
from mtdistill.health.journal import Journal
from mtdistill.health.wording import explain
from mtdistill.messages import tr
from mtdistill.teacher.cache_manifest import MANIFEST, drop_damaged
from mtdistill.teacher.state_cache import CachedTargets, build_cache, cache_bytes, cache_folder, cache_parts
from mtdistill.teacher.targets import LiveTargets, TargetSource
from mtdistill.training.engine import Engine, Workers

# Disk that must stay free beside the cache: checkpoints and the system want some too.
SPARE_BYTES = 2**30


def cache_root(config: RunConfig) -> Path:
    """The folder of all caches."""
    return Path(config.output) / "cache"


def choose_targets(config: RunConfig, teacher: T5ForConditionalGeneration, rows: datasets.Dataset, engine: Engine,
                   display: Display, journal: Journal | None = None) -> TargetSource:  # fmt: skip
    """The teacher's states as the settings want them, stored first if need be.

    Args:
        config: `teacher.targets` decides, "auto" by `cache_pays`.
        teacher: the live one.
        rows: what is trained on.
        engine: what it runs with.
        display: shows the pass over the data.
        journal: told about a damaged cache; None: the display is.

    Raises:
        CacheError: the cache cannot be written.
    """
    live = LiveTargets(teacher, engine)
    if not stores_targets(config, live, rows):
        return live
    return stored_targets(config, teacher, rows, engine, display, journal)


def stores_targets(config: RunConfig, live: LiveTargets, rows: datasets.Dataset) -> bool:
    """Whether a run stores the states: as `teacher.targets` says, "auto" by `cache_pays`."""
    wanted = config.teacher.targets
    return wanted == "cached" or (wanted == "auto" and cache_pays(config, live, rows))


def cache_pays(config: RunConfig, live: LiveTargets, rows: datasets.Dataset) -> bool:
    """Whether storing saves time, and there is room.

    It costs one pass of the teacher over every pair, and running live one each time that a pair is trained on.
    What is there already needs no room: a resumed run goes on with the states it has stored.
    """
    taking_turns = 1 + config.teacher.pseudo_targets if config.teacher.pseudo_targets_take_turns else 1
    if config.training.epochs <= taking_turns:
        return False
    length, root = config.training.max_sequence_length, cache_root(config)
    if free_bytes(root) > cache_bytes(rows, length, live.head.shape[1]) + SPARE_BYTES:
        return True
    return (cache_folder(root, _parts(config, live, rows)) / MANIFEST).is_file()


def stored_targets(config: RunConfig, teacher: T5ForConditionalGeneration, rows: datasets.Dataset, engine: Engine,
                   display: Display, journal: Journal | None = None) -> CachedTargets:  # fmt: skip
    """The cache for these rows, built where it is missing or damaged, with a progress bar.

    An older cache is compared with its checksums first: a state that a disk has changed would be trained on silently.
    """
    live = LiveTargets(teacher, engine)
    parts = _parts(config, live, rows)
    folder = cache_folder(cache_root(config), parts)
    if damaged := drop_damaged(folder):
        figures, example = {"files": len(damaged)}, ", ".join(damaged)
        finding = Finding("damaged_cache", "failure", 0, figures, example, action="rebuilt")
        if journal is None:
            display.say(explain(finding))
        else:
            journal.record(finding)
    workers = Workers(engine.parts, engine.threads_per_part)
    with closing(workers), display.bar(tr(en="teacher states", zh="教师状态"), len(rows)) as bar:
        targets = build_cache(folder, parts, rows, live, workers, lambda done, _: bar.advance_to(done))
    size = f"{targets.manifest.mib:.0f} MiB"
    display.say(tr(en=f"teacher states: {folder} ({size})", zh=f"教师状态：{folder}（{size}）"))
    return targets


def _parts(config: RunConfig, live: LiveTargets, rows: datasets.Dataset) -> dict[str, Any]:
    precision = str(live.head.dtype).removeprefix("torch.")
    return cache_parts(live.teacher, rows, config.training.max_sequence_length, precision)


def free_bytes(folder: Path) -> int:
    """Free disk where a folder is, or would be."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(there).free
