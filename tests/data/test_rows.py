"""Rows from disk are looked at before a kernel or Arrow believes them."""

import struct
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from mtdistill.data.rows import FEATURES, mapped_rows, require_sound, save_rows

PIECES = 10
ROWS: dict[str, list[Any]] = {
    "source": ["a", "b c"],
    "target": ["x", ""],
    "source_ids": [[3, 1], [4, 9, 1]],
    "target_ids": [[5, 1], [1]],
    "source_tokens": [2, 3],
    "target_tokens": [2, 1],
}


def rows_of(folder: Path, **changes: Any) -> datasets.Dataset:
    save_rows(datasets.Dataset.from_dict({**ROWS, **changes}, features=FEATURES), folder)
    return mapped_rows(folder)


def test_what_was_written_is_read_and_sound(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows")
    require_sound(rows, PIECES)
    assert rows.to_dict() == ROWS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"source_ids": [[3, 1], [4, 10, 1]]}, "source_ids from 1 to 10"),
        ({"target_ids": [[-1, 1], [1]]}, "target_ids from -1 to 1"),
        ({"target_ids": [[5, None], [1]]}, "target_ids"),
        ({"target_ids": [[5, 1, 1], [1]]}, "target_tokens"),
        ({"source_tokens": [2, 2**30]}, "source_tokens"),
        ({"source": ["a", None]}, "columns"),
        ({"target_ids": [[5, 1], None]}, "columns"),
    ],
    ids=["beyond the vocabulary", "negative", "no id", "longer", "another length", "no text", "no ids"],
)
def test_what_a_kernel_would_read_beyond_its_table(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        require_sound(rows_of(tmp_path / "rows", **changes), PIECES)


def test_other_columns(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows").rename_column("source", "origin")
    with pytest.raises(ValueError, match="columns origin"):
        require_sound(rows, PIECES)


def test_offsets_that_point_outside(tmp_path: Path) -> None:
    """As a damaged file has them: Arrow maps it all the same, and would read whatever is there."""
    save_rows(datasets.Dataset.from_dict(ROWS, features=FEATURES), tmp_path / "rows")
    [file] = (tmp_path / "rows").glob("*.arrow")
    offsets = struct.pack("<3i", 0, 2, 5)  # of source_ids
    assert file.read_bytes().count(offsets) == 1
    file.write_bytes(file.read_bytes().replace(offsets, struct.pack("<3i", 0, 2, 10**6)))
    with pytest.raises(pa.ArrowInvalid, match="list offsets"):
        require_sound(mapped_rows(tmp_path / "rows"), PIECES)


@pytest.mark.parametrize("name", ["../elsewhere.arrow", "/dev/zero", "data-00001-of-00001.arrow", "."])
def test_a_list_of_files_that_names_others(name: str, tmp_path: Path) -> None:
    save_rows(datasets.Dataset.from_dict(ROWS, features=FEATURES), tmp_path / "rows")
    state = tmp_path / "rows" / "state.json"
    state.write_text(state.read_text().replace("data-00000-of-00001.arrow", name))
    with pytest.raises(ValueError, match=r"arrow|zero|[.]"):
        mapped_rows(tmp_path / "rows")
