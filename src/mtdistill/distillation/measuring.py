"""The report card of a student on the real test split: at the end of a run, and at any time later.

Imported by the pipeline and the command line; imports report, student, teacher, data.
"""

import contextlib
from pathlib import Path

import torch

from mtdistill.config import RunConfig, build_config
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator
from mtdistill.display import Display
from mtdistill.errors import CheckpointError, MtdistillError
from mtdistill.evaluation import model_size
from mtdistill.files import write_atomically
from mtdistill.messages import tr
from mtdistill.report import ReportCard, build_report
from mtdistill.student.bundle import Student, load_student
from mtdistill.teacher.loading import Teacher, load_teacher


def report_card(
    student: Student,
    teacher: Teacher,
    data: PreparedData,
    config: RunConfig,
    display: Display,
    *,
    training_seconds: float | None = None,
    random_bleu: float | None = None,
) -> ReportCard:
    """Measure a student against its teacher on the test split of the data it was made for.

    The translations and the headline speed-up are CTranslate2's, float32; PyTorch is timed beside it.
    """
    lang, threads = data.source_lang, torch.get_num_threads()
    student_fast, teacher_fast = (
        CTranslate2Translator.from_model(each.model, each.tokenizer, source_lang=lang, threads=threads)
        for each in (student, teacher)
    )
    student_plain, teacher_plain = (
        HuggingFaceTranslator(each.model, each.tokenizer, source_lang=lang) for each in (student, teacher)
    )
    return build_report(
        student_fast,
        teacher_fast,
        data.evaluation_set("test"),
        config,
        student_size=model_size(student.model),
        teacher_size=model_size(teacher.model),
        target_lang=data.target_lang,
        engines=[(student_fast, teacher_fast), (student_plain, teacher_plain)],
        training_seconds=training_seconds,
        random_bleu=random_bleu,
        say=display.say,
    )


def measure_student(
    path: Path, display: Display | None = None, *, teacher: str | None = None, output: str | None = None
) -> ReportCard:
    """Measure a student that was trained earlier, and write `report.json` into its run folder if it lies in one.

    Args:
        path: `student_best.pt`, its Hugging Face folder, or its run folder.
        display: where progress goes; None: nowhere.
        teacher: folder of the teacher; None: the one it was distilled from.
        output: folder that holds the prepared data; None: the one of its run.

    Raises:
        CheckpointError: no student there, or one that does not say how it was made.
        DataError: its data is not there any more.
    """
    display = display or Display()
    student = load_student(path)
    try:
        config = build_config(student.info["config"], str(path))
    except (KeyError, TypeError, MtdistillError) as error:
        raise CheckpointError(
            tr(
                en=f"this model does not say how it was made: got {path}, accepted a student that mtdistill distilled. "
                "Use its student_best.pt.",
                zh=f"该模型没有记录其制作方式：{path}，需要由 mtdistill 蒸馏的学生模型。请使用它的 student_best.pt。",
            )
        ) from error
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    loaded = load_teacher(teacher or config.teacher.path)
    root = Path(output or config.output) / "data"
    data = prepare_data(config.data, root, loaded.tokenizer, display.say)
    run = _run_folder_of(path)
    earlier: ReportCard | None = None
    if run is not None:
        with contextlib.suppress(OSError, MtdistillError):
            earlier = ReportCard.from_json((run / "report.json").read_text(encoding="utf-8"))
    card = report_card(
        student,
        loaded,
        data,
        config,
        display,
        training_seconds=earlier.training_seconds if earlier else None,
        random_bleu=earlier.random_bleu if earlier else None,
    )
    if run is not None:
        write_atomically(run / "report.json", card.to_json())
    return card


def _run_folder_of(path: Path) -> Path | None:
    """The run folder that a student's path names or lies in, if it does; that of a random baseline has no report."""
    path = path.absolute()
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    return folder if (folder / "config.toml").is_file() else None
