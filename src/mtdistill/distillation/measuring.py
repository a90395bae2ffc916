"""The report card of a model: at the end of a run, and at any time later, whatever form the model is in.

Imported by cli, mtdistill and distillation.pipeline; imports config, data, decoding, evaluation, health, report,
student, teacher and distillation.duels.
"""

import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtdistill.config import RunConfig
from mtdistill.data.own_sentences import read_evaluation_set
from mtdistill.data.prepared import EvaluationSet, PreparedData
from mtdistill.decoding import ComputeType, CTranslate2Translator
from mtdistill.decoding.overflow import overflow_hint
from mtdistill.display import Display
from mtdistill.distillation.duels import Engines, duels_of_a_student, duels_of_an_export
from mtdistill.evaluation import ModelSize, model_size, peak_memory_mib, rarest_piece_counts, require_comet
from mtdistill.files import absolute, write_atomically
from mtdistill.health.journal import HEALTH_FILE, read_findings
from mtdistill.messages import tr
from mtdistill.report import Contestant, ReportCard, TestSet, build_report, card_name, find_card, write_html
from mtdistill.student.loading import FoundModel, find_model, prepared_data_of, run_folder_of
from mtdistill.teacher.loading import Teacher, load_teacher


def report_card(
    model: FoundModel,
    teacher: Teacher,
    test_set: TestSet,
    config: RunConfig | None,
    display: Display,
    *,
    thorough: bool = True,
    training_seconds: float | None = None,
    random_bleu: float | None = None,
    comet_model: Path | None = None,
) -> ReportCard:
    """Measure a model against its teacher on a test set.

    A student in PyTorch is judged by its translations in CTranslate2, float32; an export by its own. The teacher always
    translates in CTranslate2, float32.

    Args:
        model: student or export.
        teacher: the one it was distilled from.
        test_set: what is translated.
        config: settings of the run; None: a model of no preset.
        display: where progress goes.
        thorough: time every engine, number of threads, batch and beam, and measure memory: minutes. False: what the
            promise is held against, and the deployed speed-up.
        training_seconds: how long training took, if known.
        random_bleu: BLEU of the same budget from random weights, if known.
        comet_model: checkpoint of a COMET model.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        languages = (test_set.source_lang, test_set.target_lang)
        theirs = Engines(teacher.model, teacher.tokenizer, languages, Path(scratch) / "teacher")
        if model.student is None:
            ours = None
            judged = model.translator(threads)
            duels = list(duels_of_an_export(model, theirs, judged, threads, thorough=thorough))
        else:
            ours = Engines(model.student.model, model.student.tokenizer, languages, Path(scratch) / "student")
            judged = ours.ctranslate2("float32", threads)
            duels = list(duels_of_a_student(ours, theirs, threads, thorough=thorough))
        if hint := overflow_hint(judged):
            display.say(hint)
        reference = theirs.ctranslate2("float32", threads)
        memory: list[float | None] = [None, None]
        if thorough and isinstance(judged, CTranslate2Translator):
            display.say(tr(en="measuring memory", zh="正在测量内存"))
            compute_type: ComputeType = "int8" if judged.precision == "int8" else "float32"
            folders = [ours.ctranslate2_folder() if ours else model.path, theirs.ctranslate2_folder()]
            memory = [
                peak_memory_mib(folder, test_set.sentences.sources, test_set.source_lang, compute_type)
                for folder in folders
            ]
        return build_report(
            Contestant(judged, ModelSize(model.parameters), memory[0]),
            Contestant(reference, model_size(teacher.model), memory[1]),
            test_set,
            config,
            form=model.form if model.student else f"{model.form} {judged.precision}",
            duels=duels,
            training_seconds=training_seconds,
            random_bleu=random_bleu,
            comet_model=comet_model,
            display=display,
        )


def test_set_of(model: FoundModel, files: Sequence[str], output: str | None, display: Display) -> TestSet:
    """The sentences a model is judged on, with how rare their words are in its training data.

    Args:
        model: says what it translates, and what it was trained on.
        files: the user's own sentence pairs; empty: the test split of its data.
        output: folder that holds the prepared data; None: the one of its run.
        display: where progress goes.
    """
    if files:
        name = ", ".join(Path(file).name for file in files)
        sentences = read_evaluation_set(files, model.source_lang, model.target_lang)
        return TestSet(name, sentences, model.source_lang, model.target_lang)
    return test_split(prepared_data_of(model, output, display))


def test_split(data: PreparedData) -> TestSet:
    """The test split of prepared data."""
    sentences = data.evaluation_set("test")
    return TestSet("test", sentences, data.source_lang, data.target_lang, rarest_pieces(data, sentences))


def rarest_pieces(data: PreparedData, sentences: EvaluationSet) -> list[int]:
    """For each source, how often its rarest piece stands in the training sources."""
    tokenizer = data.tokenizer
    column = data.split("train").with_format("arrow")[:]["source_ids"].combine_chunks()
    counts = np.bincount(column.flatten().to_numpy(), minlength=len(tokenizer))
    return rarest_piece_counts(tokenizer(sentences.sources)["input_ids"], counts)


def measure_student(
    path: Path,
    display: Display | None = None,
    *,
    teacher: str | None = None,
    output: str | None = None,
    data: Sequence[str] = (),
    thorough: bool = True,
    comet_model: Path | None = None,
) -> ReportCard:
    """Measure a model that was made earlier, and write `report.json` and `report.html`.

    They go into the run folder a student lies in, or into the folder of an export; of any other model nothing is
    written. With sentences of the user's own they are named `report-own.json` and `report-own.html`, so that the
    card of the test split stays.

    Args:
        path: `student_best.pt`, its Hugging Face folder, its run folder, an export, or a teacher.
        display: where progress goes; None: nowhere.
        teacher: folder of the teacher; None: the one it was distilled from, or itself for a model of no preset.
        output: folder that holds the prepared data; None: the one of its run.
        data: files of sentence pairs to measure on; empty: the test split.
        thorough: as in `report_card`.
        comet_model: checkpoint of a COMET model.

    Raises:
        CheckpointError: no model there, or one that does not say what it translates.
        DataError: its data is not there any more, or the COMET model cannot be loaded.
        MissingExtraError: COMET is not installed.
    """
    display = display or Display()
    model = find_model(path)
    if comet_model:
        require_comet()
    config = model.config if "config" in model.info else None
    if config is not None and config.training.threads:
        torch.set_num_threads(config.training.threads)
    loaded = _teacher_of(model, config, teacher)
    test_set = test_set_of(model, data, output, display)
    folder = report_folder(model)
    earlier = find_card(folder) if not data else None
    card = report_card(
        model,
        loaded,
        test_set,
        config,
        display,
        thorough=thorough,
        training_seconds=earlier.training_seconds if earlier else None,
        random_bleu=earlier.random_bleu if earlier else None,
        comet_model=comet_model,
    )
    if folder is not None:
        try:
            write_reports(card, folder, display, "report-own" if data else "report")
        except OSError as error:  # what took minutes to measure is shown all the same
            display.say(
                tr(
                    en=f"the report could not be written: got {folder} ({error.strerror or error})",
                    zh=f"无法写出成绩单：{folder}（{error.strerror or error}）",
                )
            )
    else:
        display.say(tr(en="not in a run folder: no report is written", zh="不在训练文件夹中：不写出成绩单文件"))
    return card


def write_reports(card: ReportCard, folder: Path, display: Display, name: str = "report") -> None:
    """`report.json` and `report.html`, with the training's curves and findings and the students found beside it."""
    write_atomically(folder / f"{name}.json", card.to_json())
    metrics: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    others = {}
    here = absolute(folder)
    for file in sorted(here.parent.glob("*/report.json")):
        if file.parent != here and (other := find_card(file.parent)):
            others[card_name(Path(file.parent.name))] = other
    findings = None
    with contextlib.suppress(OSError, ValueError):
        findings = read_findings(folder / HEALTH_FILE) if (folder / HEALTH_FILE).is_file() else None
    page = folder / f"{name}.html"
    write_html(card, page, metrics=metrics, findings=findings, others=others)
    display.say(tr(en=f"report with plots: {page}", zh=f"含图表的成绩单：{page}"))


def report_folder(model: FoundModel) -> Path | None:
    """Where the report of a model belongs; None: nowhere."""
    is_export = model.student is None or "export" in model.info
    return model.path if is_export else run_folder_of(model.path)


def _teacher_of(model: FoundModel, config: RunConfig | None, given: str | None) -> Teacher:
    path = given or (config.teacher.path if config else None)
    if path:
        return load_teacher(path)
    if model.student is None or not model.source_lang or not model.target_lang:
        raise model.made_elsewhere()
    return Teacher(model.student.model, model.student.tokenizer, model.path, model.source_lang, model.target_lang)
