"""Prepared data of the tiny corpus."""

import pytest
from transformers import PreTrainedTokenizerFast

from mtdistill.config import DataConfig
from mtdistill.data.prepared import PreparedData, prepare_data


@pytest.fixture(scope="session")
def tiny_data(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_corpus: list[tuple[str, str]],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> PreparedData:
    """`tiny_corpus`, a tenth of it for validation and for test each."""
    folder = tmp_path_factory.mktemp("prepared")
    text = folder / "train.tsv"
    text.write_text("".join(f"{source}\t{target}\n" for source, target in tiny_corpus), encoding="utf-8")
    config = DataConfig(train=(str(text),), source_lang="zh", target_lang="en", validation_ratio=0.1, test_ratio=0.1)
    return prepare_data(config, folder / "data", tiny_tokenizer)
