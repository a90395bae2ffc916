from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.student.bundle import Student, save_bundle

INFO = {"source_lang": "zh", "target_lang": "en"}


@pytest.fixture
def student(tiny_teacher: tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast], tmp_path: Path) -> Path:
    save_bundle(Student(*tiny_teacher, INFO), tmp_path / "student.pt")
    return tmp_path / "student.pt"


@pytest.fixture
def pairs(tiny_corpus: list[tuple[str, str]], tmp_path: Path) -> Path:
    (tmp_path / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in tiny_corpus[:40]))
    return tmp_path / "pairs.tsv"


class TestExport:
    def test_goes_beside_a_student_of_no_run_and_says_how_it_compares(
        self, run: Any, student: Path, pairs: Path
    ) -> None:
        called = run(
            "export", str(student), "--format", "ctranslate2", "--quantization", "float32", "--data", str(pairs)
        )
        folder = student.parent / "export" / "ctranslate2-float32"
        assert called.code == 0, called.err
        assert (folder / "model.bin").is_file()
        lines = "".join(called.out.splitlines())
        assert "100.0% of 40 translations identical" in lines
        assert f"mtdistill translate --model {folder}" in called.out
        assert run("translate", "--model", str(folder), "他喜欢猫。").out == "he likes the cat.\n"

    def test_goes_where_it_is_told(self, run: Any, student: Path, pairs: Path, tmp_path: Path) -> None:
        called = run("export", str(student), "--format", "hf", "--to", str(tmp_path / "here"), "--data", str(pairs))
        assert called.code == 0, called.err
        assert (tmp_path / "here" / "model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--format", "gguf"), "no such export format: got 'gguf', accepted hf, ctranslate2, onnx"),
            (("--format", "hf", "--quantization", "int8"), "got 'int8', accepted float32, float16, bfloat16"),
            (("--format", "hf", "--data", "gone.tsv"), "gone.tsv"),
        ],
    )
    def test_what_it_cannot_do(self, options: tuple[str, ...], message: str, run: Any, student: Path) -> None:
        called = run("export", str(student), *options)
        assert called.code == 2
        assert message in called.err

    def test_nothing_there(self, run: Any) -> None:
        called = run("export", "no/student.pt", "--format", "hf")
        assert called.code == 2
        assert "no/student.pt" in called.err


class TestCompare:
    def test_nothing_there(self, run: Any, tmp_path: Path) -> None:
        called = run("compare", str(tmp_path / "gone"))
        assert called.code == 2
        assert "there is no report card: got" in called.err
