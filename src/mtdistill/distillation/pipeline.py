"""A run from data to report card: what `mtdistill distill` does.

Reads: a teacher and text. Writes: the run folder (see `mtdistill.distillation.run_folder` and docs/files.md). Imported
by cli, mtdistill and distillation.sweep; imports config, decoding, evaluation, report, student, training,
distillation.materials, distillation.measuring, distillation.run_folder and distillation.student_run.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.decoding import CTranslate2Translator
from mtdistill.display import Display
from mtdistill.distillation.materials import Materials, prepare_materials
from mtdistill.distillation.measuring import report_card, test_split, write_reports
from mtdistill.distillation.run_folder import (
    RunFolder,
    locked,
    resume_command,
    resume_run,
    run_folder,
    says_what_the_disk_said,
    start_run,
)
from mtdistill.distillation.student_run import train_student
from mtdistill.errors import TrainingFailedError
from mtdistill.evaluation import corpus_quality
from mtdistill.messages import tr
from mtdistill.report import ReportCard
from mtdistill.student.loading import FoundModel
from mtdistill.training.interruption import Interrupted

RANDOM_BASELINE = "random-baseline"


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its folder, the best student in it, the report card, and the seconds it took."""

    folder: Path
    student_path: Path
    report: ReportCard
    seconds: float


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
    with locked(run_folder(config).path), says_what_the_disk_said(Path(config.output)):
        try:
            return _distill(config, materials, display, started, resume=resume, compare_random=compare_random)
        except Interrupted:
            command = f"  {resume_command(config, compare_random=compare_random)}"
            display.say(
                tr(en=f"a checkpoint was written. Go on with:\n{command}", zh=f"检查点已保存。继续训练：\n{command}")
            )
            raise


def _distill(
    config: RunConfig, materials: Materials, display: Display, started: float, *, resume: bool, compare_random: bool
) -> RunResult:
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
    write_reports(card, run.path, display)
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


def _random_baseline(
    config: RunConfig, materials: Materials, run: RunFolder, display: Display, *, resume: bool
) -> float | None:
    """Test BLEU of the same student, trained in the same way from random weights; None where nothing usable comes of it."""
    display.say(
        tr(en="the same student from random weights, for comparison", zh="作为对照：从随机权重训练同样的学生模型")
    )
    settings = apply_overrides(config, ["student.initialisation=random"])
    try:
        trained = train_student(settings, materials, RunFolder(run.path / RANDOM_BASELINE), display, resume=resume)
    except TrainingFailedError as error:  # the student that is wanted is there, and gets its report
        display.say(str(error))
        return None
    data, sentences = materials.data, materials.data.evaluation_set("test")
    translator = CTranslate2Translator.from_model(
        trained.student.model,
        trained.student.tokenizer,
        source_lang=data.source_lang,
        target_lang=data.target_lang,
        threads=materials.threads,
    )
    texts = [translation.text for translation in translator.translate(sentences.sources)]
    return corpus_quality(texts, sentences.references, data.target_lang).bleu
