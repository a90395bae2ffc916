"""A model is found in whatever form it is in, and says what is known about it."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.config import DataConfig, RunConfig, apply_overrides
from mtdistill.data.prepared import tokenizer_fingerprint
from mtdistill.decoding import OnnxTranslator, convert_to_ctranslate2
from mtdistill.display import Display
from mtdistill.errors import CheckpointError, ConfigError, DataError, MtdistillError
from mtdistill.presets import load_preset
from mtdistill.student.bundle import Student, save_bundle, save_folder
from mtdistill.student.loading import FoundModel, find_model, prepared_data_of, run_folder_of

INFO = {"source_lang": "zh", "target_lang": "en", "parameters": 12_345, "note": "备注"}
SOURCE, TARGET = "老师喜欢猫。", "the teacher likes the cat."

Save = Callable[[Student, Path], Path]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Settings of a run that are those of no preset, with data that has languages of its own."""
    return apply_overrides(
        load_preset("quick").config,
        [f"output={tmp_path / 'runs'}", "training.seed=7", "data.train=corpus.tsv", "data.source_lang=zh",
         "data.target_lang=en"],
    )  # fmt: skip


@pytest.fixture
def student(tiny_teacher: tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast], config: RunConfig) -> Student:
    return Student(*tiny_teacher, {**INFO, "config": config.model_dump(mode="json")})


@pytest.fixture(scope="session")
def converted(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny teacher as CTranslate2 folders without information, by number format."""
    folders = {precision: tmp_path_factory.mktemp("converted") for precision in ("float32", "int8")}
    for precision, folder in folders.items():
        convert_to_ctranslate2(tiny_teacher_folder, folder, precision)  # type: ignore[arg-type]
    return folders


@pytest.fixture
def export(converted: dict[str, Path], tmp_path: Path) -> Path:
    """An export to CTranslate2 whose information may be changed."""
    folder = tmp_path / "export" / "ctranslate2-float32"
    folder.mkdir(parents=True)
    for file in converted["float32"].iterdir():
        os.link(file, folder / file.name)
    (folder / "mtdistill.json").write_text(json.dumps(INFO), encoding="utf-8")
    return folder


def as_bundle(student: Student, folder: Path) -> Path:
    save_bundle(student, folder / "any name.pt")
    return folder / "any name.pt"


def as_run_folder(student: Student, folder: Path) -> Path:
    save_bundle(student, folder / "checkpoints" / "student_best.pt")
    return folder


def as_folder(student: Student, folder: Path) -> Path:
    save_folder(student, folder / "student_best")
    return folder / "student_best"


def has_info(folder: Path, info: Any) -> FoundModel:
    (folder / "mtdistill.json").write_text(json.dumps(info), encoding="utf-8")
    return find_model(folder)


class TestForms:
    @pytest.mark.parametrize("save", [as_bundle, as_run_folder, as_folder])
    def test_a_student(self, save: Save, student: Student, tmp_path: Path) -> None:
        path = save(student, tmp_path / "saved")
        found = find_model(path)
        assert (found.path, found.form) == (path, "PyTorch")
        assert found.info == student.info
        assert (found.source_lang, found.target_lang) == ("zh", "en")
        translator = found.translator(threads=2)
        assert (translator.engine, translator.precision, translator.threads) == ("PyTorch", "float32", 2)
        assert [translation.text for translation in translator.translate([SOURCE])] == [TARGET]

    def test_a_teacher(self, tiny_teacher_folder: Path) -> None:
        found = find_model(tiny_teacher_folder)
        assert (found.path, found.form) == (tiny_teacher_folder, "PyTorch")
        assert found.info == {"source_lang": "zh", "target_lang": "en"}  # of training_record.json
        assert [translation.text for translation in found.translator().translate([SOURCE])] == [TARGET]

    @pytest.mark.parametrize("precision", ["float32", "int8"])
    def test_an_export_to_ctranslate2_in_the_number_format_of_its_files(
        self, precision: str, converted: dict[str, Path]
    ) -> None:
        found = find_model(converted[precision])
        assert (found.path, found.form, found.student) == (converted[precision], "CTranslate2", None)
        translator = found.translator(threads=2)
        assert (translator.engine, translator.precision, translator.threads) == ("CTranslate2", precision, 2)
        assert [translation.text for translation in translator.translate([SOURCE])] == [TARGET]

    def test_what_an_export_says_about_itself(self, export: Path) -> None:
        found = find_model(export)
        assert found.info == INFO
        assert (found.source_lang, found.target_lang) == ("zh", "en")
        assert found.translator().source_lang == "zh"

    def test_an_export_to_onnx(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "onnx").mkdir()
        found = has_info(tmp_path, INFO)
        assert (found.path, found.form, found.student, found.info) == (tmp_path, "ONNX Runtime", None, INFO)
        opened: list[tuple[Any, ...]] = []
        monkeypatch.setattr(OnnxTranslator, "open", lambda *args, **options: opened.append((*args, options)))
        found.translator(threads=2)
        assert opened == [(tmp_path, {"source_lang": "zh", "threads": 2})]

    def test_a_model_of_another_tool_says_nothing(self, tiny_teacher_folder: Path, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            os.link(tiny_teacher_folder / name, tmp_path / name)
        found = find_model(tmp_path)
        assert (found.form, found.info, found.source_lang, found.target_lang) == ("PyTorch", {}, "", "")
        assert found.translator().translate([SOURCE])[0].text == TARGET

    def test_languages_that_are_null_are_not_known(self, export: Path) -> None:
        found = has_info(export, {"source_lang": None, "target_lang": None})
        assert (found.source_lang, found.target_lang) == ("", "")


class TestRefused:
    @pytest.mark.parametrize("name", ["gone", "gone.pt", "no/such/folder"])
    def test_nothing_there(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no student"):
            find_model(tmp_path / name)

    def test_a_name_that_no_file_can_have(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"\(File name too long\)"):
            find_model(tmp_path / ("x" * 5000))

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no model", encoding="utf-8")
        with pytest.raises(CheckpointError):
            find_model(tmp_path)

    def test_a_file_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "model.bin").write_bytes(b"weights of another tool")
        with pytest.raises(CheckpointError, match=r"could not be read: got .*model\.bin"):
            find_model(tmp_path / "model.bin")

    def test_a_run_without_a_student_yet(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoints").mkdir()
        for name in ("config.toml", "environment.json"):
            (tmp_path / name).write_text("", encoding="utf-8")
        with pytest.raises(CheckpointError):
            find_model(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"source_lang": "\xff"}'], ids=repr)
    def test_damaged_information(self, content: bytes, export: Path, student: Student, tmp_path: Path) -> None:
        (export / "mtdistill.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"export could not be read: got .*mtdistill\.json.*Export it again"):
            find_model(export)
        folder = as_folder(student, tmp_path)
        (folder / "mtdistill.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"could not be read: got .*student_best"):
            find_model(folder)

    @pytest.mark.parametrize("damaged", ["model.bin", "tokenizer.json"])
    def test_an_export_whose_files_are_damaged_when_it_shall_translate(self, damaged: str, export: Path) -> None:
        (export / damaged).unlink()
        (export / damaged).write_bytes(b"damaged")
        found = find_model(export)
        with pytest.raises(CheckpointError, match="CTranslate2 model could not be loaded"):
            found.translator()

    def test_a_folder_without_its_tokenizer(self, student: Student, tmp_path: Path) -> None:
        folder = as_folder(student, tmp_path)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(MtdistillError, match="student_best"):
            find_model(folder)


class TestParameters:
    def test_a_student_is_counted_with_a_tied_table_once(self, student: Student, tmp_path: Path) -> None:
        folder = as_folder(student, tmp_path)
        stored = load_file(folder / "model.safetensors")  # holds a tied table once
        assert find_model(folder).parameters == sum(tensor.numel() for tensor in stored.values())
        assert find_model(folder).parameters != INFO["parameters"]  # what is there counts, not what is said

    def test_an_export_says_it(self, export: Path) -> None:
        assert find_model(export).parameters == 12_345

    @pytest.mark.parametrize("info", [{}, {"parameters": None}, {"parameters": 0}, {"parameters": -3},
                                      {"parameters": "12345"}, {"parameters": 2.5}], ids=str)  # fmt: skip
    def test_an_export_that_does_not_say_it(self, info: dict[str, Any], export: Path) -> None:
        with pytest.raises(CheckpointError, match=r"does not say how it was made: got .*ctranslate2-float32"):
            _ = has_info(export, info).parameters


class TestConfig:
    @pytest.mark.parametrize("save", [as_bundle, as_run_folder, as_folder])
    def test_comes_back_as_it_was(self, save: Save, student: Student, config: RunConfig, tmp_path: Path) -> None:
        assert find_model(save(student, tmp_path / "saved")).config == config

    def test_of_an_export(self, export: Path, config: RunConfig) -> None:
        assert has_info(export, {"config": config.model_dump(mode="json")}).config == config

    @pytest.mark.parametrize("info", [{}, {"config": None}, {"config": "quick"}, {"config": []}], ids=str)
    def test_that_is_not_there(self, info: dict[str, Any], export: Path) -> None:
        with pytest.raises(CheckpointError, match=r"does not say how it was made: got .*ctranslate2-float32"):
            _ = has_info(export, info).config

    @pytest.mark.parametrize(
        ("change", "named"),
        [({"invented": 1}, "invented: no such setting"), ({"preset": 3}, "preset: got 3"), ({"kd": {}}, "temperature")],
        ids=str,
    )
    def test_that_this_version_does_not_understand(
        self, change: dict[str, Any], named: str, export: Path, config: RunConfig
    ) -> None:
        found = has_info(export, {"config": {**config.model_dump(mode="json"), **change}})
        with pytest.raises(CheckpointError, match=r"does not say how it was made") as raised:
            _ = found.config
        assert isinstance(raised.value.__cause__, ConfigError)
        assert named in str(raised.value.__cause__)


class TestPreparedData:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What `prepare_data` was asked for, instead of doing it."""
        calls: list[Any] = []

        def prepare(data: DataConfig, root: Path, tokenizer: PreTrainedTokenizerFast, report: Any) -> str:
            calls.append(SimpleNamespace(data=data, root=root, tokenizer=tokenizer, report=report))
            return "prepared"

        monkeypatch.setattr("mtdistill.student.loading.prepare_data", prepare)
        return calls

    def test_is_that_of_its_run_with_its_own_tokenizer(
        self, asked: list[Any], student: Student, config: RunConfig, tmp_path: Path
    ) -> None:
        found = find_model(as_bundle(student, tmp_path))
        assert prepared_data_of(found, None, Display()) == "prepared"  # type: ignore[comparison-overlap]
        [call] = asked
        assert (call.data, call.root) == (config.data, tmp_path / "runs" / "data")
        assert tokenizer_fingerprint(call.tokenizer) == tokenizer_fingerprint(student.tokenizer)

    def test_of_an_export_too(
        self, asked: list[Any], export: Path, config: RunConfig, student: Student, tmp_path: Path
    ) -> None:
        found = has_info(export, {**INFO, "config": config.model_dump(mode="json")})
        prepared_data_of(found, None, Display())
        assert (asked[0].data, asked[0].root) == (config.data, tmp_path / "runs" / "data")
        assert tokenizer_fingerprint(asked[0].tokenizer) == tokenizer_fingerprint(student.tokenizer)

    def test_is_looked_for_where_the_user_says(self, asked: list[Any], student: Student, tmp_path: Path) -> None:
        prepared_data_of(find_model(as_bundle(student, tmp_path)), str(tmp_path / "there"), Display())
        assert asked[0].root == tmp_path / "there" / "data"

    @pytest.mark.parametrize("kept", [True, False])
    def test_lies_beside_a_run_that_was_moved_with_it(
        self, kept: bool, asked: list[Any], student: Student, tmp_path: Path
    ) -> None:
        run = tmp_path / "moved" / "distillation-quick"
        (run / "checkpoints").mkdir(parents=True)
        for name in ("config.toml", "environment.json"):
            (run / name).write_text("", encoding="utf-8")
        if kept:
            (tmp_path / "moved" / "data").mkdir()
        found = find_model(as_bundle(student, run / "checkpoints"))
        prepared_data_of(found, None, Display())
        prepared_data_of(found, str(tmp_path / "there"), Display())
        assert [call.root for call in asked] == [
            tmp_path / ("moved" if kept else "runs") / "data",
            tmp_path / "there" / "data",
        ]

    def test_of_a_model_without_a_run_is_the_built_in_corpus(self, asked: list[Any], tiny_teacher_folder: Path) -> None:
        prepared_data_of(find_model(tiny_teacher_folder), None, Display())
        assert asked[0].data == DataConfig(train=("tatoeba:zh-en",), source_lang="zh", target_lang="en")
        assert asked[0].root == Path("train_process") / "data"

    def test_progress_is_shown(
        self, asked: list[Any], tiny_teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        display, said = Display(), []
        monkeypatch.setattr(display, "say", said.append)
        prepared_data_of(find_model(tiny_teacher_folder), None, display)
        asked[0].report("reading")
        assert said == ["reading"]

    @pytest.mark.parametrize(
        "info",
        [{}, {"source_lang": "zh"}, {"target_lang": "en"}, {"source_lang": "", "target_lang": "en"},
         {"source_lang": "simplified Chinese", "target_lang": "en"}, {"source_lang": "en", "target_lang": "en"}],
        ids=str,
    )  # fmt: skip
    def test_of_a_model_that_does_not_say_what_it_translates(
        self, info: dict[str, Any], asked: list[Any], export: Path
    ) -> None:
        with pytest.raises(CheckpointError, match="does not say how it was made"):
            prepared_data_of(has_info(export, info), None, Display())
        assert asked == []

    @pytest.mark.parametrize("missing", ["source_lang", "target_lang"])
    def test_of_a_run_without_languages(self, missing: str, asked: list[Any], export: Path, config: RunConfig) -> None:
        info = {**INFO, "config": config.model_dump(mode="json"), missing: None}
        with pytest.raises(CheckpointError, match="does not say how it was made"):
            prepared_data_of(has_info(export, info), None, Display())
        assert asked == []

    def test_with_settings_that_this_version_does_not_understand(self, asked: list[Any], export: Path) -> None:
        with pytest.raises(CheckpointError, match="does not say how it was made"):
            prepared_data_of(has_info(export, {**INFO, "config": {"preset": "quick"}}), None, Display())
        assert asked == []

    def test_is_prepared_from_its_files(
        self, student: Student, config: RunConfig, tiny_corpus: list[tuple[str, str]], tmp_path: Path
    ) -> None:
        corpus = tmp_path / "corpus.tsv"
        corpus.write_text("".join(f"{source}\t{target}\n" for source, target in tiny_corpus), encoding="utf-8")
        changed = apply_overrides(config, [f"data.train={corpus}", "data.test_ratio=0.1", "data.validation_ratio=0.1"])
        info = {**student.info, "config": changed.model_dump(mode="json")}
        found = find_model(as_bundle(dataclasses.replace(student, info=info), tmp_path))
        data = prepared_data_of(found, None, Display())
        assert data.folder.parent == tmp_path / "runs" / "data"
        assert sum(data.manifest.sizes.values()) == len(tiny_corpus)
        assert tokenizer_fingerprint(data.tokenizer) == tokenizer_fingerprint(student.tokenizer)
        corpus.unlink()
        with pytest.raises(DataError, match=r"corpus\.tsv"):
            prepared_data_of(found, None, Display())


class TestRunFolder:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        folder = tmp_path / "runs" / "distillation-quick"
        folder.mkdir(parents=True)
        for name in ("config.toml", "environment.json"):
            (folder / name).write_text("", encoding="utf-8")
        return folder

    @pytest.mark.parametrize(
        "place", ["", "checkpoints/student_best.pt", "checkpoints/student_best", "export/ctranslate2-int8", "export/x"]
    )
    def test_is_that_a_model_names_or_lies_in(self, place: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run_folder_of(run / place) == run
        monkeypatch.chdir(run.parent)
        assert run_folder_of(Path(run.name) / place) == run
        monkeypatch.chdir(run)
        assert run_folder_of(Path(place)) == run

    @pytest.mark.parametrize("path", ["../student_best.pt", "../..", "."])
    def test_is_found_through_the_folders_above(self, path: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (run / "checkpoints" / "student_best").mkdir(parents=True)
        monkeypatch.chdir(run / "checkpoints" / "student_best")
        assert run_folder_of(Path(path)) == run

    @pytest.mark.parametrize(
        "place", ["..", "../other/checkpoints/student_best.pt", "checkpoints", "random/checkpoints/student_best.pt"]
    )
    def test_is_none_for_a_model_elsewhere(self, place: str, run: Path) -> None:
        assert run_folder_of(run / place) is None

    @pytest.mark.parametrize("path", ["student_best.pt", "/", "."])
    def test_is_none_where_there_is_no_folder_above(
        self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run_folder_of(Path(path)) is None


def test_in_pytorch_the_threads_are_changed_for_the_call_only(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_model(as_bundle(student, tmp_path))
    assert found.student is not None
    generate, seen, before = found.student.model.generate, [], torch.get_num_threads()

    def watched(**options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return generate(**options)

    monkeypatch.setattr(found.student.model, "generate", watched)
    found.translator(before + 1).translate([SOURCE])
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_a_configuration_alone_makes_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    assert run_folder_of(tmp_path / "models" / "student.pt") is None
