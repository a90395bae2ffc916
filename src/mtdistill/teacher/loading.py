"""Loading a teacher: the one that comes with the package, or any T5-architecture Hugging Face folder.

Imported by the pipeline and the command line; imports modeling, data.tokenizer.
"""

import contextlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.data.tokenizer import PAD_ID, load_tokenizer
from mtdistill.errors import TeacherError
from mtdistill.messages import tr
from mtdistill.modeling import load_model
from mtdistill.modeling.folder import read_info

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
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    problems = _mismatches(model, tokenizer)
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
    return Teacher(model, tokenizer, folder, info.get("source_lang"), info.get("target_lang"))


def _mismatches(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    config = model.config
    problems = []
    if len(tokenizer) > config.vocab_size:
        problems.append(
            tr(
                en=f"vocabulary: got {len(tokenizer)} pieces, accepted at most {config.vocab_size}, the rows of the "
                "model",
                zh=f"词表：分词器有 {len(tokenizer)} 个词元，模型最多 {config.vocab_size} 个",
            )
        )
    for name in ("pad_token_id", "eos_token_id"):
        if getattr(tokenizer, name) != getattr(config, name):
            problems.append(
                tr(
                    en=f"{name}: got {getattr(tokenizer, name)} in the tokenizer, accepted {getattr(config, name)}, "
                    "the model's",
                    zh=f"{name}：分词器为 {getattr(tokenizer, name)}，模型为 {getattr(config, name)}",
                )
            )
    for name in ("pad_token_id", "decoder_start_token_id"):
        if getattr(config, name, None) != PAD_ID:
            problems.append(
                tr(
                    en=f"{name}: got {getattr(config, name, None)} in config.json, accepted {PAD_ID}, as in every T5",
                    zh=f"{name}：config.json 中为 {getattr(config, name, None)}，应为 {PAD_ID}（所有 T5 均如此）",
                )
            )
    return problems
