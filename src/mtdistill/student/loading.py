"""A model in whatever form it is found: student_best.pt, a Hugging Face folder, a CTranslate2 or an ONNX folder.

Imported by cli, distillation, export and mtdistill; imports config, data, decoding, modeling and student.bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtdistill.config import DataConfig, RunConfig, build_config
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, OnnxTranslator, Translator
from mtdistill.display import Display
from mtdistill.errors import CheckpointError, ConfigError
from mtdistill.files import absolute
from mtdistill.messages import tr
from mtdistill.modeling.folder import INFO_FILE, read_info, require_unchanged
from mtdistill.modeling.t5 import unreadable
from mtdistill.student.bundle import Student, load_student

Form = Literal["PyTorch", "CTranslate2", "ONNX Runtime"]


@dataclass(frozen=True)
class FoundModel:
    """A model that can translate, and what is known about it.

    Attributes:
        path: where it was found.
        form: the engine its files are for.
        info: plain JSON values: languages, settings of its run; empty for a model of another tool.
        student: weights and tokenizer; None for an export, which only its engine can read.
    """

    path: Path
    form: Form
    info: Mapping[str, Any]
    student: Student | None = None

    @property
    def source_lang(self) -> str:
        """Language of the sources; "" where nobody says."""
        return str(self.info.get("source_lang") or "")

    @property
    def target_lang(self) -> str:
        """Language of the translations; "" where nobody says."""
        return str(self.info.get("target_lang") or "")

    @property
    def parameters(self) -> int:
        """Number of parameters, a tied table counted once.

        Raises:
            CheckpointError: an export that does not say it.
        """
        if self.student is not None:
            return int(self.student.model.num_parameters())
        count = self.info.get("parameters")
        if not isinstance(count, int) or count < 1:
            raise self.made_elsewhere()
        return count

    @property
    def config(self) -> RunConfig:
        """Settings of the run it comes from.

        Raises:
            CheckpointError: it does not say how it was made, or not in a way this version understands.
        """
        try:
            return build_config(self.info["config"], str(self.path))
        except (KeyError, TypeError, ConfigError) as error:
            raise self.made_elsewhere() from error

    def translator(self, threads: int = 1) -> Translator:
        """What translates with it, in the engine and number format of its files."""
        if self.student is not None:
            return HuggingFaceTranslator(
                self.student.model, self.student.tokenizer, source_lang=self.source_lang, threads=threads
            )
        if self.form == "CTranslate2":
            return CTranslate2Translator.open(self.path, source_lang=self.source_lang, threads=threads)
        return OnnxTranslator.open(self.path, source_lang=self.source_lang, threads=threads)

    def made_elsewhere(self) -> CheckpointError:
        """The error for a model that does not say what is asked of it."""
        return CheckpointError(
            tr(
                en=f"this model does not say how it was made: got {self.path}, accepted a student that mtdistill "
                "distilled, or an export of one. Use its student_best.pt.",
                zh=f"该模型没有记录其制作方式：{self.path}，需要由 mtdistill 蒸馏的学生模型或其导出。"
                "请使用它的 student_best.pt。",
            )
        )


def find_model(path: Path) -> FoundModel:
    """Load a model from a file or folder of any form.

    Args:
        path: `student_best.pt`, a run folder, a Hugging Face folder, or a folder that `mtdistill export` wrote.

    Raises:
        CheckpointError: nothing there, damaged, or another kind of file.
        DataError: the folder holds no tokenizer.
    """
    forms: dict[str, Form] = {"model.bin": "CTranslate2", "onnx": "ONNX Runtime"}
    try:
        form = next((form for name, form in forms.items() if (path / name).exists()), None)
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise unreadable(path, error.strerror or str(error)) from error
    if form is None:
        student = load_student(path)
        return FoundModel(path, "PyTorch", student.info, student)
    require_unchanged(path)
    try:
        return FoundModel(path, form, read_info(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            tr(
                en=f"the export could not be read: got {path / INFO_FILE} ({error}), accepted the file that mtdistill "
                "export wrote. Export it again.",
                zh=f"无法读取导出的模型：{path / INFO_FILE}（{error}），需要由 mtdistill export 写出的文件。请重新导出。",
            )
        ) from error


def prepared_data_of(model: FoundModel, output: str | None, display: Display) -> PreparedData:
    """The data a model was made for, prepared with its own tokenizer.

    Args:
        model: where it says nothing, the built-in corpus is taken.
        output: folder that holds the prepared data; None: the one that its run lies in, wherever the command is given, or
            else the one that the run was to write to.
        display: where progress goes.

    Raises:
        DataError: its data is not there any more.
        CheckpointError: it does not say what it translates.
    """
    if not model.source_lang or not model.target_lang:
        raise model.made_elsewhere()
    config = model.config if "config" in model.info else None
    tokenizer = model.student.tokenizer if model.student else load_tokenizer(model.path)
    try:
        data = config.data if config else DataConfig(source_lang=model.source_lang, target_lang=model.target_lang)
    except ValueError as error:  # what stands there is no language code
        raise model.made_elsewhere() from error
    run = run_folder_of(model.path)
    if output is None and run is not None and (run.parent / "data").is_dir():
        output = str(run.parent)
    root = output or (config.output if config else RunConfig.model_fields["output"].default)
    return prepare_data(data, Path(root) / "data", tokenizer, display.say)


def run_folder_of(path: Path) -> Path | None:
    """The run folder that a model's path names or lies in, if it does; that of a random baseline has no report."""
    path = absolute(path)
    for folder in (path, path.parent.parent):  # of a run: checkpoints/student_best.pt, export/ctranslate2-int8
        if all((folder / name).is_file() for name in ("config.toml", "environment.json")):
            return folder
    return None
