"""The training of one student: built, checked, trained under watch, the best one on disk.

Imported by distillation.pipeline; imports config, data, evaluation, health, student, teacher, training and its
neighbours.
"""

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import T5ForConditionalGeneration
from transformers.integrations import TensorBoardCallback

from mtdistill.config import RunConfig
from mtdistill.data.batches import PackedRows, token_lengths, truncated_ratio
from mtdistill.display import Display
from mtdistill.distillation.budget import pairs_per_epoch, training_rows, training_schedule
from mtdistill.distillation.construction import start_student
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pieces import pieces_by_turns
from mtdistill.distillation.preflight import check_pairs, check_training
from mtdistill.distillation.probe import PROBED_SENTENCES, Probe
from mtdistill.distillation.pseudo_rows import with_pseudo_targets
from mtdistill.distillation.run_folder import RunFolder
from mtdistill.distillation.summaries import engine_summary, start_summary
from mtdistill.distillation.targets import choose_targets, free_bytes
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import CheckpointError, TrainingFailedError
from mtdistill.evaluation.validation import ValidationScorer
from mtdistill.files import clear_leftovers
from mtdistill.health.journal import HEALTH_FILE, Journal
from mtdistill.health.monitor import Monitor, Stop
from mtdistill.health.wording import explain
from mtdistill.messages import tr
from mtdistill.student.bundle import Student, load_student, save_bundle, save_folder
from mtdistill.teacher.state_cache import model_fingerprint
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.beginning import note_beginning
from mtdistill.training.callbacks import MetricsFile, ProgressDisplay, SampleTranslations
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.engine import engines
from mtdistill.training.stored_engine import store_engine, stored_engine


@dataclass(frozen=True)
class Trained:
    """A finished training: the best student on disk, its validation scores, and how long it took.

    Attributes:
        seconds: of training in all processes that worked on it, and of the last one's preparations.
        stopped: why it ended early as failed; None where it came to its end.
    """

    student: Student
    scores: Mapping[str, float]
    seconds: float
    stopped: str | None = None


def train_student(
    config: RunConfig, materials: Materials, run: RunFolder, display: Display, *, resume: bool = False
) -> Trained:
    """Build and train one student; the best by validation chrF2 is on disk when this returns.

    Raises:
        StudentError: the student cannot be built.
        CheckpointError: a run to resume was begun with other text or another teacher, or is finished.
        TrainingFailedError: no usable student came out.
    """
    started = time.monotonic()
    teacher, data = materials.teacher, materials.data
    student = start_student(config, teacher, data)
    display.say(start_summary(student))
    sentences = data.evaluation_set("validation", config.training.validation_sentences)
    scorer = ValidationScorer(
        teacher.tokenizer, data.source_lang, data.target_lang, sentences.sources, sentences.references,
        threads=materials.threads,
    )  # fmt: skip
    scorer.teacher = scorer.translate(teacher.model)
    rows = training_rows(data, config.training)
    limit = config.training.max_sequence_length
    display.say(
        tr(
            en=f"training on {len(rows)} pairs; {truncated_ratio(rows, limit):.1%} are cut at {limit} tokens",
            zh=f"用 {len(rows)} 个句对训练；其中 {truncated_ratio(rows, limit):.1%} 在 {limit} 个词元处截断",
        )
    )
    writer = SummaryWriter(log_dir=str(run.path / "logs"))
    journal = Journal(run.path / HEALTH_FILE, display, writer)
    checkpoint = None
    if resume:
        for folder in (run.path, run.checkpoints):
            clear_leftovers(folder)
        checkpoint = latest_checkpoint(run.checkpoints, display)
        if checkpoint is None and run.report.is_file():
            raise CheckpointError(
                tr(
                    en=f"this run is finished and its checkpoints are gone: got {run.path}. Its student can be used; "
                    "without --resume one is trained anew, and this run is kept.",
                    zh=f"该训练已完成，检查点已不存在：{run.path}。其学生模型可以直接使用；"
                    "去掉 --resume 会重新训练，并保留这次的结果。",
                )
            )
    begun_with = {"data": data.manifest.identity, "teacher": model_fingerprint(teacher.model)}
    note_beginning(run.path, begun_with, resumed=checkpoint is not None)
    if checkpoint is None:
        journal.begin(0)
    live = LiveTargets(teacher.model)
    check_pairs(live, teacher.model, rows, limit, journal)
    gold = len(rows)
    rows = with_pseudo_targets(config, materials, rows, display)

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

    stored = stored_engine(run.path) if resume else None
    candidates = [stored] if stored else engines(config.training.precision, materials.threads)
    targets = choose_targets(config, teacher.model, rows, candidates[0], display, journal)
    schedule = training_schedule(config.training, pairs_per_epoch(config, gold))
    held_out = data.split("validation")
    probed = PackedRows(held_out, limit).batch(list(range(min(len(held_out), PROBED_SENTENCES))))
    updates = schedule.updates(len(rows))
    tokens = float(token_lengths(rows)[:, 1].clip(max=limit).mean())
    monitor = Monitor(
        journal,
        updates,
        schedule.max_gradient_norm,
        recover=config.training.recovery,
        tokens_per_update=tokens * (schedule.per_epoch or len(rows)) * schedule.epochs / updates,
    )
    pieces = pieces_by_turns(teacher, data, rows, config.kd.other_pieces_every)
    trainer = DistillationTrainer(
        student.build.model,
        targets,
        config.kd,
        rows,
        schedule,
        run.checkpoints,
        scorer,
        readout=student.build.readout,
        pieces=pieces,
        save_best=save_best,
        callbacks=[
            TensorBoardCallback(writer),
            SampleTranslations(writer, scorer),
            MetricsFile(run.path / "metrics.jsonl"),
            ProgressDisplay(display, tr(en="training", zh="训练")),
        ],
        probe=Probe(probed, live),
        outputs=lambda: scorer.outputs,
        monitor=monitor,
        engine=candidates[0],
        keep_engine=partial(store_engine, run.path),
    )
    if trainer.engine.fused:
        display.say(engine_summary(trainer.use_fastest(candidates)))
    else:
        store_engine(run.path, trainer.engine)
    check_training(trainer, rows, free_bytes(run.path), journal)
    if checkpoint is None:
        model = student.build.model.eval()
        some = PackedRows(rows, limit).batch(list(range(0, len(rows), -(-len(rows) // PROBED_SENTENCES))))
        before = Probe(some, live, pieces.at(0) if pieces else None)
        monitor.evaluated(0, None, trainer.probe(model))
        if monitor.memory.temperature is not None:
            monitor.evaluated(0, None, trainer.probe(model))  # at the new one
        with torch.random.fork_rng():  # with dropout, as the losses that it is compared with
            monitor.begin(before(model.train(), config.kd, trainer.temperature).loss)
    set_up = time.monotonic() - started
    stopped: str | None = None
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Stop as stop:
        stopped = explain(stop.finding)
    writer.close()
    if stopped and not run.best_bundle.is_file():
        raise TrainingFailedError(stopped)
    if not run.best_bundle.is_file():
        raise TrainingFailedError(
            tr(
                en="training ended without a usable student: no validation score was ever taken. Raise training.evaluations.",
                zh="训练结束但没有得到可用的学生模型：从未进行验证。请调大 training.evaluations。",
            )
        )
    seconds = set_up + trainer.checkpoints.seconds
    del trainer
    gc.collect()
    loaded = load_student(run.best_bundle)
    return Trained(loaded, loaded.info["validation"], seconds, stopped)
