"""Loading a teacher: the one that comes with the package, or any T5-architecture Hugging Face folder.

Imported by cli, distillation and mtdistill; imports modeling.
"""

import contextlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.errors import TeacherError
from mtdistill.messages import tr
from mtdistill.modeling.folder import load_folder, mismatches, read_info

REFERENCE = "reference"


@dataclass(frozen=True)
class Teacher:
    """A model with its tokenizer; the languages are None where its folder does not tell."""

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    source_lang: str | None
    target_lang: str | None


def reference_folder() -> Path:
    """The shipped zh-en teacher."""
    return Path(str(files("mtdistill.teacher") / "reference_zh_en"))


def load_teacher(path: str) -> Teacher:
    """Load a teacher and check that model and tokenizer belong together.

    Args:
        path: a Hugging Face folder, or "reference".

    Raises:
        CheckpointError: the folder cannot be read or holds another architecture.
        DataError: it holds no tokenizer.
        TeacherError: tokenizer and model do not fit each other.
    """
    folder = reference_folder() if path == REFERENCE else Path(path)
    model, tokenizer = load_folder(folder)
    problems = mismatches(model, tokenizer)
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise TeacherError(
            tr(
                en=f"model and tokenizer do not fit each other: got {folder}{listed}\nUse the tokenizer the model was "
                "trained with.",
                zh=f"模型与分词器不匹配：{folder}{listed}\n请使用训练该模型时所用的分词器。",
            )
        )
    info: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        info = read_info(folder)
    source_lang, target_lang = (info.get(name) for name in ("source_lang", "target_lang"))
    return Teacher(
        model, tokenizer, folder, *(lang if isinstance(lang, str) else None for lang in (source_lang, target_lang))
    )
