import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration

from mtdistill.decoding import CTranslate2Translator, Translation, convert_to_ctranslate2
from mtdistill.decoding.conversion import VOCABULARY_FILE
from mtdistill.decoding.shortlist import SHORTLIST_FILE, require_shortlist, shortlist, write_shortlist
from mtdistill.errors import CheckpointError

PIECES = ["</s>", "<0x41>", "▁the", "你", "▁Ж", "か", "3", ".", "▁d é"]


@pytest.mark.parametrize(
    ("source_lang", "target_lang", "left_out"),
    [
        ("zh", "en", {"你"}),
        ("zh_Hans", "en-US", {"你"}),
        ("en", "zh", set()),  # names stay Latin in every language
        ("ru", "de", {"▁Ж"}),
        ("ja", "zh", {"か"}),
        ("zh", "ja", set()),
        ("zh", "tlh", set()),  # nothing is known of what it is written with
        ("tlh", "en", set()),
    ],
)
def test_pieces_in_letters_of_the_source_alone_are_left_out(
    source_lang: str, target_lang: str, left_out: set[str]
) -> None:
    assert shortlist(PIECES, source_lang, target_lang) == [piece for piece in PIECES if piece not in left_out]


def test_what_is_written_is_accepted(tmp_path: Path) -> None:
    require_shortlist(tmp_path, PIECES)
    write_shortlist(tmp_path, PIECES, "en", "zh")
    assert list(tmp_path.iterdir()) == []  # it would hold everything
    write_shortlist(tmp_path, PIECES, "zh", "en")
    require_shortlist(tmp_path, PIECES)
    listed = (tmp_path / SHORTLIST_FILE).read_text(encoding="utf-8").split()
    assert listed == ["</s>", "<0x41>", "▁the", "▁Ж", "か", "3", "."]  # a space parts pieces, so none can hold one


@pytest.mark.parametrize(
    "content", ["", "\n", "\t", "\t\n", "the\t▁the\n", "\tunknown\n", "\t▁the\n\t▁the\n", "▁the", "\t▁the\x00"]
)
def test_anything_else_in_its_place_is_refused(content: str, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path)
    (tmp_path / SHORTLIST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vmap\.txt is no list of its pieces"):
        CTranslate2Translator.open(tmp_path, source_lang="zh")


@pytest.fixture
def chinese_writer(tiny_teacher: Any) -> T5ForConditionalGeneration:
    """A model with random weights, which writes whatever pieces there are."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = copy.deepcopy(tiny_teacher[0].config)
        config.initializer_factor = 3.0
        return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("beam_size", [1, 4])
def test_no_other_pieces_are_written(
    beam_size: int, chinese_writer: T5ForConditionalGeneration, tiny_teacher: Any, tiny_corpus: list[tuple[str, str]]
) -> None:
    _, tokenizer = tiny_teacher
    sources = [source for source, _ in tiny_corpus[:40]]

    def outputs(**options: Any) -> list[str]:
        translator = CTranslate2Translator.from_model(chinese_writer, tokenizer, source_lang="zh", **options)
        return [each.text for each in translator.translate(sources, beam_size=beam_size, second_try=False)]

    def is_chinese(text: str) -> bool:
        return any("\u4e00" <= c <= "\u9fff" for c in text)

    assert any(map(is_chinese, outputs()))
    assert not any(map(is_chinese, outputs(target_lang="en")))


def test_greedy_outputs_are_those_of_transformers_with_the_same_pieces_suppressed(
    chinese_writer: T5ForConditionalGeneration, tiny_teacher: Any, tiny_corpus: list[tuple[str, str]]
) -> None:
    _, tokenizer = tiny_teacher
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kept = set(shortlist(pieces, "zh", "en"))
    suppressed = [row for row, piece in enumerate(pieces) if piece not in kept]
    translator = CTranslate2Translator.from_model(chinese_writer, tokenizer, source_lang="zh", target_lang="en")
    for source, _ in tiny_corpus[:20]:
        inputs = tokenizer([source], return_tensors="pt")
        cap = 3 * inputs.input_ids.shape[1] + 10
        ids = chinese_writer.generate(**inputs, max_new_tokens=cap, suppress_tokens=suppressed)
        found = translator.translate([source], second_try=False)[0]
        assert found.text == tokenizer.decode(ids[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_model_that_writes_the_right_language_translates_as_before(
    beam_size: int, tiny_teacher: Any, learnt: dict[str, Translation]
) -> None:
    def translate(**options: Any) -> list[Translation]:
        model, tokenizer = tiny_teacher
        translator = CTranslate2Translator.from_model(model, tokenizer, source_lang="zh", **options)
        return translator.translate(list(learnt), beam_size=beam_size)

    outputs = translate(target_lang="en")
    assert sum(a == b for a, b in zip(outputs, translate(), strict=True)) >= len(outputs) * (
        1 if beam_size == 1 else 0.99
    )


def test_it_is_of_the_vocabulary_of_the_folder(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path, languages=("zh", "en"))
    pieces = json.loads((tmp_path / VOCABULARY_FILE).read_text(encoding="utf-8"))
    require_shortlist(tmp_path, pieces)
    with pytest.raises(ValueError, match="no list of its pieces"):
        require_shortlist(tmp_path, pieces[:5])
