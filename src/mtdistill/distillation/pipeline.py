"""A run from data to report card: what `mtdistill distill` does.

Reads: a teacher and text. Writes: the run folder (see `mtdistill.distillation.run_folder` and docs/files.md).
Imported by the command line and the package root.
"""

import dataclasses
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import T5ForConditionalGeneration
from transformers.integrations import TensorBoardCallback

from mtdistill.config import RunConfig, TrainingConfig
from mtdistill.data.batches import truncated_ratio
from mtdistill.data.prepared import EvaluationSet, PreparedData, prepare_data
from mtdistill.decoding import HuggingFaceTranslator, Translator
from mtdistill.display import Display, duration
from mtdistill.distillation.construction import StartedStudent, start_student
from mtdistill.distillation.preflight import check_teacher
from mtdistill.distillation.run_folder import RunFolder, resume_run, start_run
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import TrainingFailedError
from mtdistill.evaluation.validation import ValidationScorer
from mtdistill.messages import tr
from mtdistill.modeling import use_fast_kernels
from mtdistill.student.bundle import Student, load_student, save_bundle, save_folder
from mtdistill.teacher.loading import Teacher, load_teacher
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.callbacks import MetricsFile, ProgressDisplay, SampleTranslations, latest_checkpoint
from mtdistill.training.precision import uses_bfloat16
from mtdistill.training.trainer import Schedule

RANDOM_BASELINE = "random-baseline"


@dataclass(frozen=True)
class Trained:
    """A finished training: the best student on disk, its validation scores, and how long it took."""

    student: Student
    folder: Path
    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Materials:
    """What a run needs before the student: teacher, tokenised data, threads."""

    teacher: Teacher
    data: PreparedData
    threads: int


def prepare_materials(config: RunConfig, display: Display) -> Materials:
    """Load the teacher, prepare the data with its tokenizer, and check that they fit.

    Raises:
        TeacherError: the teacher is refused; the message says why.
        DataError: the data is unusable.
    """
    threads = config.training.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    teacher = load_teacher(config.teacher.path)
    data = prepare_data(config.data, Path(config.output) / "data", teacher.tokenizer, display.say)
    display.say(data_summary(data))
    bleu = check_teacher(teacher, data, config.teacher, threads)
    display.say(tr(
        en=f"teacher: {teacher.folder.name}, BLEU {bleu:.1f} on the first validation sentences",
        zh=f"教师模型：{teacher.folder.name}，在前若干验证句上 BLEU 为 {bleu:.1f}",
    ))
    return Materials(teacher, data, threads)


def train_student(
    config: RunConfig, materials: Materials, run: RunFolder, display: Display, *, resume: bool = False
) -> Trained:
    """Build and train one student; the best by validation BLEU is on disk when this returns.

    Raises:
        StudentError: the student cannot be built.
        TrainingFailedError: no usable student came out.
    """
    started = time.monotonic()
    teacher, data = materials.teacher, materials.data
    student = start_student(config, teacher, data)
    display.say(_start_summary(student))
    sentences = data.evaluation_set("validation", config.training.validation_sentences)
    scorer = ValidationScorer(
        teacher.tokenizer, data.source_lang, data.target_lang, sentences.sources, sentences.references,
        threads=materials.threads,
    )  # fmt: skip
    scorer.teacher = scorer.translate(teacher.model)
    rows = training_rows(data, config.training)
    limit = config.training.max_sequence_length
    display.say(tr(
        en=f"training on {len(rows)} pairs; {truncated_ratio(rows, limit):.1%} are cut at {limit} tokens",
        zh=f"用 {len(rows)} 个句对训练；其中 {truncated_ratio(rows, limit):.1%} 在 {limit} 个词元处截断",
    ))
    best: dict[str, float] = {}

    def save_best(model: T5ForConditionalGeneration, scores: Mapping[str, float]) -> None:
        info = {
            "source_lang": data.source_lang,
            "target_lang": data.target_lang,
            "config": config.model_dump(mode="json"),
            "blueprint": student.build.blueprint.to_dict(),
            "data": data.manifest.identity,
            "validation": dict(scores),
        }
        bundle = Student(model, teacher.tokenizer, info)
        save_folder(bundle, run.best_folder)
        save_bundle(bundle, run.best_bundle)
        best.update(scores)

    writer = SummaryWriter(log_dir=str(run.path / "logs"))
    trainer = DistillationTrainer(
        use_fast_kernels(_with_dropout(student.build.model, config.training.dropout)),
        LiveTargets(use_fast_kernels(teacher.model)),
        config.kd,
        rows,
        training_schedule(config.training),
        run.checkpoints,
        scorer,
        save_best=save_best,
        callbacks=[
            TensorBoardCallback(writer),
            SampleTranslations(writer, scorer),
            MetricsFile(run.path / "metrics.jsonl"),
            ProgressDisplay(display, tr(en="training", zh="训练")),
        ],
    )
    checkpoint = latest_checkpoint(run.checkpoints) if resume else None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    writer.close()
    if not run.best_bundle.is_file():
        raise TrainingFailedError(tr(
            en="training ended without a usable student: no validation score was ever taken. Raise training.evaluations.",
            zh="训练结束但没有得到可用的学生模型：从未进行验证。请调大 training.evaluations。",
        ))
    del trainer
    gc.collect()
    loaded = load_student(run.best_bundle)
    return Trained(loaded, run.best_bundle, loaded.info["validation"], time.monotonic() - started)


def training_schedule(training: TrainingConfig) -> Schedule:
    """The part of the settings that the shared trainer reads."""
    return Schedule(
        epochs=training.epochs,
        batch_size=training.batch_size,
        gradient_accumulation=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_sequence_length=training.max_sequence_length,
        embedding_learning_rate_ratio=training.embedding_learning_rate_ratio,
        warmup_ratio=training.warmup_ratio,
        max_gradient_norm=training.max_gradient_norm,
        ema_decay=training.ema_decay,
        evaluations=training.evaluations,
        checkpoints_kept=training.checkpoints_kept,
        seed=training.seed,
        bfloat16=uses_bfloat16(training.precision),
    )


def training_rows(data: PreparedData, training: TrainingConfig) -> datasets.Dataset:
    """The share of the training split that is used: the same sentences for the same seed."""
    rows = data.split("train")
    count = max(1, round(len(rows) * training.data_ratio))
    if count == len(rows):
        return rows
    chosen = np.random.default_rng(training.seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))


def data_summary(data: PreparedData) -> str:
    """What was read, kept, dropped and why, the splits, and the leakage between them."""
    manifest = data.manifest
    dropped = ", ".join(f"{name} {count}" for name, count in sorted(manifest.dropped.items())) or "0"
    sizes = ", ".join(f"{name} {count}" for name, count in manifest.sizes.items())
    return tr(
        en=f"data {data.source_lang}-{data.target_lang}: {manifest.read} pairs read, {manifest.kept} kept "
        f"(dropped: {dropped}); {sizes}\n"
        f"leakage: {manifest.leaked} held-out sentences in training "
        f"({manifest.removed_from_training} pairs were removed for that)",
        zh=f"数据 {data.source_lang}-{data.target_lang}：读入 {manifest.read} 对，保留 {manifest.kept} 对"
        f"（丢弃：{dropped}）；{sizes}\n"
        f"数据泄漏：训练集中有 {manifest.leaked} 个留出句子（为此移除了 {manifest.removed_from_training} 对）",
    )


def _start_summary(student: StartedStudent) -> str:
    build = student.build
    lines = [tr(en=f"student: {build.blueprint}", zh=f"学生模型：{build.blueprint}")]
    if student.start:
        energy = list(build.kept_energy.values())
        lines.append(tr(
            en=f"start ({build.initialisation}): divergence from the teacher {student.start.kl_student:.2f} nats per "
            f"token (random weights: {student.start.kl_random:.2f}); kept energy per site {min(energy):.0%} to "
            f"{max(energy):.0%}",
            zh=f"起点（{build.initialisation}）：与教师模型的散度为每词元 {student.start.kl_student:.2f} nat"
            f"（随机权重为 {student.start.kl_random:.2f}）；各处保留的能量为 {min(energy):.0%} 到 {max(energy):.0%}",
        ))
    return "\n".join(lines)


def _with_dropout(model: T5ForConditionalGeneration, rate: float) -> T5ForConditionalGeneration:
    model.config.dropout_rate = rate
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
    return model
