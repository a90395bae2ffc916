"""A resumed training has what it was begun with."""

from pathlib import Path

import pytest

from mtdistill.errors import CheckpointError
from mtdistill.training.beginning import BEGUN_FILE, note_beginning

BEGUN = {"data": "0123", "rate": (1, 0.5)}


def test_the_same_again_goes_on(tmp_path: Path) -> None:
    note_beginning(tmp_path / "run", BEGUN, resumed=False)
    note_beginning(tmp_path / "run", BEGUN, resumed=True)


def test_what_is_different_is_named(tmp_path: Path) -> None:
    note_beginning(tmp_path, BEGUN, resumed=False)
    with pytest.raises(CheckpointError, match=r"different now: data, teacher\. Use the same again"):
        note_beginning(tmp_path, {**BEGUN, "data": "4567", "teacher": "89"}, resumed=True)


def test_a_new_training_forgets_the_older(tmp_path: Path) -> None:
    note_beginning(tmp_path, BEGUN, resumed=False)
    note_beginning(tmp_path, {"data": "4567"}, resumed=False)
    note_beginning(tmp_path, {"data": "4567"}, resumed=True)


def test_a_version_that_noted_nothing(tmp_path: Path) -> None:
    note_beginning(tmp_path, BEGUN, resumed=True)
    assert not (tmp_path / BEGUN_FILE).exists()


@pytest.mark.parametrize("content", ["{", "[1]", "3", "null"])
def test_a_damaged_note_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / BEGUN_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"cannot go on: got .*begun\.json"):
        note_beginning(tmp_path, BEGUN, resumed=True)
