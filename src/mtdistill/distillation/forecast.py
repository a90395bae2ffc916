"""What a run will cost on this machine, from a few real updates: time, memory and disk.

Imported by cli and distillation.roofline; imports config, data, decoding, teacher, training and its neighbours.
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
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import CTranslate2Translator
from mtdistill.distillation.budget import pairs_per_epoch, training_rows
from mtdistill.distillation.candidates import choose, search_for
from mtdistill.distillation.construction import rehearsal_student
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pieces import pieces_by_turns
from mtdistill.distillation.targets import stores_targets
from mtdistill.distillation.trainer import DistillationTrainer, rehearsal_trainer
from mtdistill.teacher.state_cache import cache_bytes
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.engine import engines
from mtdistill.training.good_states import IN_MEMORY, state_bytes
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
        pieces = pieces_by_turns(teacher, data, rows, config.kd.other_pieces_every)
        trainer = rehearsal_trainer(config, model, targets, rows, Path(scratch), candidates[0], pieces)
        if trainer.engine.fused:
            trainer.use_fastest(candidates)
        per_update = rehearse(trainer, CALIBRATION_UPDATES).seconds / CALIBRATION_UPDATES
    per_pair = _seconds_per_stored_pair(live, trainer) if stored else 0.0
    sample = data.evaluation_set("validation", 50)
    translator = materials.teacher_translator()
    started = time.perf_counter()
    translator.translate(sample.sources)
    per_sentence = (time.perf_counter() - started) / len(sample)
    sources = len(rows.unique("source"))
    per_source, new_per_source = _pseudo_targets(translator, sample, data.target_lang, config.teacher.pseudo_targets)
    pairs = len(rows) + round(new_per_source * sources)
    updates = trainer.schedule.updates(pairs_per_epoch(config, len(rows)) or pairs)
    seconds = (
        updates * per_update
        + pairs * per_pair
        + sources * per_source
        + training.evaluations * training.validation_sentences * per_sentence
        + data.manifest.sizes["test"] * _REPORT_SECONDS_PER_SENTENCE
    )
    disk = parameters * 4 * (_STATES * training.checkpoints_kept + 2)
    if stored:
        disk += pairs / len(rows) * cache_bytes(rows, training.max_sequence_length, live.head.shape[1])
    good_states = IN_MEMORY * state_bytes(parameters, averaged=training.ema_decay is not None)
    return Forecast(seconds / 60, peak_memory_gib() + good_states / 2**30, disk / 2**20, per_update, updates)


class _Zeros:
    """Stands for stored states: reading them costs next to nothing, and their values do not change what an update costs."""

    def __init__(self, live: LiveTargets) -> None:
        self.head = live.head

    def states(self, batch: PackedBatch) -> Tensor:
        zeros: Tensor = self.head.new_zeros(len(batch.labels), self.head.shape[1])
        return zeros


def _pseudo_targets(
    translator: CTranslate2Translator, sample: EvaluationSet, target_lang: str, kept: int
) -> tuple[float, float]:
    """Seconds that the pseudo-targets of a source take, and how many of them are new text, fit to be trained on."""
    if not kept:
        return 0.0, 0.0
    gold = dict(zip(sample.sources, sample.references, strict=True))
    started = time.perf_counter()
    choices = choose(list(gold.items()), translator, target_lang, search_for(kept))
    seconds = time.perf_counter() - started
    new = sum(each.failure is None and each.target not in gold[each.source] for each in choices)
    return seconds / len(sample), new / len(sample)


def _seconds_per_stored_pair(live: LiveTargets, trainer: DistillationTrainer) -> float:
    """What building the cache takes."""
    rows = trainer.train_dataset
    batch = rows.batch(list(range(min(len(rows), 256))))
    live.states(batch)
    started = time.perf_counter()
    live.states(batch)
    return (time.perf_counter() - started) / len(batch)


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
