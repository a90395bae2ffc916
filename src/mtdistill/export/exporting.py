"""From a student in PyTorch to a folder that others can use, written only when it translates the same.

Imported by cli and mtdistill; imports data, decoding, modeling, report, student, export.gate, export.model_card and
export.onnx.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from mtdistill.data.own_sentences import read_evaluation_set
from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import (
    CTranslate2Translator,
    HuggingFaceTranslator,
    OnnxTranslator,
    Quantization,
    Translator,
    convert_model_to_ctranslate2,
)
from mtdistill.decoding.overflow import overflow_hint
from mtdistill.display import Display
from mtdistill.errors import ConfigError, ExportError
from mtdistill.export.gate import FEWEST_SENTENCES, SENTENCES, Parity, measure_parity, require
from mtdistill.export.model_card import model_card
from mtdistill.export.onnx import convert_to_onnx
from mtdistill.files import absolute, clear_leftovers, refusal_of, replacing_folder, write_atomically
from mtdistill.messages import tr
from mtdistill.modeling.folder import CHECKSUMS, INFO_FILE, checksums, read_info
from mtdistill.report import find_card
from mtdistill.student.bundle import Student, load_student, save_folder
from mtdistill.student.loading import FoundModel, find_model, prepared_data_of, run_folder_of

# Number formats that each format can hold, the default first.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "hf": ("float32", "float16", "bfloat16"),
    "ctranslate2": ("int8", "float32", "float16"),
    "onnx": ("int8", "float32"),
}


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        folder: where it is.
        parity: how its translations compare with those of the model.
        mib: size of all its files.
    """

    folder: Path
    parity: Parity
    mib: float


def export_model(
    path: Path,
    format_name: str,
    precision: str | None = None,
    *,
    destination: Path | None = None,
    data: Sequence[str] = (),
    output: str | None = None,
    accept_loss: bool = False,
    display: Display | None = None,
) -> Exported:
    """Write a model in another form, compare its translations, and put it in place only if they agree.

    Args:
        path: `student_best.pt`, a run folder, or a Hugging Face folder.
        format_name: "hf", "ctranslate2" or "onnx".
        precision: number format of the weights; None: the first that `PRECISIONS` lists for the format.
        destination: folder of the export, which is replaced at once; None: ``export/<format>-<precision>`` in the run
            folder, or beside the model where there is none.
        data: sentence pairs to compare on; empty: the validation split of the data the model was made for.
        output: folder that holds the prepared data; None: the one of its run.
        accept_loss: write it even if the translations differ by more than the tolerance.
        display: where progress goes; None: nowhere.

    Raises:
        ConfigError: unknown format or number format.
        CheckpointError: no model there, or one that is an export already.
        ExportError: the translations differ too much, or the folder cannot be written or holds something else; what
            was there stays.
        MissingExtraError: the format needs a package that is not installed.
        DataError: there is nothing to compare on.
    """
    display = display or Display()
    precision = _checked(format_name, precision)
    model = find_model(path)
    if model.student is None:
        raise ExportError(
            tr(
                en=f"an export cannot be exported again: got {path} ({model.form}), accepted student_best.pt or a "
                "Hugging Face folder. Export the student it was made from.",
                zh=f"导出的模型不能再次导出：{path}（{model.form}），需要 student_best.pt 或 Hugging Face 文件夹。"
                "请导出它的原始学生模型。",
            )
        )
    folder = destination or _default_folder(path) / f"{format_name}-{precision}"
    _require_replaceable(folder)
    if data:
        sentences = read_evaluation_set(data, model.source_lang, model.target_lang).first(SENTENCES)
    else:
        sentences = prepared_data_of(model, output, display).evaluation_set("validation", SENTENCES)
    if len(sentences) < FEWEST_SENTENCES:
        display.say(
            tr(
                en=f"only {len(sentences)} sentences to compare on; the figures are rough",
                zh=f"仅有 {len(sentences)} 个句子可供比较，数字较为粗略",
            )
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            clear_leftovers(folder.parent, folder.name)
            with replacing_folder(folder) as fresh:
                parity = _export(model, model.student, format_name, precision, fresh, sentences, accept_loss, display)
    except Timeout as error:
        raise ExportError(
            tr(
                en=f"another export is writing into this folder: {folder}. Wait for it, or choose another --to.",
                zh=f"另一个导出任务正在写入该文件夹：{folder}。请等待它结束，或换一个 --to。",
            )
        ) from error
    except Exception as error:
        refusal = refusal_of(error) or (isinstance(error, OSError) and (error.strerror or str(error)))
        if not refusal:
            raise
        raise ExportError(
            tr(
                en=f"the export could not be written: got {folder} ({refusal}), accepted a folder that "
                "can be written, with enough space. What was there before is unchanged. Choose another --to.",
                zh=f"无法写入导出：{folder}（{refusal}），需要可写且空间足够的文件夹。原有内容未改变。请换一个 --to。",
            )
        ) from error
    return Exported(folder, parity, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20)


def _export(
    model: FoundModel,
    student: Student,
    format_name: str,
    precision: str,
    fresh: Path,
    sentences: EvaluationSet,
    accept_loss: bool,
    display: Display,
) -> Parity:
    """Fill an empty folder with the export and everything that belongs to it."""
    display.say(tr(en=f"writing {format_name} {precision}", zh=f"正在写出 {format_name} {precision}"))
    threads = torch.get_num_threads()
    before = model.translator(threads)
    after = _convert(student, format_name, precision, fresh, (model.source_lang, model.target_lang), threads)
    rounds = precision == "int8"
    parity = measure_parity(before, after, sentences, model.target_lang, rounds_weights=rounds, display=display)
    if not accept_loss:
        others = [other for other in PRECISIONS[format_name] if other != precision]
        require(parity, f"{format_name} {precision}", others, overflow_hint(after))
    info = {
        **model.info,
        "parameters": model.parameters,
        "export": {"format": format_name, "precision": precision, "parity": asdict(parity)},
        CHECKSUMS: checksums(fresh),
    }
    write_atomically(fresh / INFO_FILE, json.dumps(info, ensure_ascii=False, indent=2))
    card = model_card(model, format_name, precision, parity, find_card(run_folder_of(model.path)), sentences.sources[0])
    write_atomically(fresh / "README.md", card)
    return parity


def _convert(
    student: Student, format_name: str, precision: str, fresh: Path, languages: tuple[str, str], threads: int
) -> Translator:
    """Write the model into the folder, and what translates from there: the files are read back, not the memory."""
    source_lang, _ = languages
    if format_name == "hf":
        save_folder(student, fresh, getattr(torch, precision))
        reloaded = load_student(fresh)
        return HuggingFaceTranslator(reloaded.model, reloaded.tokenizer, source_lang=source_lang, threads=threads)
    if format_name == "onnx":
        convert_to_onnx(student.model, student.tokenizer, fresh, "int8" if precision == "int8" else "float32")
        return OnnxTranslator.open(fresh, source_lang=source_lang, threads=threads)
    number_format: Quantization = precision  # type: ignore[assignment]
    convert_model_to_ctranslate2(student.model, student.tokenizer, fresh, number_format, languages=languages)
    return CTranslate2Translator.open(fresh, source_lang=source_lang, threads=threads)


def _checked(format_name: str, precision: str | None) -> str:
    if format_name not in PRECISIONS:
        raise ConfigError(
            tr(
                en=f"no such export format: got {format_name!r}, accepted {', '.join(PRECISIONS)}. Choose one of them.",
                zh=f"没有这种导出格式：{format_name!r}，可选 {'、'.join(PRECISIONS)}。请选择其中之一。",
            )
        )
    accepted = PRECISIONS[format_name]
    if precision is None:
        return accepted[0]
    if precision not in accepted:
        raise ConfigError(
            tr(
                en=f"{format_name} cannot hold this number format: got {precision!r}, accepted {', '.join(accepted)}. "
                "Choose one of them with --quantization.",
                zh=f"{format_name} 不支持这种数值格式：{precision!r}，可选 {'、'.join(accepted)}。"
                "请用 --quantization 选择其中之一。",
            )
        )
    return precision


def _require_replaceable(folder: Path) -> None:
    """An export takes the place of a whole folder: of an older export only, or of nothing."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ExportError(
            tr(
                en=f"the export would replace the folder you are in: got {folder}. Add a new name to --to.",
                zh=f"导出会替换当前所在的文件夹：{folder}。请在 --to 中加上新的名称。",
            )
        )
    is_export = False
    with contextlib.suppress(OSError, ValueError):
        is_export = "export" in read_info(folder)
    if is_export or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    raise ExportError(
        tr(
            en=f"the export would replace something else: got {folder}, accepted an older export, an empty folder or "
            "a new name. Choose another --to.",
            zh=f"导出会覆盖其他内容：{folder}，只能是旧的导出、空文件夹或新的名称。请换一个 --to。",
        )
    )


def _default_folder(path: Path) -> Path:
    run = run_folder_of(path)
    return (run or absolute(path).parent) / "export"
