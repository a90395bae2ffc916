"""A teacher is loaded with what belongs to it, or refused with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mtdistill.data.tokenizer import train_tokenizer
from mtdistill.errors import CheckpointError, DataError, TeacherError
from mtdistill.modeling.folder import RECORD_FILE
from mtdistill.teacher import loading
from mtdistill.teacher.loading import load_teacher, reference_folder


@pytest.fixture
def folder(tiny_teacher: Any, tmp_path: Path) -> Path:
    for part in tiny_teacher:
        part.save_pretrained(str(tmp_path / "teacher"))
    return tmp_path / "teacher"


def change_config(folder: Path, **changes: Any) -> None:
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **{key: changes[key] for key in changes if key in values}}))


def test_model_tokenizer_and_folder(folder: Path, tiny_teacher: Any) -> None:
    teacher = load_teacher(str(folder))
    assert teacher.folder == folder
    assert not teacher.model.training
    assert torch.equal(teacher.model.shared.weight, tiny_teacher[0].shared.weight)
    assert teacher.tokenizer("猫")["input_ids"] == tiny_teacher[1]("猫")["input_ids"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"source_lang": "zh", "target_lang": "en", "recipe": {}}', ("zh", "en")),
        ("{}", (None, None)),
        ("[]", (None, None)),
        ("{damaged", (None, None)),
        (None, (None, None)),
    ],
)
def test_the_languages_come_from_the_record(
    folder: Path, record: str | None, expected: tuple[str | None, str | None]
) -> None:
    if record is not None:
        (folder / RECORD_FILE).write_text(record)
    teacher = load_teacher(str(folder))
    assert (teacher.source_lang, teacher.target_lang) == expected


def test_reference_is_the_shipped_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reference_folder().parent == Path(loading.__file__).parent
    monkeypatch.setattr(loading, "reference_folder", lambda: folder)
    assert load_teacher("reference").folder == folder


def test_a_tokenizer_with_more_pieces_than_the_model_is_refused_with_both_numbers(
    folder: Path, tiny_corpus: list[tuple[str, str]]
) -> None:
    train_tokenizer([text for pair in tiny_corpus for text in pair], 407, 1.0).save_pretrained(str(folder))
    with pytest.raises(TeacherError, match=r"do not fit each other: got .*\n.*got 407 pieces, accepted at most 400"):
        load_teacher(str(folder))


def test_a_smaller_tokenizer_fits_a_padded_table(folder: Path, tiny_teacher: Any) -> None:
    model, _ = tiny_teacher
    model.resize_token_embeddings(408, mean_resizing=False)
    model.save_pretrained(str(folder))
    assert load_teacher(str(folder)).model.config.vocab_size == 408


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token_id": 5}, "eos_token_id: got 1 in the tokenizer, accepted 5, the model's"),
        ({"pad_token_id": 2}, "pad_token_id: got 0 in the tokenizer, accepted 2, the model's"),
        ({"decoder_start_token_id": 2}, "decoder_start_token_id: got 2 in config.json, accepted 0"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id: got None in config.json, accepted 0"),
    ],
)
def test_special_tokens_that_differ_are_named(folder: Path, changes: dict[str, int | None], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(TeacherError) as refusal:
        load_teacher(str(folder))
    assert message in str(refusal.value)


def test_all_problems_are_named_at_once(folder: Path) -> None:
    change_config(folder, eos_token_id=5, decoder_start_token_id=3)
    with pytest.raises(TeacherError, match=r"eos_token_id: .*\n.*decoder_start_token_id: "):
        load_teacher(str(folder))


def test_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(DataError, match="tokenizer could not be read"):
        load_teacher(str(folder))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model could not be read"):
        load_teacher(str(tmp_path / "nowhere"))
