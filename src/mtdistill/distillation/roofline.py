"""How close training comes to what this machine can multiply: `mtdistill bench training`.

Imported by cli; imports config, data, evaluation, modeling, training and its neighbours.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration

from mtdistill.config import RunConfig
from mtdistill.data.batches import PackedBatch
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows
from mtdistill.distillation.construction import rehearsal_student
from mtdistill.distillation.forecast import peak_memory_gib
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pieces import pieces_by_turns
from mtdistill.distillation.targets import choose_targets
from mtdistill.distillation.trainer import rehearsal_trainer
from mtdistill.errors import ConfigError
from mtdistill.evaluation.speed import cpu_name
from mtdistill.evaluation.validation import ValidationScorer
from mtdistill.messages import tr
from mtdistill.modeling.packed import ROW_MULTIPLE
from mtdistill.training.engine import Engine, Workers, engines
from mtdistill.training.rehearsal import rehearse

_PEAK_REPEATS = 20
# One matrix product: rows, inner width, columns, and how often a step does it (forward, and twice for its gradients).
Product = tuple[int, int, int, int]


@dataclass(frozen=True)
class TrainingBench:
    """What whole training steps achieve, and under which conditions.

    Attributes:
        tokens_per_second: target tokens, without padding.
        seconds_per_update: mean of whole updates, data and optimizer included.
        phases: milliseconds of an update by phase; those of parts that run side by side are averaged.
        gigaflop_per_update: floating-point operations of the matrix products, a multiply-add counted as two.
        achieved_gflops: those per second, over whole updates.
        peak_gflops: the same products alone, repeated in warm caches, in the same number format and threads.
        peak_share: achieved / peak.
        evaluation_seconds: one validation score.
        peak_memory_gib: of this process.
    """

    preset: str
    updates: int
    tokens_per_second: float
    seconds_per_update: float
    phases: dict[str, float]
    gigaflop_per_update: float
    achieved_gflops: float
    peak_gflops: float
    peak_share: float
    evaluation_seconds: float
    peak_memory_gib: float
    targets: str
    engine: dict[str, object]
    threads: int
    cpu: str


def bench_training(config: RunConfig, materials: Materials, updates: int, display: Display) -> TrainingBench:
    """Time updates of a student of these settings on its real batches.

    The student has random weights, because its values do not change what an update costs.

    Args:
        config: settings of a run.
        materials: teacher and data.
        updates: how many are timed, > 0.
        display: shows a bar.

    Raises:
        ConfigError: the fused kernels do not cover this machine or model.
    """
    teacher, training = materials.teacher, config.training
    rows = training_rows(materials.data, training)
    candidates = engines(training.precision, materials.threads)
    targets = choose_targets(config, teacher.model, rows, candidates[0], display)
    model = rehearsal_student(config, teacher)
    with tempfile.TemporaryDirectory() as scratch:
        pieces = pieces_by_turns(teacher, materials.data, rows, config.kd.other_pieces_every)
        trainer = rehearsal_trainer(config, model, targets, rows, Path(scratch), candidates[0], pieces)
        if not trainer.engine.fused:
            raise ConfigError(
                tr(
                    en="there is nothing to measure: the fused kernels need a CPU, one process and a plain T5.",
                    zh="没有可测量的内容：融合内核需要 CPU、单个进程和普通的 T5 模型。",
                )
            )
        engine = trainer.use_fastest(candidates)
        with display.bar(tr(en="updates, half of them to warm up", zh="更新（一半用于预热）"), 2 * updates) as bar:
            rehearsed = rehearse(trainer, updates, bar.advance_to)
    batches, seconds = rehearsed.batches, rehearsed.seconds
    vocabulary = len(pieces.at(0).ids) if pieces else model.config.vocab_size
    products = [_products(model, teacher.model, batch, engine, vocabulary) for batch in batches]
    flops = sum(_flops(each) * engine.parts for each in products)
    return TrainingBench(
        preset=config.preset,
        updates=updates,
        tokens_per_second=sum(len(batch.labels) for batch in batches) / seconds,
        seconds_per_update=seconds / updates,
        phases=_milliseconds(trainer.phases.seconds, engine.parts, updates),
        gigaflop_per_update=flops / updates / 1e9,
        achieved_gflops=flops / seconds / 1e9,
        peak_gflops=(peak := _peak(_typical(products), engine)),
        peak_share=flops / seconds / 1e9 / peak,
        evaluation_seconds=_evaluation_seconds(config, materials, model),
        peak_memory_gib=peak_memory_gib(),
        targets=type(targets).__name__,
        engine=asdict(engine),
        threads=materials.threads,
        cpu=cpu_name(),
    )


def _milliseconds(seconds: dict[str, float], parts: int, updates: int) -> dict[str, float]:
    alone = ("data", "optimizer")
    found = {name: value / (1 if name in alone else parts) / updates * 1e3 for name, value in seconds.items()}
    found["loss"] -= found.get("teacher", 0.0)  # which is measured inside
    return found


def _products(student: T5ForConditionalGeneration, teacher: T5ForConditionalGeneration, batch: PackedBatch,
              engine: Engine, vocabulary: int) -> list[Product]:  # fmt: skip
    """The matrix products of one of the equal parts of a batch."""
    config, inner = student.config, student.config.num_heads * student.config.d_kv
    width, hidden = config.d_model, config.d_ff
    source, target = (max(1, len(ids) // engine.parts) for ids in (batch.source_ids, batch.labels))
    encoder, decoder = config.num_layers, config.num_decoder_layers
    return [
        (source, width, 3 * inner, 3 * encoder),
        (source, inner, width, 3 * encoder),
        (source, width, hidden, 3 * encoder),
        (source, hidden, width, 3 * encoder),
        (target, width, 3 * inner, 3 * decoder),
        (target, inner, width, 2 * 3 * decoder),
        (target, width, inner, 3 * decoder),
        (source, width, 2 * inner, 3 * decoder),
        (target, width, hidden, 3 * decoder),
        (target, hidden, width, 3 * decoder),
        (target, width, vocabulary, 3),
        (target, teacher.config.d_model, vocabulary, 1),
    ]


def _flops(products: Sequence[Product]) -> float:
    return float(sum(2 * rows * inner * columns * times for rows, inner, columns, times in products))


def _typical(products: Sequence[Sequence[Product]]) -> list[Product]:
    """Those of the median batch by cost."""
    return list(sorted(products, key=_flops)[len(products) // 2])


def _peak(products: Sequence[Product], engine: Engine) -> float:
    """GFLOP/s of the products alone, on all parts at once; each at its best of some repetitions."""
    workers = Workers(engine.parts, engine.threads_per_part)

    def seconds(_part: int) -> float:
        total = 0.0
        for rows, inner, columns, times in products:
            rows = -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
            left, right = torch.ones(rows, inner, dtype=engine.dtype), torch.ones(columns, inner, dtype=engine.dtype)
            best = float("inf")
            for _ in range(_PEAK_REPEATS):
                started = time.perf_counter()
                left @ right.T
                best = min(best, time.perf_counter() - started)
            total += best * times
        return total

    slowest = max(workers.map(seconds, engine.parts))
    workers.close()
    return _flops(products) * engine.parts / slowest / 1e9


def _evaluation_seconds(config: RunConfig, materials: Materials, model: T5ForConditionalGeneration) -> float:
    data = materials.data
    sentences = data.evaluation_set("validation", config.training.validation_sentences)
    scorer = ValidationScorer(
        materials.teacher.tokenizer, data.source_lang, data.target_lang, sentences.sources, sentences.references,
        threads=materials.threads,
    )  # fmt: skip
    started = time.perf_counter()
    scorer.translate(materials.teacher.model)  # a random student would run into the length cap
    return time.perf_counter() - started
