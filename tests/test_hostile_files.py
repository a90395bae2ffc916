"""Files from strangers: nothing in them runs, writes elsewhere or fills the memory, and damage ends in an error of ours.

`benchmarks/fuzz_loaders.py` does the same with as many cases as one has time for, and finds its faults by format.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.config import DataConfig
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.data.readers import read_pairs
from mtdistill.data.text_files import MAX_LINE_BYTES
from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.errors import CacheError, CheckpointError, DataError, MtdistillError
from mtdistill.modeling import t5_config
from mtdistill.student.bundle import Student, load_student, save_bundle, save_folder
from mtdistill.student.loading import find_model
from mtdistill.teacher.loading import load_teacher
from mtdistill.teacher.state_cache import CachedTargets

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
INFO = {"source_lang": "zh", "target_lang": "en"}
MIB = 2**20


class Writes:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.fixture(scope="session")
def untrained(tiny_tokenizer: PreTrainedTokenizerFast) -> Student:
    shape = t5_config(len(tiny_tokenizer), encoder_layers=1, decoder_layers=1, width=16, heads=2, head_width=8,
                      feed_forward_width=16)  # fmt: skip
    return Student(T5ForConditionalGeneration(shape).eval(), tiny_tokenizer, INFO)


@pytest.fixture
def bundle(untrained: Student, tmp_path: Path) -> Path:
    save_bundle(untrained, tmp_path / "model" / "student_best.pt")
    return tmp_path / "model" / "student_best.pt"


@pytest.fixture
def folder(untrained: Student, tmp_path: Path) -> Path:
    save_folder(untrained, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """What a hostile file would make if it got its way."""
    path = tmp_path / "made by a stranger"
    yield path
    assert not path.exists()


def packed_again(path: Path, change: Callable[[str, bytes], bytes], packing: int = zipfile.ZIP_STORED) -> None:
    """Change the members of an archive, with checksums that fit."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content), packing)


def peak_bytes(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(run: Callable[[], Any], error: type[MtdistillError] = CheckpointError) -> None:
    with pytest.raises(error):
        run()


class TestDamage:
    def test_every_loader_takes_damaged_files_and_ends_in_an_error_of_ours(self) -> None:
        # In processes of its own: a crash is a result there. The seed is fixed, so that a failure can be repeated.
        run = subprocess.run(
            [sys.executable, str(BENCHMARKS / "fuzz_loaders.py"), "--cases", "220", "--seed", "20261124"],
            env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent / "src")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        formats = [line.split("cases")[0].rsplit(maxsplit=1) for line in run.stdout.splitlines() if " cases " in line]
        counts = {name.strip(): int(count) for name, count in formats}
        assert counts.pop("all") == sum(counts.values()) >= 220
        assert len(counts) >= 20

    def test_a_folder_that_was_changed_names_the_file(self, folder: Path) -> None:
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-5] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"not those that were written: got .*\(model\.safetensors\)"):
            load_student(folder)

    def test_a_folder_without_checksums_is_loaded(self, folder: Path, untrained: Student) -> None:
        (folder / "mtdistill.json").write_text(json.dumps(INFO), encoding="utf-8")
        loaded = load_student(folder).model.state_dict()
        assert all(torch.equal(weight, loaded[name]) for name, weight in untrained.model.state_dict().items())

    def test_checksums_do_not_make_other_files_read(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"")
        info = json.loads((folder / "mtdistill.json").read_text(encoding="utf-8"))
        info["sha256"]["../secret"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing
        (folder / "mtdistill.json").write_text(json.dumps(info), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"\(\.\./secret\)"):
            load_student(folder)


class TestCode:
    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    def test_a_pickle_in_a_bundle_does_not_run(self, protocol: int, bundle: Path, victim: Path) -> None:
        hostile = pickle.dumps(Writes(victim), protocol)
        packed_again(bundle, lambda name, content: hostile if name.endswith("data.pkl") else content)
        refused(lambda: load_student(bundle))
        refused(lambda: find_model(bundle))

    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    @pytest.mark.parametrize("name", ["student_best.pt", "model.bin", "anything.zip"])
    def test_a_bare_pickle_does_not_run(self, protocol: int, name: str, tmp_path: Path, victim: Path) -> None:
        (tmp_path / name).write_bytes(pickle.dumps(Writes(victim), protocol))
        refused(lambda: find_model(tmp_path / name))

    def test_a_teacher_whose_weights_are_a_pickle_is_refused(self, folder: Path, victim: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "mtdistill.json").unlink()
        torch.save({"shared.weight": Writes(victim)}, folder / "pytorch_model.bin")
        refused(lambda: load_teacher(str(folder)))

    @pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
    def test_code_that_a_folder_brings_along_is_not_imported(self, file: str, folder: Path, victim: Path) -> None:
        (folder / "mtdistill.json").unlink()
        code = f"import os\nos.mkdir({str(victim)!r})\nclass A: pass\n"
        (folder / "stranger.py").write_text(code, encoding="utf-8")
        settings = json.loads((folder / file).read_text(encoding="utf-8"))
        settings["auto_map"] = {"AutoConfig": "stranger.A", "AutoModel": "stranger.A", "AutoTokenizer": "stranger.A"}
        settings["tokenizer_class"] = "A"
        (folder / file).write_text(json.dumps(settings), encoding="utf-8")
        with contextlib.suppress(MtdistillError):  # or it is passed over
            load_teacher(str(folder))

    def test_an_array_of_objects_is_not_unpickled(self, tmp_path: Path, victim: Path) -> None:
        manifest = {"identity": "x", "tokens": 1, "rows": 1, "width": 1, "sha256": {},
                    "parts": {"teacher": "x", "max_sequence_length": 8}}  # fmt: skip
        (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        np.save(tmp_path / "starts.npy", np.array([Writes(victim)], dtype=object), allow_pickle=True)
        refused(lambda: CachedTargets(tmp_path, torch.zeros(1, 1)), CacheError)


class TestPlaces:
    @pytest.mark.parametrize("name", ["../outside.json", "/outside.json", "a/../../outside.json", ".."])
    def test_a_bundle_writes_no_file_outside(
        self, name: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        content = torch.load(bundle, weights_only=True)
        if name.startswith("/"):
            name = str(tmp_path / "outside.json")
        content["tokenizer"][name] = "{}"
        torch.save(content, bundle)
        before = {*tmp_path.rglob("*")}
        with contextlib.suppress(CheckpointError):
            load_student(bundle)
        assert {*tmp_path.rglob("*")} == before

    @pytest.fixture
    def prepared(
        self, tiny_corpus: list[tuple[str, str]], tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> Path:
        """Prepared data without checksums, as older versions wrote it."""
        text = "".join(f"{source}\t{target}\n" for source, target in tiny_corpus[:100])
        (tmp_path / "text.tsv").write_text(text, encoding="utf-8")
        config = DataConfig(train=(str(tmp_path / "text.tsv"),), source_lang="zh", target_lang="en",
                            validation_ratio=0.1, test_ratio=0.1)  # fmt: skip
        folder = prepare_data(config, tmp_path / "prepared", tiny_tokenizer).folder
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        del manifest["sha256"]
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    @staticmethod
    def set_state(folder: Path, **changes: Any) -> None:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        (folder / "state.json").write_text(json.dumps({**state, **changes}), encoding="utf-8")

    @pytest.mark.parametrize("filename", ["../../elsewhere.arrow", "/dev/zero", "..", ""])
    def test_rows_that_lie_elsewhere_are_not_read(self, filename: str, prepared: Path) -> None:
        [rows] = (prepared / "train").glob("*.arrow")
        rows.rename(prepared.parent / "elsewhere.arrow")
        self.set_state(prepared / "train", _data_files=[{"filename": filename}])
        data = PreparedData(prepared)
        assert len(data.split("validation"))
        with pytest.raises(DataError, match="could not be read"):
            data.split("train")

    @pytest.mark.parametrize("changes", [{"_format_columns": ["target"]}, {"_format_type": "numpy"}], ids=str)
    def test_a_format_that_a_folder_asks_for_is_not_taken_over(self, changes: Any, prepared: Path) -> None:
        whole = PreparedData(prepared).split("train")[0]
        self.set_state(prepared / "train", **changes)
        assert PreparedData(prepared).split("train")[0] == whole
        assert isinstance(whole["source_ids"], list)


class TestMemory:
    def test_an_archive_that_unpacks_to_much_more_than_its_size(self, bundle: Path) -> None:
        packed_again(
            bundle,
            lambda name, content: b"\0" * 60 * MIB if name.endswith("data/0") else content,
            zipfile.ZIP_DEFLATED,
        )
        assert bundle.stat().st_size < MIB
        with pytest.raises(CheckpointError, match="unpacks to more than its size"):
            load_student(bundle)
        assert peak_bytes(lambda: refused(lambda: load_student(bundle))) < 20 * MIB

    @pytest.mark.parametrize(
        ("pickled", "named"),
        [
            (b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.", "bytearray"), (b"\x80\x02" + b"(" * 3 * MIB + b".", "opcodes"),
            (b"\x80\x04\x8c\x08builtins\x8c\tbytearray\x93.", "PROTO 4"), (b"\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        ],
        ids=["bytearray", "marks", "protocol 4", "name from the stack"],
    )  # fmt: skip
    def test_a_pickle_that_asks_for_more_than_tensors(self, pickled: bytes, named: str, bundle: Path) -> None:
        packed_again(bundle, lambda name, content: pickled if name.endswith("data.pkl") else content)
        with pytest.raises(CheckpointError, match=named):
            load_student(bundle)

    def test_a_weight_that_is_one_value_shown_many_times(self, bundle: Path) -> None:
        content = torch.load(bundle, weights_only=True)
        weights = content["weights"]
        weights["shared.weight"] = torch.zeros(1).expand(weights["shared.weight"].shape)
        torch.save(content, bundle)
        with pytest.raises(CheckpointError, match=r"shared\.weight"):
            load_student(bundle)

    @pytest.mark.parametrize("claim", [{"vocab_size": 10**9}, {"d_ff": 10**7}, {"num_layers": 10**6}], ids=str)
    def test_sizes_that_a_folder_only_claims(self, claim: dict[str, int], folder: Path) -> None:
        (folder / "mtdistill.json").unlink()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, **claim}), encoding="utf-8")
        assert peak_bytes(lambda: refused(lambda: load_teacher(str(folder)))) < 50 * MIB

    def test_pieces_that_a_tokenizer_only_counts(self, folder: Path) -> None:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**settings, "extra_ids": 10**9}), encoding="utf-8")
        refused(lambda: load_tokenizer(folder), DataError)

    @pytest.mark.parametrize("line", [b"x" * 70 * MIB, b"\xe4\xbb\x96\ta\n" * 7 * MIB], ids=["one line", "many lines"])
    def test_text_without_end(self, line: bytes, tmp_path: Path) -> None:
        import gzip

        (tmp_path / "pairs.tsv.gz").write_bytes(gzip.compress(line, 1))

        def read() -> None:
            try:
                for number, _ in enumerate(read_pairs([str(tmp_path / "pairs.tsv.gz")], "zh", "en")):
                    if number == 5_000:
                        break
            except DataError:
                assert b"\n" not in line

        assert peak_bytes(read) < 20 * MAX_LINE_BYTES


class TestTheFuzzerItself:
    """Whatever goes wrong is seen and named, and the cases after it are run all the same."""

    @pytest.fixture
    def fuzzer(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        import fuzz_loaders

        return fuzz_loaders  # type: ignore[no-any-return]

    @pytest.mark.parametrize(
        ("fault", "outcome"),
        [
            ("pass", "ok"), ("raise CheckpointError('x')", "our error"), ("raise KeyError('x')", "traceback"),
            ("os.abort()", "crash"), ("os._exit(3)", "crash"), ("while True: pass", "hang"),
            ("bytearray(2**40)", "memory"), ("(place.parent / 'stray').touch()", "stray file"),
        ],
    )  # fmt: skip
    def test_a_fault_is_named(
        self, fault: str, outcome: str, fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if outcome == "hang":  # for the others a slow fork must not look like one
            monkeypatch.setattr(fuzzer, "HANG_SECONDS", 3)
        (tmp_path / "specimens" / "some").mkdir(parents=True)
        (tmp_path / "specimens" / "some" / "file.json").write_text('{"a": 1}', encoding="utf-8")
        calls = tmp_path / "calls"

        def load(place: Path) -> None:
            with calls.open("a") as seen:
                seen.write("x")
            if calls.stat().st_size == 2:  # the first that is damaged
                exec(fault, {"os": os, "place": place, "CheckpointError": CheckpointError})

        kind = fuzzer.Format("some", "some", load)
        found = [each[0] for each in fuzzer.outcomes(tmp_path / "specimens", tmp_path, kind, 4, 1)]
        assert found == ["ok", outcome, "ok", "ok"]

    def test_a_specimen_that_does_not_load_is_a_fault(self, fuzzer: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "specimens" / "some").mkdir(parents=True)
        (tmp_path / "specimens" / "some" / "file").write_bytes(b"abc")

        def load(place: Path) -> None:
            raise CheckpointError("x")

        kind = fuzzer.Format("some", "some", load)
        found = [each[0] for each in fuzzer.outcomes(tmp_path / "specimens", tmp_path, kind, 2, 1)]
        assert found == ["refused whole", "our error"]
