import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.student.bundle import Student, save_bundle

TinyTeacher = tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]
INFO = {"source_lang": "zh", "target_lang": "en"}


@pytest.fixture
def student(tiny_teacher: TinyTeacher, tmp_path: Path) -> str:
    save_bundle(Student(*tiny_teacher, INFO), tmp_path / "student.pt")
    return str(tmp_path / "student.pt")


@pytest.fixture
def silent_student(tiny_teacher: TinyTeacher, tmp_path: Path) -> str:
    """All weights are 0, so that it pads until it is stopped."""
    with torch.no_grad():
        for parameter in tiny_teacher[0].parameters():
            parameter.zero_()
    save_bundle(Student(*tiny_teacher, INFO), tmp_path / "silent.pt")
    return str(tmp_path / "silent.pt")


def test_arguments_are_translated_line_by_line(run: Any, student: str) -> None:
    called = run("translate", "--model", student, "他喜欢猫。", "汤姆买了书。")
    assert (called.code, called.err) == (0, "")
    assert called.out == "he likes the cat.\nTom bought the book.\n"


def test_a_hint_about_the_processor_is_not_among_the_translations(
    run: Any, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mtdistill.decoding.overflow.overflow_hint", lambda translator: f"{translator.engine} [overflows]"
    )
    called = run("translate", "--model", student, "他喜欢猫。")
    assert (called.out, called.err) == ("he likes the cat.\n", "PyTorch [overflows]\n")


def test_standard_input_is_translated_and_empty_lines_stay(run: Any, student: str) -> None:
    called = run("translate", "--model", student, stdin="他喜欢猫。\n\n   \n汤姆买了书。")
    assert called.code == 0
    assert called.out == "he likes the cat.\n\n\nTom bought the book.\n"


def test_nothing_to_translate(run: Any, student: str) -> None:
    called = run("translate", "--model", student)
    assert (called.code, called.out, called.err) == (0, "", "")


def test_at_a_terminal_it_asks_until_an_empty_line(run: Any, student: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    called = run("translate", "--model", student, "--beam", "2", stdin=Terminal("他喜欢猫。\n\n汤姆买了书。\n"))
    assert called.out.splitlines() == ["Type a sentence; empty line or Ctrl-D to leave.", "he likes the cat."]


def test_the_teacher_alone(run: Any, tiny_teacher_folder: Path) -> None:
    called = run("translate", "--teacher", str(tiny_teacher_folder), "他喜欢猫。")
    assert (called.code, called.out) == (0, "he likes the cat.\n")


@pytest.mark.parametrize(
    ("lang", "lines"),
    [
        ("en", ["teacher he likes the cat.", "student [translation failed] (empty)"]),
        ("zh", ["教师 he likes the cat.", "学生 [翻译失败]（空译文）"]),
    ],
)
def test_a_failure_is_marked_beside_the_teacher(
    lang: str, lines: list[str], run: Any, tiny_teacher_folder: Path, silent_student: str
) -> None:
    models = ("--model", silent_student, "--teacher", str(tiny_teacher_folder))
    called = run("translate", *models, "他喜欢猫。", "--lang", lang)
    assert called.code == 1
    assert called.out.splitlines() == lines


def test_brackets_and_colons_are_no_markup(run: Any, student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtdistill.decoding import HuggingFaceTranslator, Translation

    text = "a [red]cat[/] at 10 :cat: o'clock"
    monkeypatch.setattr(HuggingFaceTranslator, "translate", lambda *_arguments, **_options: [Translation(text)])
    assert run("translate", "--model", student, "他喜欢猫。").out == f"{text}\n"


def test_input_in_another_encoding_is_refused(run: Any, student: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO("他喜欢猫。".encode("gb18030")), encoding="utf-8")
    called = run("translate", "--model", student, stdin=stream)
    assert called.code == 2
    assert "standard input could not be read: got bytes that are no utf-8" in called.err


@pytest.mark.parametrize("option", ["--model", "--teacher"])
def test_a_model_that_is_not_there(option: str, run: Any) -> None:
    called = run("translate", option, "no/such/model", "x")
    assert called.code == 2
    assert "no/such/model" in called.err


@pytest.mark.parametrize(("kept", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_the_promises_hold(
    kept: bool, code: int, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    for name in ("a.pt", "x.tsv", "y.tsv", "c.ckpt"):
        (tmp_path / name).write_text("content", encoding="utf-8")
    asked: list[Any] = []

    def measure(path: Path, _display: object, **options: Any) -> Any:
        asked.append((path, options))
        return SimpleNamespace(keeps_promises=kept)

    monkeypatch.setattr("mtdistill.distillation.measuring.measure_student", measure)
    monkeypatch.setattr("mtdistill.report.render", lambda card: f"promises kept: {card.keeps_promises}")
    options = ("--teacher", "t", "--output", "o", "--data", "x.tsv", "--data", "y.tsv", "--quick", "--comet", "c.ckpt")
    called = run("test", "--model_path", "a.pt", *options)
    assert called.code == code
    assert called.out == f"promises kept: {kept}\n"
    assert asked == [
        (
            Path("a.pt"),
            {
                "teacher": "t",
                "output": "o",
                "data": ["x.tsv", "y.tsv"],
                "thorough": False,
                "comet_model": Path("c.ckpt"),
            },
        )
    ]


def test_a_student_that_cannot_be_tested(run: Any, tiny_teacher: TinyTeacher, tmp_path: Path) -> None:
    save_bundle(Student(*tiny_teacher, {}), tmp_path / "student.pt")
    called = run("test", "--model_path", str(tmp_path / "student.pt"))
    assert called.code == 2
    assert "does not say how it was made" in called.err
