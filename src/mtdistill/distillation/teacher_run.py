"""Training a teacher from data to scores on the test split: what `mtdistill teacher train` does.

Imported by cli; imports config, data, decoding, evaluation, modeling, teacher, training, distillation.run_folder and
distillation.summaries.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mtdistill.config import DataConfig
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.decoding import CTranslate2Translator
from mtdistill.display import Display
from mtdistill.distillation.run_folder import locked, says_what_the_disk_said
from mtdistill.distillation.summaries import data_summary
from mtdistill.evaluation.quality import corpus_quality
from mtdistill.evaluation.success import success_rate
from mtdistill.evaluation.validation import ValidationScorer
from mtdistill.files import clear_leftovers, write_atomically
from mtdistill.messages import tr
from mtdistill.modeling.folder import RECORD_FILE
from mtdistill.teacher.training import TeacherRecipe, train_teacher
from mtdistill.training.callbacks import MetricsFile, ProgressDisplay, SampleTranslations
from mtdistill.training.engine import engines, prepare_processor
from mtdistill.training.stored_engine import store_engine, stored_engine

BEAMS = (1, 4)


def run_teacher_training(
    data_config: DataConfig,
    recipe: TeacherRecipe,
    folder: Path,
    display: Display,
    *,
    resume: bool = False,
    threads: int | None = None,
) -> Path:
    """Prepare the data, train, evaluate on the test split, and write the scores into the training record.

    Args:
        data_config: the text; a tokenizer is trained on its training split.
        recipe: shape and schedule.
        folder: of the run; the teacher is its subfolder `best`.
        display: where progress goes.
        resume: go on from the last checkpoint.
        threads: CPU threads; None: PyTorch's choice.

    Raises:
        ConfigError: another process writes into the folder, or it cannot be written.
        TeacherError: the folder holds another training.

    Returns:
        The folder of the teacher.
    """
    with locked(folder), says_what_the_disk_said(folder):
        return _run_locked(data_config, recipe, folder, display, resume=resume, threads=threads)


def _run_locked(
    data_config: DataConfig, recipe: TeacherRecipe, folder: Path, display: Display, *, resume: bool, threads: int | None
) -> Path:
    prepare_processor(threads or torch.get_num_threads())
    if resume:
        clear_leftovers(folder)
    data = prepare_data(data_config, folder.parent / "data", None, display.say)
    display.say(data_summary(data))
    sentences = data.evaluation_set("validation")
    scorer = ValidationScorer(
        data.tokenizer, data.source_lang, data.target_lang, sentences.sources, sentences.references,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    engine = (stored_engine(folder) if resume else None) or engines("auto", torch.get_num_threads())[0]
    writer = SummaryWriter(log_dir=str(folder / "logs"))
    best = train_teacher(
        data,
        recipe,
        folder,
        scorer,
        resume=resume,
        display=display,
        engine=engine,
        keep_engine=partial(store_engine, folder),
        callbacks=[
            TensorBoardCallback(writer),
            SampleTranslations(writer, scorer),
            MetricsFile(folder / "metrics.jsonl"),
            ProgressDisplay(display, tr(en="training the teacher", zh="训练教师模型")),
        ],
    )
    writer.close()
    record_file = best / RECORD_FILE
    record = json.loads(record_file.read_text(encoding="utf-8"))
    record["test"] = evaluate_teacher(best, data, display)
    write_atomically(record_file, json.dumps(record, ensure_ascii=False, indent=2))
    return best


def evaluate_teacher(folder: Path, data: PreparedData, display: Display) -> Mapping[str, Any]:
    """BLEU, chrF2 and success rate on the test split at every beam of `BEAMS`, with samples; also shown."""
    sentences = data.evaluation_set("test")
    translator = CTranslate2Translator.from_folder(
        folder, source_lang=data.source_lang, target_lang=data.target_lang, threads=torch.get_num_threads()
    )
    results: dict[str, Any] = {"sentences": len(sentences), "engine": "CTranslate2 float32"}
    for beam in BEAMS:
        translations = translator.translate(sentences.sources, beam_size=beam)
        texts = [translation.text for translation in translations]
        quality = corpus_quality(texts, sentences.references, data.target_lang)
        success = success_rate(sentences.sources, translations, translations, sentences.references, data.target_lang)
        results[f"beam_{beam}"] = {
            **dataclasses.asdict(quality),
            "success_rate": success.rate,
            "failures": dict(success.failures),
            "samples": [
                {"source": source, "reference": references[0], "translation": text}
                for source, references, text in list(zip(sentences.sources, sentences.references, texts, strict=True))[
                    :10
                ]
            ],
        }
        display.say(
            tr(
                en=f"test, beam {beam}: BLEU {quality.bleu:.2f}, chrF2 {quality.chrf:.1f}, success {success.rate:.1%} "
                f"({len(sentences)} sentences)",
                zh=f"测试集，束宽 {beam}：BLEU {quality.bleu:.2f}，chrF2 {quality.chrf:.1f}，成功率 {success.rate:.1%}"
                f"（{len(sentences)} 句）",
            )
        )
    for sample in results["beam_1"]["samples"][:5]:
        display.say(f"  {sample['source']} → {sample['translation']}   ({sample['reference']})")
    return results
