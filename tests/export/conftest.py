"""A student in one file, sentence pairs to compare on, and exports of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.student.bundle import Student, save_bundle

INFO = {"source_lang": "zh", "target_lang": "en"}


@pytest.fixture(scope="session")
def pairs_file(tiny_corpus: Sequence[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in tiny_corpus), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def student_file(
    trained_tiny_teacher: T5ForConditionalGeneration,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("student") / "student_best.pt"
    save_bundle(Student(trained_tiny_teacher, tiny_tokenizer, INFO), path)
    return path
