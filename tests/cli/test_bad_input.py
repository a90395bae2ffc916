"""Absurd values for every option of every command: exit code 2 and one message that names the value and what to do.

One table, so that what a user is told can be read from top to bottom. The second one holds what looks as odd and is fine.
"""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from mtdistill.data.own_sentences import read_evaluation_set
from mtdistill.data.readers import read_pairs
from mtdistill.errors import DataError

from .conftest import Run

PAIR = "他喜欢猫。\the likes the cat.\n"
BINARY = bytes(range(256)) * 20
TEXT = {
    "good.tsv": PAIR.encode(),
    "empty.tsv": b"",
    "blank.tsv": b"\n" * 1_000_000,
    "long.tsv": b"a" * 2**20 + b"\tb\n",
    "binary.tsv": BINARY,
    "utf16.tsv": PAIR.encode("utf-16"),
    "gb18030.tsv": PAIR.encode("gb18030"),
    "mixed.tsv": PAIR.encode() + PAIR.encode("gb18030"),
    "one_column.tsv": "他喜欢猫。\n".encode(),
    "bad.jsonl": b'{"source": 1\n',
    "numbers.jsonl": b'{"source": 1, "target": 2}\n',
    "bad.tmx": b"<tmx><body>",
    "cut.tsv.gz": b"\x1f\x8b\x08\x00",
    "lonely.zh": "猫\n".encode(),
    "notes.pdf": b"%PDF",
    "empty.json": b"",
    "other.json": b'{"schema_version": 1}',
    "empty.pt": b"",
    "binary.pt": BINARY,
    "text.pt": b"hello",
    "utf16.pt": "hello".encode("utf-16"),
    "export/model.bin": b"",
    "export/mtdistill.json": b'{"source_lang": "zh", "target_lang": "en"}',
    "onnx_export/onnx/encoder_model.onnx": BINARY,
    "bad_json/config.json": b"{",
    "bert/config.json": b'{"model_type": "bert"}',
    "folder/notes.txt": b"x",
    "a_file": b"x",
}


@pytest.fixture(scope="session")
def material(
    tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path, trained_tiny_teacher: Any, tiny_tokenizer: Any
) -> Path:
    """Every file that the tables name."""
    from mtdistill.student.bundle import Student, save_bundle

    folder = tmp_path_factory.mktemp("material")
    for name, content in TEXT.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to("loop")
    (folder / "nothing").mkdir()
    shutil.copytree(tiny_teacher_folder, folder / "teacher")
    info = {"source_lang": "zh", "target_lang": "en"}
    save_bundle(Student(trained_tiny_teacher, tiny_tokenizer, info), folder / "student.pt")
    save_bundle(Student(trained_tiny_teacher, tiny_tokenizer, {}), folder / "nameless.pt")
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all material, which is the current folder."""
    folder = tmp_path / "here"
    shutil.copytree(material, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def case(name: str, arguments: str, *mentioned: str) -> Any:
    return pytest.param(shlex.split(arguments), mentioned, id=name)


OWN = "--source-lang zh --target-lang en"
SET_OWN = "--set data.source_lang=zh --set data.target_lang=en"
LONG_NAME = "x" * 300
CASES = [
    # the whole command line
    case("language", "--lang fr", "got 'fr'", "accepted en or zh"),
    case("language-missing", "presets --lang", "got ''", "accepted en or zh"),
    case("command", "frobnicate", "'frobnicate'", "mtdistill --help"),
    case("option", "presets --frobnicate", "--frobnicate", "mtdistill presets --help"),
    case("flag-with-value", "presets --json=maybe", "'--json'", "mtdistill --help"),
    # presets
    case("presets-argument", "presets extra", "(extra)", "mtdistill presets --help"),
    case("presets-output-empty", "presets --output ''", "'--output'", "got ''", "accepted a path"),
    case("presets-output-file", "presets --output a_file", "a_file", "is no folder", "accepted a folder"),
    case("presets-output-loop", "presets --output loop", "got 'loop'", "symbolic links", "Check its name"),
    # distill: the preset
    case("preset-missing", "distill", "'preset'", "mtdistill distill --help"),
    case("preset-empty", "distill ''", "got ''", "1 quick"),
    case("preset-zero", "distill 0", "got '0'", "1 quick"),
    case("preset-negative", "distill -1", "-1", "mtdistill distill --help"),
    case("preset-huge", f"distill {'9' * 400}", "got '999", "1 quick"),
    case("preset-nan", "distill nan", "got 'nan'", "1 quick"),
    case("preset-slip", "distill balansed", "got 'balansed'", "Did you mean balanced?"),
    case("preset-file", "distill good.tsv", "got 'good.tsv'", "1 quick"),
    case("preset-surrogate", "distill \udcff", r"got '\udcff'", "1 quick"),
    # distill: settings
    case("set-nan", "distill quick --set kd.temperature=nan", "kd.temperature: got nan", "> 0 and <= 100"),
    case("set-inf", "distill quick --set kd.temperature=inf", "kd.temperature: got inf", "> 0 and <= 100"),
    case("set-minus-inf", "distill quick --set kd.temperature=-inf", "kd.temperature: got -inf", "> 0"),
    case("set-overflow", "distill quick --set training.learning_rate=1e400", "learning_rate: got inf", "<= 1"),
    case("set-zero", "distill quick --set training.epochs=0", "training.epochs: got 0", ">= 1"),
    case("set-negative", "distill quick --set training.batch_size=-4", "batch_size: got -4", ">= 1 and <= 65536"),
    case("set-huge", f"distill quick --set training.seed={2**64}", f"training.seed: got {2**64}", "<= 4294967295"),
    case("set-digits", f"distill quick --set training.seed={'9' * 5000}", "training.seed: got ", "a whole number"),
    case("set-fraction", "distill quick --set training.epochs=1.5", "training.epochs: got 1.5", "a whole number"),
    case("set-type", "distill quick --set kd.alpha=two", "kd.alpha: got 'two'", "a number >= 0 and <= 1"),
    case("set-bool", "distill quick --set kd.alpha=true", "kd.alpha: got true", "a number"),
    case("set-list", "distill quick --set kd.alpha=[1,2]", "kd.alpha: got [1, 2]", "a number"),
    case("set-nothing", "distill quick --set kd.alpha=", "kd.alpha: got ''", "a number"),
    case("set-nested", f"distill quick --set kd.alpha={'[' * 5000}", "kd.alpha: got '[[[", "a number"),
    case("set-no-value", "distill quick --set kd.alpha", "'kd.alpha': no value", "such as kd.temperature=4"),
    case("set-empty", "distill quick --set ''", "'': no value", "such as kd.temperature=4"),
    case("set-slip", "distill quick --set kd.temprature=3", "kd.temprature", "Did you mean kd.temperature?"),
    case("set-section", "distill quick --set kd=3", "kd: a section", "such as kd.temperature"),
    case("set-choice", "distill quick --set training.precision=int4", "got 'int4'", "auto | float32 | bfloat16"),
    case("set-layers", "distill quick --set student.kept_encoder_layers=[3,1]", "got [3, 1]", "ascending"),
    case("set-cleaning", "distill quick --set data.cleaning=sparkle", "got 'sparkle'", "names out of empty"),
    case("set-language", "distill quick --set data.source_lang=中文", "got '中文'", "such as zh or en"),
    case("set-control", "distill quick --set 'teacher.path=a\x1bb'", r"got 'a\x1bb'", "without control characters"),
    case("set-without", "distill quick --set", "'--set'", "mtdistill --help"),
    case("set-equals", "distill quick --set =", "'': no such setting", "such as kd.temperature=4"),
    case("set-all-at-once", "distill 2 --set kd.beta=-1 --set x=1 --set y", "kd.beta: got -1", "x: ", "'y': no value"),
    # distill: teacher, text, output
    case("teacher-empty", "distill quick --teacher ''", "'--teacher'", "got ''", "accepted a path"),
    case("teacher-missing", "distill quick --teacher gone", "got gone", "Check the path"),
    case("teacher-file", "distill quick --teacher good.tsv", "got good.tsv", "Check the path"),
    case("teacher-empty-folder", "distill quick --teacher nothing", "got nothing", "Check the path"),
    case("teacher-json", "distill quick --teacher bad_json", "got bad_json", "Check the path"),
    case("teacher-other", "distill quick --teacher bert", "got 'bert'", "accepted 't5'"),
    case("teacher-name", f"distill quick --teacher {LONG_NAME}", "got 'xxx", "too long", "Check its name"),
    case("data-missing", "distill quick --set data.train=gone.tsv", "gone.tsv", "no such file", "Check the path"),
    case("data-corpus", "distill quick --set data.train=tatoeba:zh-xx", "'tatoeba:zh-xx'", "tatoeba:zh-en, "),
    case(
        "data-languages", "distill 1 --set data.train=good.tsv --teacher teacher", "languages", "Set data.source_lang"
    ),
    case(
        "data-utf16",
        f"distill quick --set data.train=utf16.tsv {SET_OWN} --teacher teacher",
        "utf16.tsv, line 1",
        "iconv -f UTF-16",
    ),
    case("output-empty", "distill quick --output ''", "'--output'", "got ''", "accepted a path"),
    case("resume-nothing", "distill quick --resume --output gone", "got gone/distillation-quick", "without --resume"),
    case("output-file", "distill quick --output a_file", "a_file", "is no folder", "accepted a folder"),
    case("output-below-file", "distill quick --output a_file/x", "a_file is no folder", "accepted a folder"),
    case("output-loop", "distill quick --set output=loop", "loop is no folder", "accepted a folder"),
    case("output-control", "distill quick --output 'a\x00b'", r"got 'a\x00b'", "without control characters"),
    # test
    case("test-model-not-given", "test", "--model_path", "mtdistill test --help"),
    case("test-model-twice", "test a.pt --model_path b.pt", "got a.pt and b.pt", "accepted one path"),
    case("test-model-argument", "test gone.pt", "got gone.pt", "accepted student_best.pt"),
    case("test-model-empty", "test --model_path ''", "got ''", "accepted a path"),
    case("test-model-missing", "test --model_path gone.pt", "got gone.pt", "accepted student_best.pt"),
    case("test-model-below-file", "test --model_path a_file/x.pt", "got a_file/x.pt", "accepted student_best.pt"),
    case("test-model-empty-file", "test --model_path empty.pt", "got empty.pt", "accepted a file that mtdistill wrote"),
    case("test-model-binary", "test --model_path binary.pt", "got binary.pt", "accepted a file that mtdistill wrote"),
    case("test-model-text", "test --model_path text.pt", "got text.pt", "accepted a file that mtdistill wrote"),
    case("test-model-utf16", "test --model_path utf16.pt", "got utf16.pt", "accepted a file that mtdistill wrote"),
    case("test-model-folder", "test --model_path nothing", "got nothing", "Check the path"),
    case("test-model-device", "test --model_path /dev/null", "got /dev/null", "accepted student_best.pt"),
    case("test-model-name", f"test --model_path {LONG_NAME}", "got 'xxx", "too long", "Check its name"),
    case("test-model-nameless", "test --model_path nameless.pt", "nameless.pt", "accepted a student"),
    case("test-teacher", "test --model_path student.pt --teacher gone", "got gone", "Check the path"),
    case("test-data-empty", "test --model_path student.pt --data ''", "'--data'", "got ''", "accepted a path"),
    case("test-data-missing", "test --model_path student.pt --data gone.tsv", "gone.tsv", "Check the path"),
    case("test-data-binary", "test --model_path student.pt --data binary.tsv", "binary.tsv, line 1", "accepted UTF-8"),
    case("test-output", "test --model_path student.pt --output a_file", "a_file is no folder", "accepted a folder"),
    case("test-comet-empty", "test --model_path student.pt --comet ''", "'--comet'", "got ''", "accepted a path"),
    case("test-comet-missing", "test --model_path student.pt --comet gone.ckpt", "gone.ckpt", "Check the path"),
    # compare
    case("compare-nothing", "compare", "'runs'", "mtdistill compare --help"),
    case("compare-empty", "compare ''", "got ''", "accepted a path"),
    case(
        "compare-missing", "compare gone", "gone/report.json", "Measure the student first: mtdistill test /", "/gone\n"
    ),
    case(
        "compare-folder",
        "compare nothing",
        "nothing/report.json",
        "Measure the student first: mtdistill test /",
        "/nothing\n",
    ),
    case("compare-binary", "compare binary.pt", "binary.pt", "accepted a run folder or export"),
    case("compare-empty-file", "compare empty.json", "empty.json", "accepted report.json"),
    case("compare-other-json", "compare other.json", "other.json", "accepted report.json"),
    case("compare-loop", "compare loop", "got 'loop'", "symbolic links", "Check its name"),
    case("compare-html-folder", "compare gone --html folder", "got folder", "accepted the name of a file"),
    case("compare-html-below-file", "compare gone --html a_file/x.html", "a_file is no folder", "accepted a folder"),
    # pseudo-targets and sweep
    case("pseudo-beam", "pseudo-targets --beam 0", "got '0'", "a whole number from 1 to 100"),
    case("pseudo-n-best", "pseudo-targets --beam 3 --n-best 4", "--n-best 4", "accepted up to 3"),
    case("pseudo-share", "pseudo-targets --share 1.5", "got '1.5'", "a number from 0.0001 to 1.0"),
    case("pseudo-share-nan", "pseudo-targets --share nan", "got 'nan'", "a number from 0.0001 to 1.0"),
    case("pseudo-precision", "pseudo-targets --precision float8", "got 'float8'", "accepted float32, int8"),
    case("pseudo-sources-missing", "pseudo-targets --sources gone.txt", "gone.txt", "Check the path"),
    case("pseudo-sources-empty", "pseudo-targets --sources empty.tsv", "empty.tsv", "Check the file"),
    case("pseudo-to-there", "pseudo-targets --to good.tsv", "got good.tsv", "choose another --to"),
    case("pseudo-to-under-file", "pseudo-targets --to a_file/x.jsonl", "a_file is no folder", "accepted a folder"),
    case("pseudo-teacher", "pseudo-targets --teacher gone", "got gone", "Check the path"),
    case("sweep-preset", "sweep frobnicate", "'frobnicate'", "quick"),
    case("sweep-width", "sweep --width-ratio 0.5 --width-ratio 2", "got '2'", "a number from 0.001 to 1.0"),
    case("sweep-width-nan", "sweep --width-ratio nan", "got 'nan'", "a number from 0.001 to 1.0"),
    case("sweep-layers", "sweep --decoder-layers 0", "got '0'", "a whole number from 1 to 1000"),
    case("sweep-html-folder", "sweep --html folder", "got folder", "accepted the name of a file"),
    case("sweep-teacher", "sweep --teacher gone", "got gone", "Check the path"),
    case("sweep-name", "sweep --set name=a/b", "got 'a/b'", "letters, digits"),
    # export
    case("export-format-not-given", "export student.pt", "--format", "mtdistill export --help"),
    case("export-format", "export student.pt --format gguf", "got 'gguf'", "accepted hf, ctranslate2, onnx"),
    case("export-format-empty", "export student.pt --format ''", "got ''", "accepted hf, ctranslate2, onnx"),
    case("export-precision", "export student.pt --format hf --quantization int4", "got 'int4'", "accepted float32"),
    case("export-missing", "export gone.pt --format hf", "got gone.pt", "accepted student_best.pt"),
    case("export-export", "export export --format hf", "got export", "accepted student_best.pt"),
    case("export-to-file", "export student.pt --format hf --to a_file", "a_file is no folder", "accepted a folder"),
    case(
        "export-to-other", "export student.pt --format hf --data good.tsv --to folder", "got folder", "Choose another"
    ),
    case("export-data-missing", "export student.pt --format hf --data gone.tsv", "gone.tsv", "Check the path"),
    case("export-data-format", "export student.pt --format hf --data notes.pdf", "notes.pdf", "accepted .tsv"),
    case("export-output", "export student.pt --format hf --output a_file", "a_file is no folder", "accepted a folder"),
    # translate
    case("translate-model-empty", "translate --model '' x", "'--model'", "got ''", "accepted a path"),
    case("translate-model-missing", "translate --model gone x", "got gone", "accepted student_best.pt"),
    case("translate-model-export", "translate --model export x", "got export", "Export it again"),
    case("translate-model-onnx", "translate --model onnx_export x", "got onnx_export", "Export it again"),
    case("translate-teacher-empty", "translate --teacher '' x", "'--teacher'", "got ''", "accepted a path"),
    case("translate-teacher-missing", "translate --teacher gone x", "got gone", "Check the path"),
    case("beam-zero", "translate --beam 0 x", "'--beam'", "got '0'", "a whole number from 1 to 64"),
    case("beam-negative", "translate --beam -1 x", "'--beam'", "got '-1'", "a whole number from 1 to 64"),
    case("beam-huge", f"translate --beam {10**30} x", "'--beam'", "got '1000", "a whole number from 1 to 64"),
    case("beam-digits", f"translate --beam {'9' * 5000} x", "'--beam'", "got '999", "a whole number from 1 to 64"),
    case("beam-fraction", "translate --beam 1.5 x", "got '1.5'", "a whole number from 1 to 64"),
    case("beam-nan", "translate --beam nan x", "got 'nan'", "a whole number from 1 to 64"),
    case("beam-inf", "translate --beam inf x", "got 'inf'", "a whole number from 1 to 64"),
    case("beam-text", "translate --beam many x", "got 'many'", "a whole number from 1 to 64"),
    case("beam-empty", "translate --beam '' x", "got ''", "a whole number from 1 to 64"),
    # teacher train
    case("teacher-epochs", "teacher train --epochs 0", "'--epochs'", "got '0'", "from 1 to 100000"),
    case("teacher-epochs-float", "teacher train --epochs 1e3", "'--epochs'", "got '1e3'", "a whole number"),
    case("teacher-batch", "teacher train --batch-size 65537", "'--batch-size'", "got '65537'", "from 1 to 65536"),
    case("teacher-dropout-nan", "teacher train --dropout nan", "'--dropout'", "got 'nan'", "from 0.0 to 0.9"),
    case("teacher-dropout-inf", "teacher train --dropout inf", "'--dropout'", "got 'inf'", "from 0.0 to 0.9"),
    case("teacher-dropout-one", "teacher train --dropout 1", "'--dropout'", "got '1'", "from 0.0 to 0.9"),
    case("teacher-threads", "teacher train --threads -2", "'--threads'", "got '-2'", "from 1 to 1024"),
    case("teacher-encoder", "teacher train --encoder-layers 0", "'--encoder-layers'", "got '0'", "from 1 to 100"),
    case("teacher-decoder", "teacher train --decoder-layers 101", "'--decoder-layers'", "got '101'", "from 1 to 100"),
    case("teacher-vocabulary", "teacher train --vocabulary-size 399", "got '399'", "from 400 to 1000000"),
    case("teacher-vocabulary-huge", "teacher train --vocabulary-size 99999999", "got '99999999'", "from 400 to"),
    case("teacher-language-alone", "teacher train --source-lang zh", "data.target_lang: got none", "language code"),
    case("teacher-language-same", "teacher train --source-lang en --target-lang en", "got 'en'", "a language other"),
    case("teacher-language-empty", "teacher train --source-lang '' --target-lang en", "source_lang: got ''", "text"),
    case("teacher-data-empty", "teacher train --data ''", "'--data'", "got ''", "accepted a path"),
    case("teacher-data-missing", f"teacher train --data gone.tsv {OWN}", "gone.tsv", "Check the path"),
    case("teacher-data-backslash", rf"teacher train --data 'a\b.tsv' {OWN}", r"read a\b.tsv", "Check the path"),
    case("teacher-data-folder", f"teacher train --data folder {OWN}", "read folder", "accepted .tsv"),
    case("teacher-data-format", f"teacher train --data notes.pdf {OWN}", "notes.pdf", "accepted .tsv"),
    case("teacher-data-none", f"teacher train --data empty.tsv {OWN}", "empty.tsv", "one sentence pair or more"),
    case("teacher-data-device", f"teacher train --data /dev/zero {OWN}", "/dev/zero", "accepted .tsv"),
    case("teacher-data-blank", f"teacher train --data blank.tsv {OWN}", "blank.tsv", "one sentence pair or more"),
    case("teacher-data-long", f"teacher train --data long.tsv {OWN}", "long.tsv, line 1", "break or delete"),
    case("teacher-data-binary", f"teacher train --data binary.tsv {OWN}", "binary.tsv, line 1", "accepted UTF-8"),
    case("teacher-data-utf16", f"teacher train --data utf16.tsv {OWN}", "utf16.tsv, line 1", "iconv -f UTF-16"),
    case("teacher-data-gb", f"teacher train --data gb18030.tsv {OWN}", "gb18030.tsv, line 1", "iconv -f GB18030"),
    case("teacher-data-mixed", f"teacher train --data mixed.tsv {OWN}", "mixed.tsv, line 2", "Drop the damaged"),
    case("teacher-data-columns", f"teacher train --data one_column.tsv {OWN}", "line 1: got 1 column", "accepted 2"),
    case("teacher-data-json", f"teacher train --data bad.jsonl {OWN}", "bad.jsonl, line 1", "one JSON object"),
    case("teacher-data-json-type", f"teacher train --data numbers.jsonl {OWN}", "numbers.jsonl, line 1", "JSON object"),
    case("teacher-data-xml", f"teacher train --data bad.tmx {OWN}", "bad.tmx, line 1", "Repair the line"),
    case("teacher-data-cut", f"teacher train --data cut.tsv.gz {OWN}", "cut.tsv.gz", "a whole .gz file"),
    case("teacher-data-partner", f"teacher train --data lonely.zh {OWN}", "lonely.en", "Add the missing file"),
    case("teacher-data-loop", f"teacher train --data loop {OWN}", "got 'loop'", "symbolic links", "Check its name"),
    case("teacher-data-few", f"teacher train --data good.tsv {OWN}", "got 1 usable pairs of 1", "Give more text"),
    case(
        "teacher-data-direction", "teacher train --source-lang en --target-lang zh", "tatoeba:zh-en", "other direction"
    ),
    case("teacher-extra", f"teacher train --data good.tsv --extra gone.tsv {OWN}", "gone.tsv", "Check the path"),
    case(
        "teacher-two-roles", f"teacher train --data good.tsv --test good.tsv {OWN}", "got 'good.tsv'", "not in data.tr"
    ),
    case("teacher-output", "teacher train --output a_file", "a_file is no folder", "accepted a folder"),
    # cache
    case("cache-preset", "cache build nope", "got 'nope'", "1 quick"),
    case("cache-set", "cache build 1 --set kd.alpha=nan", "kd.alpha: got nan", "a number"),
    case("cache-data", "cache build 1 --set data.train=gone.tsv", "gone.tsv", "Check the path"),
    case("cache-output", "cache build 1 --output a_file", "a_file is no folder", "accepted a folder"),
    case("cache-teacher", "cache build 1 --set teacher.path=gone", "got gone", "Check the path"),
    case("cache-inspect-file", "cache inspect --output a_file", "a_file is no folder", "accepted a folder"),
    case("cache-inspect-empty", "cache inspect --output ''", "'--output'", "got ''", "accepted a path"),
    case("cache-verify-nothing", "cache verify", "'cache'", "mtdistill cache verify --help"),
    case("cache-verify-empty", "cache verify ''", "got ''", "accepted a path"),
    case("cache-verify-missing", "cache verify gone", "got gone", "accepted a folder with manifest.json"),
    case("cache-verify-file", "cache verify a_file", "got a_file", "accepted a folder with manifest.json"),
    case("cache-remove-empty", "cache remove ''", "got ''", "accepted a path"),
    case("cache-remove-other", "cache remove folder", "got folder", "Nothing was deleted"),
    case("cache-remove-up", "cache remove ..", "got ", "Nothing was deleted"),
    case("cache-remove-root", "cache remove /", "got /", "Nothing was deleted"),
    # bench
    case("bench-preset", "bench training nope", "got 'nope'", "1 quick"),
    case("bench-updates", "bench training 1 --updates 0", "'--updates'", "got '0'", "from 1 to 1000000"),
    case("bench-updates-nan", "bench training 1 --updates nan", "'--updates'", "got 'nan'", "a whole number"),
    case("bench-set", "bench training 1 --set training.threads=-1", "training.threads: got -1", ">= 1 and <= 1024"),
    case("bench-output", "bench training 1 --set output=a_file", "a_file is no folder", "accepted a folder"),
]
CHINESE = [
    case("预设", "distill 6", "得到 '6'", "请选择其中之一"),
    case("束宽", "translate --beam 0 x", "'--beam' 的值无效", "得到 '0'", "1 到 64 的整数"),
    case("丢弃率", "teacher train --dropout nan", "'--dropout' 的值无效", "得到 'nan'", "0.0 到 0.9 的数"),
    case("空路径", "translate --model '' x", "'--model' 的值无效", "得到 ''", "不含控制字符的路径"),
    case("路径", f"test --model_path {LONG_NAME}", "得到 'xxx", "请检查名称和权限"),
    case("设置", "distill quick --set kd.alpha=nan", "kd.alpha：得到 nan", "请改正"),
    case("输出", "distill quick --output a_file", "a_file 不是文件夹", "请换一个"),
    case("网页", "compare gone --html folder", "folder 是文件夹", "请加上文件名"),
    case("语料", "teacher train --data tatoeba:zh-xx", "得到 'tatoeba:zh-xx'", "请换用其中之一"),
    case("编码", f"teacher train --data gb18030.tsv {OWN}", "gb18030.tsv 第 1 行", "请转换"),
]


def test_the_table_is_a_table() -> None:
    names = [parameters.id for parameters in (*CASES, *CHINESE)]
    assert len(CASES) >= 60
    assert len(set(names)) == len(names)
    commands = {tuple(parameters.values[0][:2]) for parameters in CASES}
    for command in ("presets", "distill", "test", "compare", "export", "translate"):
        assert any(command == first for first, *_ in commands)
    for pair in (
        ("teacher", "train"),
        ("bench", "training"),
        *(("cache", name) for name in ("build", "inspect", "verify", "remove")),
    ):
        assert pair in commands


@pytest.mark.parametrize(("arguments", "mentioned"), CASES)
def test_is_refused_and_says_why(arguments: list[str], mentioned: tuple[str, ...], run: Run, here: Path) -> None:
    called = run(*arguments)
    assert called.code == 2, called
    assert called.err.startswith("Error: ")
    for part in mentioned:
        assert part in called.err
    assert (here / "folder" / "notes.txt").is_file()


@pytest.mark.parametrize(("arguments", "mentioned"), CHINESE)
def test_in_chinese(arguments: list[str], mentioned: tuple[str, ...], run: Run, here: Path) -> None:
    called = run("--lang", "zh", *arguments)
    assert called.code == 2
    assert called.err.startswith("错误：")
    for part in mentioned:
        assert part in called.err


@pytest.mark.parametrize(
    ("answers", "mentioned"),
    [
        ("0\n-1\n99999999999999999999\n", "Got '99999999999999999999', accepted 1 to 5, or q."),
        ("nan\ninf\n1.5\n", "Got '1.5', accepted 1 to 5, or q."),
        ("\0\n\x1b[2J\n\u202e1\n", r"Got '\u202e1', accepted 1 to 5, or q."),
        ("good.tsv\n\n\n", "Got '', accepted 1 to 5, or q."),
        (f"{'7' * 1_000_000}\nq\n", f"Got '{'7' * 58}…, accepted 1 to 5, or q."),
    ],
    ids=["numbers", "no-numbers", "control", "file", "endless"],
)
def test_absurd_answers_to_the_menu(answers: str, mentioned: str, run: Run) -> None:
    called = run(stdin=answers)
    assert called.code == 2
    assert mentioned in called.out
    assert called.out.endswith("No preset was chosen; nothing was changed.\n")


@pytest.mark.parametrize("command", [(), ("translate", "--model", "student.pt")], ids=["menu", "translate"])
@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        ("他喜欢猫。\n".encode("gb18030"), "got bytes that are no utf-8"),
        (b"a" * (2**20 + 1), "got a line of more than 1048576 characters"),
    ],
    ids=["encoding", "line"],
)
def test_input_that_is_no_text(command: tuple[str, ...], content: bytes, mentioned: str, run: Run, here: Path) -> None:
    called = run(*command, stdin=io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    assert called.code == 2
    assert f"standard input could not be read: {mentioned}, accepted" in called.err


def test_standard_input_that_is_closed(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("translate", "--model", "student.pt", stdin=None).out == ""
    assert run(stdin=None).code == 2


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (f"teacher train --data good.tsv {OWN}", "Permission denied"),
        ("teacher train --data nothing/x.tsv", "Permission denied"),
        ("translate --model nothing/student.pt x", "Permission denied"),
        ("translate --model student.pt x", "Permission denied"),
        ("translate --model nothing x", "Permission denied"),
        ("distill quick --output nothing", "nothing is not writable"),
    ],
)
def test_what_may_not_be_read_or_written(arguments: str, mentioned: str, run: Run, here: Path) -> None:
    for name in ("good.tsv", "student.pt", "nothing"):
        (here / name).chmod(0)
    if os.access("good.tsv", os.R_OK):
        pytest.skip("this user reads and writes everything")
    try:
        called = run(*shlex.split(arguments))
    finally:
        (here / "nothing").chmod(0o755)
    assert called.code == 2
    assert mentioned in called.err


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (OSError(28, "No space left on device", "train_process/data"), "train_process/data"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "-"),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_is_one_plain_message(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def full(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("mtdistill.report.read_cards", full)
    called = run("compare", "nothing")
    assert called.code == 2
    assert f"the system refused: got No space left on device ({place})" in called.err
    assert "Make room" in called.err


def test_an_error_of_the_system_that_is_our_own_fault_is_not_hidden(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_arguments: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "x")

    monkeypatch.setattr("mtdistill.report.read_cards", wrong)
    with pytest.raises(FileNotFoundError):
        run("compare", "nothing")


@pytest.mark.parametrize(
    ("command", "code", "shown"),
    [
        (["-c", "from mtdistill.cli import script; script()", "presets", "--no-forecast"], 0, "用途"),
        (["improved_distillation_trainer.py"], 2, "没有"),  # standard input ends where a number is asked for
        (["test_trained_student.py", "--help"], 0, "成绩单"),
    ],
    ids=["command", "menu", "test"],
)
def test_a_terminal_without_chinese_gets_escapes(command: list[str], code: int, shown: str) -> None:
    root = Path(__file__).parents[2]
    called = subprocess.run(
        [sys.executable, *command, "--lang", "zh"],
        cwd=root,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(root / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert called.returncode == code, called.stderr
    assert shown.encode("ascii", "backslashreplace") in called.stdout


# What looks as odd and is fine.
MANY = "".join(f"他{number}\the {number}\n" for number in range(3))
EXPECTED = [(f"他{number}", f"he {number}") for number in range(3)]
FINE = [
    ("byte-order-mark.tsv", b"\xef\xbb\xbf" + MANY.encode()),
    ("crlf.tsv", MANY.replace("\n", "\r\n").encode()),
    ("mark-and-crlf.tsv", b"\xef\xbb\xbf" + MANY.replace("\n", "\r\n").encode()),
    ("blank-lines.tsv", b"\n \n" + MANY.replace("\n", "\n\n  \n").encode()),
    ("a-million-blank-lines.tsv", b"\n" * 1_000_000 + MANY.encode()),
    ("no-last-line-end.tsv", MANY.rstrip("\n").encode()),
    ("header.tsv", b"\xef\xbb\xbftarget\tid\tSOURCE\n" + "".join(f"{t}\t0\t{s}\n" for s, t in EXPECTED).encode()),
    ("objects.jsonl", "\r\n\r\n".join(json.dumps({"zh": s, "en": t}) for s, t in EXPECTED).encode()),
    ("marked.jsonl", b"\xef\xbb\xbf" + "\n".join(json.dumps({"source": s, "target": t}) for s, t in EXPECTED).encode()),
]


@pytest.mark.parametrize(("name", "content"), FINE, ids=[name for name, _ in FINE])
def test_is_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert [tuple(pair) for pair in read_pairs([str(tmp_path / name)], "zh", "en")] == EXPECTED
    found = read_evaluation_set([str(tmp_path / name)], "zh", "en")
    assert (found.sources, found.references) == ([s for s, _ in EXPECTED], [[t] for _, t in EXPECTED])


def test_a_file_of_nothing_but_spaces_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "spaces.tsv").write_text(" \t \n\u3000\t\u00a0\n", encoding="utf-8")
    with pytest.raises(DataError, match="no pair with text on both sides"):
        read_evaluation_set([str(tmp_path / "spaces.tsv")], "zh", "en")
