"""What a run will cost on this machine, from a few real updates: time, memory and disk.

Imported by the command line; imports materials, construction, the trainer.
"""

import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from mtdistill.config import RunConfig
from mtdistill.data.batches import PackedBatch
from mtdistill.decoding import CTranslate2Translator
from mtdistill.distillation.budget import pairs_per_epoch, training_rows
from mtdistill.distillation.candidates import search_for
from mtdistill.distillation.construction import rehearsal_student
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.targets import stores_targets
from mtdistill.distillation.trainer import DistillationTrainer, rehearsal_trainer
from mtdistill.teacher.state_cache import cache_bytes
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.engine import engines
from mtdistill.training.rehearsal import rehearse

CALIBRATION_UPDATES = 20
_REPORT_SECONDS_PER_SENTENCE = 0.05  # measured on two cores, quick: 75 s for 1,491 sentences, all translators together
_STATES = 4  # copies of the weights in a checkpoint: weights, two moments, and an average or a spare


@dataclass(frozen=True)
class Forecast:
    """Expected cost of a run; one standard deviation of the time is about a fifth of it."""

    minutes: float
    memory_gib: float
    disk_mib: float
    seconds_per_update: float
    updates: int

    def as_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def forecast(config: RunConfig, materials: Materials) -> Forecast:
    """Time `CALIBRATION_UPDATES` real updates of a student of this shape, and multiply.

    The student has random weights, because its values do not change what an update costs.
    """
    teacher, data, training = materials.teacher, materials.data, config.training
    rows = training_rows(data, training)
    model = rehearsal_student(config, teacher)
    parameters = sum(weight.numel() for weight in model.parameters())
    candidates = engines(training.precision, materials.threads)
    live = LiveTargets(teacher.model, candidates[0])
    stored = stores_targets(config, live, rows)
    with tempfile.TemporaryDirectory() as scratch:
        targets = _Zeros(live) if stored else live
        trainer = rehearsal_trainer(config, model, targets, rows, Path(scratch), candidates[0])
        if trainer.engine.fused:
            trainer.use_fastest(candidates)
        per_update = rehearse(trainer, CALIBRATION_UPDATES).seconds / CALIBRATION_UPDATES
    per_teacher_pass = _seconds_per_teacher_pass(live, trainer) if stored else 0.0
    sources = data.evaluation_set("validation", 50).sources
    translator = materials.teacher_translator()
    started = time.perf_counter()
    translator.translate(sources)
    per_sentence = (time.perf_counter() - started) / len(sources)
    times = 1 + config.teacher.pseudo_targets  # fewer, where translations are gold texts or fail the checks
    updates = trainer.schedule.updates(pairs_per_epoch(config, len(rows)) or times * len(rows))
    seconds = (
        updates * per_update
        + times * per_teacher_pass
        + _seconds_per_search(translator, sources, config.teacher.pseudo_targets) * len(rows)
        + training.evaluations * training.validation_sentences * per_sentence
        + data.manifest.sizes["test"] * _REPORT_SECONDS_PER_SENTENCE
    )
    disk = parameters * 4 * (_STATES * training.checkpoints_kept + 2)
    if stored:
        disk += times * cache_bytes(rows, training.max_sequence_length, live.head.shape[1])
    return Forecast(seconds / 60, peak_memory_gib(), disk / 2**20, per_update, updates)


class _Zeros:
    """Stands for stored states: reading them costs next to nothing, and their values do not change what an update costs."""

    def __init__(self, live: LiveTargets) -> None:
        self.head = live.head

    def states(self, batch: PackedBatch) -> Tensor:
        zeros: Tensor = self.head.new_zeros(len(batch.labels), self.head.shape[1])
        return zeros


def _seconds_per_search(translator: CTranslate2Translator, sources: list[str], kept: int) -> float:
    """What the pseudo-targets of a source take."""
    if not kept:
        return 0.0
    search = search_for(kept)
    started = time.perf_counter()
    translator.candidates(sources, beam_size=search.beam_size, number=search.n_best)
    return (time.perf_counter() - started) / len(sources)


def _seconds_per_teacher_pass(live: LiveTargets, trainer: DistillationTrainer) -> float:
    """What building the cache takes."""
    rows = trainer.train_dataset
    batch = rows.batch(list(range(min(len(rows), 256))))
    live.states(batch)
    started = time.perf_counter()
    live.states(batch)
    return (time.perf_counter() - started) / len(batch) * len(rows)


def peak_memory_gib() -> float:
    """Largest memory of this process so far; 0 on Windows, which does not tell."""
    with suppress(OSError):
        # getrusage would begin with the peak of whatever process started this one.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere
