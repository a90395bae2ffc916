"""Small corpora on disk, and the configurations that point at them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mtdistill.config import DataConfig

WriteTsv = Callable[[str, Sequence[tuple[str, str]]], str]


@pytest.fixture
def write_tsv(tmp_path: Path) -> WriteTsv:
    """Writes pairs to a TSV file and gives its path."""

    def write(name: str, pairs: Sequence[tuple[str, str]]) -> str:
        path = tmp_path / name
        path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def make_config(write_tsv: WriteTsv, tiny_corpus: Sequence[tuple[str, str]]) -> Callable[..., DataConfig]:
    """A configuration over `tiny_corpus` as train.tsv, with large held-out splits."""
    train = write_tsv("train.tsv", tiny_corpus)

    def make(**changes: object) -> DataConfig:
        values = {"train": (train,), "source_lang": "zh", "target_lang": "en", "validation_ratio": 0.1,
                  "test_ratio": 0.1, "vocabulary_size": 400}  # fmt: skip
        return DataConfig.model_validate({**values, **changes})

    return make
