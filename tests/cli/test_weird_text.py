"""Text that is no sentence, through `mtdistill translate` and the translators behind it, in every engine."""

import io
import json
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtdistill.decoding import HuggingFaceTranslator, Translation, Translator
from mtdistill.decoding.translator import MAX_SOURCE_TOKENS
from mtdistill.output_checks import CHECKS
from mtdistill.report.wording import check_name

from .conftest import Called, Run

KNOWN, LEARNT = "他喜欢猫。", "he likes the cat."
INFO = {"source_lang": "zh", "target_lang": "en"}
MOST_SECONDS = 30  # for a line of any length; measured: 3 on one busy core

INVISIBLE = {
    "empty": "",
    "spaces": "  \t \u3000\u00a0\u2003",
    "control": "\x00\x01\x07\x1b\x7f\x9f",
    "zero width": "\u200b\u200c\u200d\ufeff\u2060",
    "direction": "\u202e\u202d\u200f\u200e\u2066\u2069",
    "both": " \u200b \x00 \u202e ",
}
VISIBLE = {
    "emoji": "👨‍👩‍👧‍👦🇨🇳🏳️‍🌈👍🏽",
    "emoji in text": "他喜欢😀猫。",
    "control in text": "他\x00喜\x07欢\x1b[31m猫\x1b[0m。\x08\x7f",
    "zero width in text": "他\u200b喜\u200d欢\ufeff猫。",
    "direction in text": "\u202e他喜欢猫。\u202c",
    "right to left": "שלום עולם مرحبا",
    "combining": "Z\u0351\u036b\u0343\u0321" + "a\u0301" * 50,
    "line separators": "他喜欢\u2028猫\u2029。\x85\x0b\x0c\r狗",
    "SQL": "'; DROP TABLE students; --",
    "HTML": "<script>alert('他')</script>&lt;br/&gt;<!-- -->",
    "markup of rich": "[red]他[/] [link=x]:cat:[/link] [/]",
    "special tokens": "</s><pad><unk>﹤/s﹥﹤pad﹥<0x0A>▁",
    "format strings": "%s %n {0} {} ${HOME} `id` \\x00 \\",
    "lone surrogates": "他\udcff\ud800喜欢",
    "replacement": "\ufffd\ufffe\uffff",
    "private use": "\ue000\U0010ffff",
    "numbers": "١٢٣ ⅷ 𝟘𝟙 0x1F 1e400 NaN",
    "punctuation": "…？！——「」",
    "mathematical": "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−L|<ε",
    "ancient": "𒀀𓀀𐍈𠮷",
    "repeated": "哈哈哈哈哈哈哈哈哈哈哈哈哈哈",
}
ENDLESS = {
    "one character": "猫" * 100_000,
    "words": "Tom likes tea " * 7_142 + "Tom likes te",
    "emoji": "😀" * 100_000,
    "no spaces": "".join(chr(ord("a") + (i * i * 7919 + i) % 26) for i in range(100_000)),
    "marks": "a" + "\u0301" * 99_999,
}


@pytest.fixture(scope="session")
def models(
    trained_tiny_teacher: Any, tiny_tokenizer: Any, tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The tiny teacher in every form that `--model` takes."""
    from mtdistill.decoding import convert_to_ctranslate2
    from mtdistill.export.onnx import convert_to_onnx
    from mtdistill.student.bundle import Student, save_bundle

    root = tmp_path_factory.mktemp("models")
    paths = {"PyTorch": root / "student.pt", "CTranslate2": root / "ctranslate2", "ONNX Runtime": root / "onnx"}
    save_bundle(Student(trained_tiny_teacher, tiny_tokenizer, INFO), paths["PyTorch"])
    for engine in ("CTranslate2", "ONNX Runtime"):
        paths[engine].mkdir()
        (paths[engine] / "mtdistill.json").write_text(json.dumps(INFO), encoding="utf-8")
    convert_to_ctranslate2(tiny_teacher_folder, paths["CTranslate2"])
    convert_to_onnx(trained_tiny_teacher, tiny_tokenizer, paths["ONNX Runtime"])
    return {engine: str(path) for engine, path in paths.items()}


@pytest.fixture(params=["PyTorch", "CTranslate2", "ONNX Runtime"])
def model(request: pytest.FixtureRequest, models: dict[str, str]) -> str:
    """Each form in turn."""
    return models[request.param]


def lines_of(called: Called) -> list[str]:
    """What was printed: a translation or the failure marker with its reason, for each line one, and nothing else."""
    assert called.err == ""
    assert called.out.endswith("\n")
    lines = called.out[:-1].split("\n")
    failed = [line for line in lines if line.startswith("[translation failed]")]
    assert set(failed) <= {f"[translation failed] ({check_name(check)})" for check in CHECKS}
    assert called.code == bool(failed)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for line in lines for c in line)
    return lines


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_nothing_to_see_is_nothing_to_translate(text: str, model: str, run: Run) -> None:
    called = run("translate", "--model", model, text, KNOWN)
    assert lines_of(called) == ["", LEARNT]
    assert called.code == 0


@pytest.mark.parametrize("text", VISIBLE.values(), ids=VISIBLE)
def test_every_line_gets_a_translation_or_a_reason(text: str, model: str, run: Run) -> None:
    lines = lines_of(run("translate", "--model", model, KNOWN, text, KNOWN))
    assert len(lines) == 3
    assert lines[0] == lines[2] == LEARNT
    assert lines[1]


def test_the_widest_beam(model: str, run: Run, tiny_teacher: Any) -> None:
    lines = lines_of(run("translate", "--model", model, "--beam", "64", *VISIBLE.values(), *INVISIBLE.values(), KNOWN))
    assert len(lines) == len(VISIBLE) + len(INVISIBLE) + 1
    # Not LEARNT: trained on some processors, the teacher's best of 64 is another.
    teacher, tokenizer = tiny_teacher
    known = tokenizer([KNOWN], return_tensors="pt")
    best = teacher.generate(**known, num_beams=64, early_stopping=True, max_new_tokens=40)[0]
    assert lines[-1] == tokenizer.decode(best, skip_special_tokens=True).strip()


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_line_of_a_hundred_thousand_characters_ends_soon(text: str, model: str, run: Run) -> None:
    assert len(text) == 100_000
    started = time.monotonic()
    lines = lines_of(run("translate", "--model", model, text, KNOWN))
    assert time.monotonic() - started < MOST_SECONDS
    assert lines[1] == LEARNT
    assert lines[0] in ("[translation failed] (runs into the length cap)", "[translation failed] (empty)")


def test_a_line_of_a_thousand_sentences_is_translated_to_its_end(model: str, run: Run) -> None:
    assert lines_of(run("translate", "--model", model, KNOWN * 1000)) == [" ".join([LEARNT] * 1000)]


def test_the_weirdest_through_standard_input(model: str, run: Run) -> None:
    # In a text stream \r ends a line, and so it does in a file that is piped in.
    texts = [text.replace("\r", "") for text in [*VISIBLE.values(), *INVISIBLE.values(), KNOWN]]
    content = "\n".join(texts).encode("utf-8", "surrogatepass").replace(b"\xed\xa0\x80", b"\xff")
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")  # as in the C locale
    lines = lines_of(run("translate", "--model", model, stdin=stream))
    assert len(lines) == len(texts)
    assert lines[-1] == LEARNT


@pytest.mark.parametrize(
    "content",
    [f"\ufeff{KNOWN}\n{KNOWN}\n", f"{KNOWN}\r\n{KNOWN}\r\n", f"\ufeff{KNOWN}\r\n{KNOWN}", f"{KNOWN}\r{KNOWN}"],
    ids=["mark", "crlf", "mark and crlf", "cr"],
)
def test_files_of_other_systems_are_piped_in(content: str, models: dict[str, str], run: Run) -> None:
    stream = io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8")
    assert lines_of(run("translate", "--model", models["PyTorch"], stdin=stream)) == [LEARNT, LEARNT]


@pytest.mark.parametrize("content", [b"\xe4\xbb", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80"])
def test_invalid_utf8_is_refused_after_what_came_before(content: bytes, models: dict[str, str], run: Run) -> None:
    before = f"{KNOWN}\n".encode() * 600  # more than a stream reads ahead
    stream = io.TextIOWrapper(io.BytesIO(before + content), encoding="utf-8")
    called = run("translate", "--model", models["CTranslate2"], stdin=stream)
    assert called.code == 2
    assert set(called.out.splitlines()) == {LEARNT}
    assert "got bytes that are no utf-8, accepted text. Convert it to UTF-8 first." in called.err


class Scripted(Translator):
    """An engine that says what it is told, and remembers what it was given."""

    engine = "scripted"
    precision = "none"
    threads = 1

    def __init__(self, tokenizer: Any, answer: Callable[[list[int]], list[int]]) -> None:
        super().__init__(tokenizer, "zh", 256)
        self.answer = answer
        self.given: list[list[int]] = []

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        self.given += source_ids
        return [self.answer(ids) for ids in source_ids]


@pytest.mark.parametrize(("beyond", "cut"), [(0, False), (1, True), (50_000, True)])
def test_a_source_is_read_up_to_the_limit_and_what_is_cut_is_said(beyond: int, cut: bool, tiny_tokenizer: Any) -> None:
    end = tiny_tokenizer.eos_token_id
    one = len(tiny_tokenizer("q")["input_ids"])
    translator = Scripted(tiny_tokenizer, lambda _ids: [*tiny_tokenizer.convert_tokens_to_ids(["q"]), end])
    [translation] = translator.translate(["q" * (MAX_SOURCE_TOKENS - one + 1 + beyond)], second_try=False)
    [given] = translator.given
    assert len(given) == MAX_SOURCE_TOKENS
    assert given[-1] == end
    assert end not in given[:-1]
    assert translation == Translation("q", hit_length_cap=cut, tokens=2)


def test_what_is_not_visible_never_reaches_the_engine(tiny_tokenizer: Any) -> None:
    translator = Scripted(tiny_tokenizer, lambda ids: ids)
    assert translator.translate([*INVISIBLE.values()]) == [Translation("")] * len(INVISIBLE)
    assert translator.given == []


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["q", "<0x0A>", "q"], "q q"),
        (["q", "<0x0D>", "<0x0A>"], "q"),
        (["<0x1B>", "[", "q"], "[q"),
        (["q", "<0xE2>", "<0x80>", "<0xA8>", "q"], "q q"),
        (["<0x00>", "<0x00>"], ""),
    ],
)
def test_a_translation_is_one_line_of_text(pieces: list[str], text: str, tiny_tokenizer: Any) -> None:
    ids = tiny_tokenizer.convert_tokens_to_ids(pieces)
    assert tiny_tokenizer.unk_token_id not in ids
    translator = Scripted(tiny_tokenizer, lambda _ids: [*ids, tiny_tokenizer.eos_token_id])
    assert translator.translate(["猫"])[0].text == text


def test_the_teacher_beside_a_student(run: Run, models: dict[str, str], tiny_teacher_folder: Path) -> None:
    options = ("--model", models["ONNX Runtime"], "--teacher", str(tiny_teacher_folder))
    called = run("translate", *options, "\u200b", "猫" * 3000)
    assert called.code == 1
    assert called.out.splitlines()[:2] == ["teacher ", "student "]
    assert [line.split(" ", 1)[0] for line in called.out.splitlines()] == ["teacher", "student"] * 2


def test_long_lines_do_not_spoil_their_neighbours(tiny_teacher: Any) -> None:
    translator = HuggingFaceTranslator(*tiny_teacher, source_lang="zh", threads=1)
    sources = [KNOWN, ENDLESS["words"], KNOWN, *VISIBLE.values(), "", KNOWN * 500, KNOWN]
    outputs = translator.translate(sources)
    assert len(outputs) == len(sources)
    assert [output.text for output in (outputs[0], outputs[2], outputs[-1])] == [LEARNT] * 3
    assert outputs[1].hit_length_cap
    assert outputs[-2].text.count(LEARNT) == 500
