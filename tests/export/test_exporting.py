import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.errors import CheckpointError, ConfigError, DataError, ExportError
from mtdistill.export import exporting
from mtdistill.export.exporting import PRECISIONS, Exported, export_model
from mtdistill.student.loading import find_model

EVERY = [(name, precision) for name, precisions in PRECISIONS.items() for precision in precisions]
SENTENCES = ["他喜欢猫。", "汤姆买了书。", "老师忘了花。"]
EXPECTED = ["he likes the cat.", "Tom bought the book.", "the teacher forgot the flower."]

Export = Callable[..., Exported]


@pytest.fixture(scope="module")
def exports(student_file: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Exported]:
    folder = tmp_path_factory.mktemp("exports")
    return {
        (name, precision): export_model(
            student_file,
            name,
            precision,
            destination=folder / f"{name}-{precision}",
            data=[str(pairs_file)],
            accept_loss=precision == "int8",  # so small a model may lose more than a real one
        )
        for name, precision in EVERY
    }


@pytest.fixture
def export(student_file: Path, pairs_file: Path, tmp_path: Path) -> Export:
    """One that stands in `tmp_path`; Hugging Face float32 unless asked for another."""

    def make(format_name: str = "hf", precision: str | None = None, **options: Any) -> Exported:
        given = {"destination": tmp_path / "export", "data": [str(pairs_file)]} | options
        return export_model(student_file, format_name, precision, **given)

    return make


@pytest.mark.parametrize("form", EVERY, ids="-".join)
def test_every_export_translates_like_the_model(form: tuple[str, str], exports: dict[Any, Exported]) -> None:
    done = exports[form]
    assert done.parity.sentences == 200
    assert done.parity.identical >= (0.9 if form[1] == "int8" else 0.995)
    assert done.parity.bleu_before > 95
    translations = find_model(done.folder).translator().translate(SENTENCES)
    if form[1] != "int8":
        assert [translation.text for translation in translations] == EXPECTED


@pytest.mark.parametrize("form", [("hf", "float32"), ("ctranslate2", "int8"), ("onnx", "int8")], ids="-".join)
def test_a_flipped_bit_in_any_file_is_found_before_a_library_reads_it(
    form: tuple[str, str], exports: dict[Any, Exported], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports[form].folder, tmp_path / "export"))
    assert "sha256" not in find_model(folder).info
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("README.md", "mtdistill.json")]
    assert len(files) >= 4
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=rf"not those that were written: got .*{path.name}"):
            find_model(folder)
        path.write_bytes(whole)
    find_model(folder)


@pytest.mark.parametrize("format_name", PRECISIONS)
def test_another_process_uses_it(format_name: str, exports: dict[Any, Exported]) -> None:
    folder = exports[format_name, "float32"].folder
    call = "import sys; from mtdistill.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["translate", "--model", str(folder), *SENTENCES]
    run = subprocess.run([sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == EXPECTED


@pytest.mark.parametrize("form", [("hf", "float32"), ("ctranslate2", "int8"), ("onnx", "float32")], ids="-".join)
def test_the_lines_on_use_work(form: tuple[str, str], exports: dict[Any, Exported]) -> None:
    folder = exports[form].folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code.strip().splitlines()) <= 6
    assert "no_repeat_ngram_size=3" in card
    code = code.replace("path/to/this/folder", folder.as_posix())
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "he likes the cat.\n"  # the first sentence of the pairs


def test_smaller_numbers_make_smaller_files(exports: dict[Any, Exported]) -> None:
    sizes = {
        form: (done.folder / "model.bin").stat().st_size for form, done in exports.items() if form[0] == "ctranslate2"
    }
    assert sizes["ctranslate2", "float32"] > 1.5 * sizes["ctranslate2", "float16"]
    assert sizes["ctranslate2", "float16"] > 1.3 * sizes["ctranslate2", "int8"]
    assert exports["hf", "float32"].mib > exports["hf", "float16"].mib


@pytest.mark.parametrize("form", EVERY, ids="-".join)
def test_an_export_says_what_it_is(form: tuple[str, str], exports: dict[Any, Exported], student_file: Path) -> None:
    info = json.loads((exports[form].folder / "mtdistill.json").read_text(encoding="utf-8"))
    assert (info["source_lang"], info["target_lang"]) == ("zh", "en")
    assert info["parameters"] == find_model(student_file).parameters
    assert (info["export"]["format"], info["export"]["precision"]) == form
    assert info["export"]["parity"]["identical"] == exports[form].parity.identical


@pytest.mark.parametrize(("format_name", "default"), [("hf", "float32"), ("ctranslate2", "int8"), ("onnx", "int8")])
def test_the_default_number_format(format_name: str, default: str) -> None:
    assert exporting._checked(format_name, None) == default


class TestTheOlderExport:
    @pytest.fixture(autouse=True)
    def older(self, tmp_path: Path) -> Path:
        (tmp_path / "export").mkdir()
        (tmp_path / "export" / "mtdistill.json").write_text('{"export": {}}')
        return tmp_path / "export"

    def unchanged(self, folder: Path) -> bool:
        return {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*")} == {
            ".export.lock",
            "export",
            "export/mtdistill.json",
        }

    def test_another_export_to_it_is_waited_for_by_the_user(self, export: Export, older: Path) -> None:
        with FileLock(older.with_name(".export.lock")), pytest.raises(ExportError, match="another export is writing"):
            export()
        assert self.unchanged(older)

    def test_what_a_kill_left_is_put_back_first(self, export: Export, older: Path) -> None:
        older.rename(older.with_name(".export.abcdefgh.old"))
        (older.parent / ".export.12345678.part").mkdir()
        export()
        assert {path.name for path in older.parent.iterdir()} == {".export.lock", "export"}

    def test_gives_way_to_a_good_one(self, export: Export, older: Path) -> None:
        export()
        assert json.loads((older / "mtdistill.json").read_text(encoding="utf-8"))["export"]["format"] == "hf"
        assert (older / "model.safetensors").is_file()

    def test_stays_when_the_new_one_is_refused(
        self, export: Export, older: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = exporting.measure_parity
        monkeypatch.setattr(
            exporting, "measure_parity", lambda *a, **o: replace(measured(*a, **o), identical=0.5, bleu_after=1.0)
        )
        for format_name in PRECISIONS:
            with pytest.raises(ExportError, match=r"50\.0%"):
                export(format_name)
            assert self.unchanged(older)
        assert export(accept_loss=True).parity.identical == 0.5

    @pytest.mark.parametrize(("format_name", "said"), [("ctranslate2", True), ("onnx", False)])
    def test_a_refusal_names_a_processor_that_overflows(
        self, format_name: str, said: bool, export: Export, older: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = exporting.measure_parity
        monkeypatch.setattr(exporting, "measure_parity", lambda *a, **o: replace(measured(*a, **o), bleu_after=1.0))
        monkeypatch.setattr("mtdistill.decoding.overflow.int8_overflows", lambda: True)
        with pytest.raises(ExportError) as refused:
            export(format_name, "int8")
        assert ("CT2_USE_MKL=1" in str(refused.value)) is said

    def test_stays_when_the_new_one_is_interrupted(
        self, export: Export, older: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_arguments: object, **_options: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(exporting, "measure_parity", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export("ctranslate2")
        assert self.unchanged(older)


class TestBadInput:
    def test_an_unknown_format(self, export: Export) -> None:
        with pytest.raises(ConfigError, match=r"got 'tflite', accepted hf, ctranslate2, onnx"):
            export("tflite")

    @pytest.mark.parametrize(
        ("format_name", "precision"), [("hf", "int8"), ("onnx", "float16"), ("ctranslate2", "int4")]
    )
    def test_a_number_format_it_cannot_hold(self, format_name: str, precision: str, export: Export) -> None:
        with pytest.raises(ConfigError, match=f"got '{precision}', accepted"):
            export(format_name, precision)

    @pytest.mark.parametrize("format_name", ["ctranslate2", "onnx"])
    def test_an_export_of_an_export(
        self, format_name: str, exports: dict[Any, Exported], pairs_file: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ExportError, match="cannot be exported again"):
            export_model(
                exports[format_name, "float32"].folder, "hf", destination=tmp_path / "x", data=[str(pairs_file)]
            )

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no student"):
            export_model(tmp_path / "student_best.pt", "hf")

    def test_nothing_to_compare_on(self, export: Export, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.tsv"):
            export(data=[str(tmp_path / "gone.tsv")])

    def test_a_model_of_another_tool(
        self, tiny_teacher: tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast], tmp_path: Path
    ) -> None:
        for part in tiny_teacher:
            part.save_pretrained(tmp_path / "model")
        with pytest.raises(CheckpointError, match="does not say how it was made"):
            export_model(tmp_path / "model", "hf")

    @pytest.mark.parametrize("content", ["thesis.txt", "mtdistill.json"])
    def test_a_folder_that_holds_something_else(self, content: str, export: Export, tmp_path: Path) -> None:
        (tmp_path / content).write_text("{}")
        with pytest.raises(ExportError, match="would replace something else"):
            export(destination=tmp_path, data=["gone.tsv"])  # said before any text is read
        assert [path.name for path in tmp_path.iterdir()] == [content]

    @pytest.mark.parametrize("place", [".", "below/..", "../here"])
    def test_the_folder_one_is_in(
        self, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with pytest.raises(ExportError, match="would replace the folder you are in"):
            export(destination=Path(place))

    def test_a_disk_that_is_full(self, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_arguments: object) -> None:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(T5ForConditionalGeneration, "save_pretrained", full)
        with pytest.raises(ExportError, match=r"could not be written: got .*hf \(No space left on device\)"):
            export(destination=tmp_path / "hf")
        assert [path.name for path in tmp_path.iterdir()] == [".hf.lock"]

    def test_a_place_that_cannot_be_written(self, export: Export, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ExportError, match=r"could not be written: got .*file"):
            export(destination=tmp_path / "file" / "export")
