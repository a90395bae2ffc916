import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import T5ForConditionalGeneration

from mtdistill.errors import CheckpointError
from mtdistill.modeling import t5_config
from mtdistill.modeling.folder import (
    CHECKSUMS,
    INFO_FILE,
    RECORD_FILE,
    checksums,
    load_folder,
    mismatches,
    plausible_config,
    read_info,
    require_unchanged,
)

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


def test_checksums_are_of_all_but_the_record_and_are_no_info(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("config.json", "onnx/encoder_model.onnx", "README.md", INFO_FILE, RECORD_FILE):
        (tmp_path / name).write_bytes(b"x")
    found = checksums(tmp_path)
    assert found == dict.fromkeys(("config.json", "onnx/encoder_model.onnx"), hashlib.sha256(b"x").hexdigest())
    (tmp_path / INFO_FILE).write_text(json.dumps({**INFO, CHECKSUMS: found}), encoding="utf-8")
    assert read_info(tmp_path) == INFO
    require_unchanged(tmp_path)


@pytest.mark.parametrize(
    "wanted", [{"a": 3}, {"a": None}, {"": "x"}, {"..": "x"}, {"/dev/zero": "x"}, {"a/b": "x"}], ids=str
)
def test_checksums_of_what_is_no_file_in_the_folder(wanted: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / INFO_FILE).write_text(json.dumps({CHECKSUMS: wanted}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"not those that were written: got .*Copy the folder again"):
        require_unchanged(tmp_path)


@pytest.mark.parametrize("record", ["[", "{}", '{"sha256": 3}', None])
def test_without_checksums_nothing_is_compared(record: str | None, tmp_path: Path) -> None:
    if record is not None:
        (tmp_path / INFO_FILE).write_text(record, encoding="utf-8")
    require_unchanged(tmp_path)


def test_a_record_of_a_size_that_none_has(tmp_path: Path) -> None:
    with (tmp_path / INFO_FILE).open("wb") as stream:
        stream.truncate(2**30)  # takes no disk
    with pytest.raises(ValueError, match=r"mtdistill\.json: 1073741824 bytes"):
        read_info(tmp_path)


class TestConfigurations:
    SETTINGS: ClassVar = {"num_layers": 2, "num_decoder_layers": 3, "vocab_size": 50, "decoder_start_token_id": 0}

    def test_a_plain_one(self) -> None:
        config = plausible_config({**self.SETTINGS, "num_layers": 3}, 3)
        assert (config.num_layers, config.vocab_size, config.decoder_start_token_id) == (3, 50, 0)

    @pytest.mark.parametrize("name", ["auto_map", "attn_implementation", "_attn_implementation", "quantization_config"])
    def test_one_that_asks_for_code_or_kernels_of_others(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            plausible_config({**self.SETTINGS, name: "stranger/kernel"}, 100)

    @pytest.mark.parametrize("change", [{"num_layers": 4}, {"num_decoder_layers": 4}, {"vocab_size": 10**8}], ids=str)
    def test_one_that_claims_more_than_there_is(self, change: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(change)) if "vocab" in str(change) else "num_layers"):
            plausible_config({**self.SETTINGS, **change}, 3)

    @pytest.mark.parametrize("settings", [[], None, "x", 3])
    def test_what_is_none(self, settings: object) -> None:
        with pytest.raises(ValueError, match="no object"):
            plausible_config(settings, 3)


class TestLoading:
    @pytest.fixture
    def folder(self, tiny_teacher_folder: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_teacher_folder, tmp_path / "model"))

    def test_what_a_folder_says_about_generation_is_not_taken_over(self, folder: Path) -> None:
        hostile = {"num_beams": 10**6, "penalty_alpha": 0.5, "top_k": 4, "forced_eos_token_id": 10**9}
        (folder / "generation_config.json").write_text(json.dumps(hostile), encoding="utf-8")
        model, tokenizer = load_folder(folder)
        assert mismatches(model, tokenizer) == []
        assert (model.generation_config.num_beams, model.generation_config.forced_eos_token_id) in (
            (None, None),
            (1, None),
        )
        assert model.generation_config.decoder_start_token_id == 0

    def test_an_adapter_of_somebody_else_is_refused(self, folder: Path) -> None:
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}', encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
            load_folder(folder)

    def test_weights_of_an_older_form_are_named(self, folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        load_folder(folder)  # the safe form is there as well
        (folder / "model.safetensors").unlink()
        with pytest.raises(
            CheckpointError, match=r"got .*pytorch_model\.bin, accepted model\.safetensors.*save_pretrained"
        ):
            load_folder(folder)

    def test_what_is_no_folder_is_said(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=r"got .*missing \(No such file or directory\)"):
            load_folder(folder / "missing")
        with pytest.raises(CheckpointError, match=r"\(Not a directory\)"):
            load_folder(folder / "config.json")

    def test_weights_that_may_not_be_read_are_not_called_missing(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = Path.open

        def refused(path: Path, *args: Any, **options: Any) -> Any:
            if path.suffix == ".safetensors":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *args, **options)

        monkeypatch.setattr(Path, "open", refused)  # permissions do not bind an administrator
        with pytest.raises(CheckpointError, match="Permission denied"):
            load_folder(folder)

    @pytest.mark.parametrize(
        "change", [{"relative_attention_max_distance": 0}, {"num_heads": 1, "d_kv": 16}], ids=["distance", "heads"]
    )
    def test_settings_that_fail_at_the_first_sentence_are_told_at_once(
        self, change: dict[str, int], folder: Path
    ) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        with contextlib.suppress(CheckpointError):  # or transformers finds it
            [problem] = mismatches(*load_folder(folder))
            assert problem.startswith("a translation fails (")

    def test_a_deeper_decoder_is_no_mismatch(self, tiny_teacher: Any) -> None:
        """CTranslate2 translates with it, and so it can teach."""
        model, tokenizer = tiny_teacher
        shape = t5_config(len(tokenizer), encoder_layers=1, decoder_layers=2, width=16, heads=2, head_width=8)
        assert mismatches(T5ForConditionalGeneration(shape).eval(), tokenizer) == []
        del model
