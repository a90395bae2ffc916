import json
from pathlib import Path

import pytest

from mtdistill.modeling.folder import INFO_FILE, RECORD_FILE, read_info

INFO = {"source_lang": "zh", "target_lang": "en", "note": "备注"}


def test_the_file_names_are_those_that_are_documented() -> None:
    assert (INFO_FILE, RECORD_FILE) == ("mtdistill.json", "training_record.json")


@pytest.mark.parametrize("name", [INFO_FILE, RECORD_FILE])
def test_either_file_tells(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(INFO, ensure_ascii=False), encoding="utf-8")
    assert read_info(tmp_path) == INFO


def test_a_students_own_file_comes_before_a_teachers(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text('{"source_lang": "de"}', encoding="utf-8")
    (tmp_path / INFO_FILE).write_text(json.dumps(INFO), encoding="utf-8")
    assert read_info(tmp_path) == INFO


@pytest.mark.parametrize("name", ["", "gone", "file.pt"])
def test_of_a_model_of_another_tool_nothing_is_known(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(b"weights")
    assert read_info(tmp_path / name) == {}


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b'"zh"', b"null", b"{", b'{"a": 1} more', b'{"a": "\xff"}'], ids=repr
)
@pytest.mark.parametrize("name", [INFO_FILE, RECORD_FILE])
def test_damage_is_no_missing_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text(json.dumps(INFO), encoding="utf-8")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 (json, utf-8 and our own)
        read_info(tmp_path)


@pytest.mark.parametrize("content", ["[1, 2]", "null"])
def test_what_is_no_object_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / INFO_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"mtdistill\.json: no object"):
        read_info(tmp_path)
