"""Tokenised sentence pairs as Arrow on disk: their columns, and reading them without trusting the file.

Imported by distillation and data.prepared. Knows nothing of where the text comes from.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerFast

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "target": datasets.Value("string"),
        "source_ids": datasets.Sequence(datasets.Value("int32")),
        "target_ids": datasets.Sequence(datasets.Value("int32")),
        "source_tokens": datasets.Value("int32"),
        "target_tokens": datasets.Value("int32"),
    }
)


def tokenised_rows(text: datasets.Dataset, tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    """Text with the ids and lengths of both sides."""

    def ids(rows: dict[str, list[str]]) -> dict[str, Any]:
        sources, targets = tokenizer(rows["source"])["input_ids"], tokenizer(rows["target"])["input_ids"]
        return {
            "source_ids": sources,
            "target_ids": targets,
            "source_tokens": [len(line) for line in sources],
            "target_tokens": [len(line) for line in targets],
        }

    with _no_progress_bars():
        return text.map(ids, batched=True, features=FEATURES)


def save_rows(rows: datasets.Dataset, folder: Path) -> None:
    """Write rows for `mapped_rows`."""
    with _no_progress_bars():
        rows.save_to_disk(str(folder))


def mapped_rows(folder: Path) -> datasets.Dataset:
    """Rows that `save_rows` wrote, mapped from disk and believed: see `require_sound`.

    Raises:
        Exception: whatever datasets, pyarrow and json raise for a damaged file.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    for file in state["_data_files"]:
        if not (folder / Path(file["filename"]).name).is_file() or Path(file["filename"]).name != file["filename"]:
            raise ValueError(file["filename"])  # somewhere else, and nothing says that it is a file at all
    # Without the format that state.json may ask for: it can hide columns, and turn rows into arrays of any library.
    return datasets.load_from_disk(str(folder)).with_format(None)


def require_sound(rows: datasets.Dataset, pieces: int) -> None:
    """Arrow believes the offsets in a file, and kernels believe the ids: wrong ones are read beyond the end of a table.

    Args:
        rows: from `mapped_rows`.
        pieces: of the tokenizer; no id reaches it.

    Raises:
        ValueError: an offset, a text or an id is none, or there are other columns.
    """
    table = rows.data.table
    table.validate(full=True)
    if rows.features != FEATURES or any(column.null_count for column in table.columns):
        raise ValueError(f"columns {', '.join(table.column_names)}")
    for side in ("source", "target"):
        lists, lengths = table.column(f"{side}_ids"), table.column(f"{side}_tokens")
        ids = pc.list_flatten(lists)
        smallest, largest = pc.min_max(ids).as_py().values()
        if ids.null_count or smallest is None or smallest < 0 or largest >= pieces:
            raise ValueError(f"{side}_ids from {smallest} to {largest}")
        if not pc.all(pc.equal(pc.list_value_length(lists), lengths)).as_py():
            raise ValueError(f"{side}_tokens")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without the bars of datasets: our display says what is going on."""
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()
