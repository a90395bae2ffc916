"""A run from data to report card: what `mtdistill distill` does.

Reads: a teacher and text. Writes: the run folder (see `mtdistill.distillation.run_folder` and docs/files.md).
Imported by the command line and the package root.
"""

import gc
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import T5ForConditionalGeneration
from transformers.integrations import TensorBoardCallback

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.batches import PackedRows, truncated_ratio
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.decoding import CTranslate2Translator
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.construction import start_student
from mtdistill.distillation.measuring import report_card, test_split, write_reports
from mtdistill.distillation.preflight import check_pairs, check_teacher, check_training
from mtdistill.distillation.probe import PROBED_SENTENCES, Probe
from mtdistill.distillation.run_folder import RunFolder, resume_run, start_run
from mtdistill.distillation.summaries import data_summary, engine_summary, start_summary
from mtdistill.distillation.targets import choose_targets, free_bytes
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import TrainingFailedError
from mtdistill.evaluation import corpus_quality
from mtdistill.evaluation.validation import ValidationScorer
from mtdistill.files import write_atomically
from mtdistill.health.journal import HEALTH_FILE, Journal
from mtdistill.health.monitor import Monitor, Stop
from mtdistill.health.wording import explain
from mtdistill.messages import tr
from mtdistill.report import ReportCard
from mtdistill.student.bundle import Student, load_student, save_bundle, save_folder
from mtdistill.student.loading import FoundModel
from mtdistill.teacher.loading import Teacher, load_teacher
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.callbacks import MetricsFile, ProgressDisplay, SampleTranslations, latest_checkpoint
from mtdistill.training.engine import Engine, engines, prepare_processor

RANDOM_BASELINE = "random-baseline"


@dataclass(frozen=True)
class Trained:
    """A finished training: the best student on disk, its validation scores, and how long it took.

    Attributes:
        stopped: why it ended early as failed; None where it came to its end.
    """

    student: Student
    folder: Path
    scores: Mapping[str, float]
    seconds: float
    stopped: str | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its folder, the best student in it, the report card, and the seconds it took."""

    folder: Path
    student_path: Path
    report: ReportCard
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
    prepare_processor(threads)
    teacher = load_teacher(config.teacher.path)
    data = prepare_data(config.data, Path(config.output) / "data", teacher.tokenizer, display.say)
    display.say(data_summary(data))
    bleu = check_teacher(teacher, data, config.teacher, threads)
    display.say(
        tr(
            en=f"teacher: {teacher.folder.name}, BLEU {bleu:.1f} on the first validation sentences",
            zh=f"教师模型：{teacher.folder.name}，在前若干验证句上 BLEU 为 {bleu:.1f}",
        )
    )
    return Materials(teacher, data, threads)


def distill(
    config: RunConfig,
    display: Display | None = None,
    *,
    materials: Materials | None = None,
    resume: bool = False,
    compare_random: bool = False,
) -> RunResult:
    """Distil a student and measure it on the test split.

    Args:
        config: a preset's settings, perhaps with overrides.
        display: where progress goes; None: nowhere.
        materials: from `prepare_materials`, when they are there already.
        resume: go on with the interrupted run in the same folder; the settings must be the same.
        compare_random: train the same student from random weights too, with the same budget.

    Raises:
        MtdistillError: one of its kinds, with what to do (see `mtdistill.errors`).
    """
    display = display or Display()
    started = time.monotonic()
    materials = materials or prepare_materials(config, display)
    if resume:
        run, config = resume_run(config)
    else:
        run, older = start_run(config)
        if older:
            display.say(tr(en=f"an earlier run was kept as {older}", zh=f"之前的训练已保留在 {older}"))
    trained = train_student(config, materials, run, display, resume=resume)
    random_bleu = _random_baseline(config, materials, run, display, resume=resume) if compare_random else None
    model = FoundModel(run.best_bundle, "PyTorch", trained.student.info, trained.student)
    card = report_card(
        model,
        materials.teacher,
        test_split(materials.data),
        config,
        display,
        thorough=False,
        training_seconds=trained.seconds,
        random_bleu=random_bleu,
    )
    if trained.stopped:
        card = card.model_copy(update={"verdict": "failed"})
    write_reports(card, run.path)
    if trained.stopped:
        raise TrainingFailedError(
            tr(
                en=f"training failed: {trained.stopped} The best student is in {run.best_bundle}, its report in {run.report}",
                zh=f"训练失败：{trained.stopped}目前最好的学生模型在 {run.best_bundle}，成绩单在 {run.report}",
            )
        )
    if card.verdict == "failed":
        raise TrainingFailedError(
            tr(
                en=f"the student is not usable: {card.success.rate:.0%} of its translations succeed, BLEU "
                f"{card.quality.student.bleu:.1f}. Lower training.learning_rate or raise kd.temperature. "
                f"Report: {run.report}",
                zh=f"学生模型不可用：只有 {card.success.rate:.0%} 的译文成功，BLEU 为 {card.quality.student.bleu:.1f}。"
                f"请降低 training.learning_rate 或提高 kd.temperature。成绩单：{run.report}",
            )
        )
    return RunResult(run.path, run.best_bundle, card, time.monotonic() - started)


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
    checkpoint = latest_checkpoint(run.checkpoints) if resume else None
    if checkpoint is None:
        journal.begin(0)
    live = LiveTargets(teacher.model)
    check_pairs(live, teacher.model, rows, limit, journal)

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

    candidates = engines(config.training.precision, materials.threads)
    if resume and run.engine.is_file():  # another number format or cut would round differently
        candidates = [Engine(**json.loads(run.engine.read_text(encoding="utf-8")))]
    targets = choose_targets(config, teacher.model, rows, candidates[0], display, journal)
    schedule = training_schedule(config.training)
    held_out = data.split("validation")
    probed = PackedRows(held_out, limit).batch(list(range(min(len(held_out), PROBED_SENTENCES))))
    monitor = Monitor(
        journal, schedule.updates(len(rows)), schedule.max_gradient_norm, recover=config.training.recovery
    )
    trainer = DistillationTrainer(
        student.build.model,
        targets,
        config.kd,
        rows,
        schedule,
        run.checkpoints,
        scorer,
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
    )
    if trainer.engine.fused:
        engine = trainer.use_fastest(candidates)
        write_atomically(run.engine, json.dumps(asdict(engine)))
        display.say(engine_summary(engine))
    check_training(trainer, rows, free_bytes(run.path), journal)
    if checkpoint is None:
        model = student.build.model.eval()
        some = PackedRows(rows, limit).batch(list(range(0, len(rows), -(-len(rows) // PROBED_SENTENCES))))
        monitor.begin(Probe(some, live)(model, config.kd, trainer.temperature).loss)
        monitor.evaluated(0, None, trainer.probe(model))
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
    del trainer
    gc.collect()
    loaded = load_student(run.best_bundle)
    return Trained(loaded, run.best_bundle, loaded.info["validation"], time.monotonic() - started, stopped)


def _random_baseline(
    config: RunConfig, materials: Materials, run: RunFolder, display: Display, *, resume: bool
) -> float:
    """Test BLEU of the same student, trained in the same way from random weights."""
    display.say(
        tr(en="the same student from random weights, for comparison", zh="作为对照：从随机权重训练同样的学生模型")
    )
    settings = apply_overrides(config, ["student.initialisation=random"])
    trained = train_student(settings, materials, RunFolder(run.path / RANDOM_BASELINE), display, resume=resume)
    data, sentences = materials.data, materials.data.evaluation_set("test")
    translator = CTranslate2Translator.from_model(
        trained.student.model, trained.student.tokenizer, source_lang=data.source_lang, threads=materials.threads
    )
    texts = [translation.text for translation in translator.translate(sentences.sources)]
    return corpus_quality(texts, sentences.references, data.target_lang).bleu
