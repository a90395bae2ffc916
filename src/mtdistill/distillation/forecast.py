"""What a run will cost on this machine, from a few real updates: time, memory and disk.

Imported by the command line; imports the pipeline.
"""

import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mtdistill.config import RunConfig
from mtdistill.data.batches import LengthBucketBatches, token_lengths
from mtdistill.decoding import CTranslate2Translator
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.construction import plan_student
from mtdistill.distillation.pipeline import Materials
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.modeling import use_fast_kernels
from mtdistill.student.slicing import build_student
from mtdistill.teacher.targets import LiveTargets

CALIBRATION_UPDATES = 20
_WARM_UP = 3  # updates before the clock starts: first calls allocate memory and choose kernels
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
    schedule = training_schedule(training)
    model = use_fast_kernels(build_student(teacher.model, plan_student(config, teacher), None, "random").model)
    parameters = sum(weight.numel() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as scratch:
        trainer = DistillationTrainer(
            model, LiveTargets(use_fast_kernels(teacher.model)), config.kd, rows, schedule, Path(scratch), lambda _: {}
        )
        trainer.create_scheduler(num_training_steps=CALIBRATION_UPDATES)
        model.train()
        # A whole epoch in steps, so that short and long batches are as frequent as in training.
        order = list(LengthBucketBatches(token_lengths(rows), schedule.batch_size, schedule.seed))
        wanted = (CALIBRATION_UPDATES + _WARM_UP) * schedule.gradient_accumulation
        batches = (order * math.ceil(wanted / len(order)))[:wanted]
        started = time.perf_counter()
        for number, indices in enumerate(batches):
            if number == _WARM_UP * schedule.gradient_accumulation:
                started = time.perf_counter()
            trainer.compute_loss(model, trainer.data_collator(rows.select(indices).to_list())).backward()
            if (number + 1) % schedule.gradient_accumulation == 0:
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()
        per_update = (time.perf_counter() - started) / CALIBRATION_UPDATES
    sources = data.evaluation_set("validation", 50).sources
    translator = CTranslate2Translator.from_model(
        teacher.model, teacher.tokenizer, source_lang=data.source_lang, threads=materials.threads
    )
    started = time.perf_counter()
    translator.translate(sources)
    per_sentence = (time.perf_counter() - started) / len(sources)
    updates = schedule.updates(len(rows))
    seconds = (
        updates * per_update
        + training.evaluations * training.validation_sentences * per_sentence
        + data.manifest.sizes["test"] * _REPORT_SECONDS_PER_SENTENCE
    )
    disk = parameters * 4 * (_STATES * training.checkpoints_kept + 2) / 2**20
    return Forecast(seconds / 60, _peak_memory_gib(), disk, per_update, updates)


def _peak_memory_gib() -> float:
    """Largest memory of this process so far; 0 on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere
