import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration

from mtdistill.decoding import CTranslate2Translator, Translation, convert_to_ctranslate2
from mtdistill.decoding.conversion import SHARED_VOCABULARY, SOURCE_VOCABULARY, TARGET_VOCABULARY
from mtdistill.decoding.model_bin import require_t5
from mtdistill.decoding.target_pieces import target_pieces
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
    assert target_pieces(PIECES, source_lang, target_lang) == [piece for piece in PIECES if piece not in left_out]


def vocabulary(folder: Path, name: str) -> list[str]:
    pieces: list[str] = json.loads((folder / name).read_text(encoding="utf-8"))
    return pieces


def test_a_folder_has_two_vocabularies_where_pieces_are_left_out(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path)
    everything = vocabulary(tmp_path, SHARED_VOCABULARY)
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path, languages=("zh", "en"))
    assert vocabulary(tmp_path, SOURCE_VOCABULARY) == everything
    assert vocabulary(tmp_path, TARGET_VOCABULARY) == target_pieces(everything, "zh", "en") != everything
    assert require_t5(tmp_path / "model.bin") == (len(everything), len(vocabulary(tmp_path, TARGET_VOCABULARY)))
    assert not (tmp_path / SHARED_VOCABULARY).exists()  # CTranslate2 would take it
    # Names stay Latin in every language: nothing to leave out, one vocabulary as before.
    (tmp_path / "vmap.txt").write_text("of somebody else's model")
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path, languages=("en", "zh"))
    assert vocabulary(tmp_path, SHARED_VOCABULARY) == everything
    assert not (tmp_path / SOURCE_VOCABULARY).exists()
    assert not (tmp_path / TARGET_VOCABULARY).exists()
    CTranslate2Translator.open(tmp_path, source_lang="en")


@pytest.mark.parametrize("change", ["fewer", "more", "twice", "others", "moved", "no end", "none", "number"])
def test_another_target_vocabulary_is_refused(change: str, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path, languages=("zh", "en"))
    pieces, everything = (vocabulary(tmp_path, name) for name in (TARGET_VOCABULARY, SOURCE_VOCABULARY))
    chinese = next(piece for piece in everything if piece not in pieces)
    end = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["eos_token"]
    changed = {
        "fewer": pieces[:-1],
        "more": [*pieces, chinese],
        "twice": [*pieces[:-1], pieces[-2]],
        "others": [*pieces[:-1], "unknown"],
        "moved": pieces[::-1],
        "no end": [piece for piece in everything if piece in {*pieces, chinese} - {end}],
        "none": [],
        "number": 3,
    }[change]
    (tmp_path / TARGET_VOCABULARY).write_text(json.dumps(changed), encoding="utf-8")
    reason = {"no end": "special tokens that are no pieces", "number": "TypeError"}.get(change, "another vocabulary")
    with pytest.raises(CheckpointError, match=reason):
        CTranslate2Translator.open(tmp_path, source_lang="zh")


@pytest.mark.parametrize("name", ["bos", "eos", "unk", "decoder_start"])
def test_a_special_token_that_is_no_piece_is_refused(name: str, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    """CTranslate2 would look it up beyond the table."""
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, f"{name}_token": "<unheard-of>"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"special tokens that are no pieces: .*<unheard-of>"):
        CTranslate2Translator.open(tmp_path, source_lang="zh")


def test_a_vocabulary_map_is_refused(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    convert_to_ctranslate2(tiny_teacher_folder, tmp_path)
    (tmp_path / "vmap.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"vmap\.txt"):
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
    kept = set(target_pieces(pieces, "zh", "en"))
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
