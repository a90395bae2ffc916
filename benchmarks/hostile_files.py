"""One tiny specimen of every format that is loaded, and how a user reaches its loader.

Imported by fuzz_loaders.py and by the tests. Nothing is trained: random weights are damaged as well as learnt ones.
"""

import io
import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from mutations import PACKERS
from rich.console import Console
from transformers import T5ForConditionalGeneration

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import DataConfig, dump_toml, read_toml
from mtdistill.data.batches import PackedRows, token_lengths
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.data.readers import read_pairs
from mtdistill.data.tokenizer import load_tokenizer, train_tokenizer
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, OnnxTranslator, convert_to_ctranslate2
from mtdistill.distillation.measuring import measure_student
from mtdistill.export.onnx import convert_to_onnx
from mtdistill.files import write_atomically
from mtdistill.health.finding import Finding
from mtdistill.health.journal import HEALTH_FILE, Journal, read_findings
from mtdistill.modeling import t5_config
from mtdistill.modeling.folder import CHECKSUMS, INFO_FILE, RECORD_FILE, checksums
from mtdistill.presets import load_preset
from mtdistill.report import read_cards, render, render_comparison, write_comparison_html, write_html
from mtdistill.report.finding import REPORT_FILE
from mtdistill.student.bundle import Student, save_bundle, save_folder
from mtdistill.student.loading import find_model
from mtdistill.teacher.cache_manifest import drop_damaged, verify_cache
from mtdistill.teacher.loading import load_teacher
from mtdistill.teacher.state_cache import CachedTargets, build_cache, cache_parts
from mtdistill.teacher.targets import LiveTargets
from mtdistill.teacher.training import BEST_FOLDER, TeacherRecipe, train_teacher
from mtdistill.training.checkpoints import COMPLETE_FILE
from mtdistill.training.engine import Workers, engines
from mtdistill.training.schedule import Schedule

VOCABULARY = 370
RECIPE = TeacherRecipe(
    encoder_layers=1, decoder_layers=1, width=16, heads=2, head_width=8, feed_forward_width=16, layer_drop=0.0,
    schedule=Schedule(epochs=2, batch_size=128, gradient_accumulation=1, learning_rate=0.01, weight_decay=0.0,
                      max_sequence_length=8, evaluations=2, ema_decay=0.5, checkpoints_kept=2),
)  # fmt: skip
SENTENCE = "他喜欢猫。"
INFO = {"source_lang": "zh", "target_lang": "en", "parameters": 12_345}


# --- what is loaded, and how -----------------------------------------------------------------------------------------


def _load_student_file(place: Path) -> None:
    find_model(place / "student_best.pt").translator().translate([SENTENCE])


def _load_folder(place: Path) -> None:
    find_model(place).translator().translate([SENTENCE])


def _load_teacher(place: Path) -> None:
    teacher = load_teacher(str(place))
    HuggingFaceTranslator(teacher.model, teacher.tokenizer, source_lang="zh").translate([SENTENCE], beam_size=2)


def _load_ctranslate2(place: Path) -> None:
    CTranslate2Translator.open(place, source_lang="zh").translate([SENTENCE], beam_size=2)


def _load_onnx(place: Path) -> None:
    OnnxTranslator.open(place, source_lang="zh").translate([SENTENCE], beam_size=2)


def _load_prepared(place: Path) -> None:
    data = PreparedData(place)
    tokenizer = data.tokenizer
    for name in ("train", "validation", "test"):
        rows = data.split(name)
        token_lengths(rows)
        batch = PackedRows(rows, 8).batch(list(range(len(rows))))
        if len(batch.labels) and not 0 <= int(batch.labels.min()) <= int(batch.labels.max()) < len(tokenizer):
            raise IndexError("a token outside of the vocabulary, which a kernel would read over the end of its table")
        data.evaluation_set(name, 5)


def _load_cache(place: Path) -> None:
    cache = CachedTargets(place, torch.zeros(VOCABULARY + 6, 16))
    rows = torch.arange(cache.manifest.rows)
    lengths = np.diff(np.load(place / "starts.npy"))
    cache.states(_Batch(torch.zeros(int(lengths.sum())), rows))  # type: ignore[arg-type]
    str(cache.manifest.parts["max_sequence_length"]), str(cache.manifest.parts["teacher"])[:12]  # as inspect shows
    drop_damaged(place)
    verify_cache(place)


def _ever_better(_model: object) -> dict[str, float]:
    return {"bleu": time.monotonic()}  # so that the student of a resumed run is the best and is saved


def _resume(place: Path) -> None:
    shutil.rmtree(place / BEST_FOLDER, ignore_errors=True)
    prepared = place.parent.parent / "specimens" / "prepared"
    train_teacher(PreparedData(prepared), RECIPE, place, _ever_better, resume=True)


def _read_report(place: Path) -> None:
    cards = read_cards([place])
    for card in cards.values():
        found = read_findings(place / HEALTH_FILE)
        write_html(card, place / "report.html", findings=found, others=cards)
        Console(file=io.StringIO()).print(render(card), render_comparison(cards))
    write_comparison_html(cards, place / "compare.html")


@dataclass
class _Batch:
    labels: torch.Tensor
    rows: torch.Tensor


def _load_settings(place: Path) -> None:
    read_toml(place / "config.toml")


def _read_text(place: Path) -> None:
    for _ in read_pairs([str(place)], "zh", "en"):
        pass


def _prepare(place: Path) -> None:
    config = DataConfig(train=(str(place),), source_lang="zh", target_lang="en", validation_ratio=0.2, test_ratio=0.2)
    prepare_data(config, place / "data", load_tokenizer(place.parent.parent / "specimens" / "teacher"))


def _load_tokenizer(place: Path) -> None:
    tokenizer = load_tokenizer(place)
    tokenizer.batch_decode(tokenizer([SENTENCE])["input_ids"])


@dataclass(frozen=True)
class Format:
    """A kind of file or folder.

    Attributes:
        name: of the format.
        specimen: its folder among the specimens.
        load: loads a folder of it, and uses what came out.
        weight: its share of the cases; more where a library in C++ reads the bytes.
    """

    name: str
    specimen: str
    load: Callable[[Path], None]
    weight: int = 2


FORMATS = {
    each.name: each
    for each in (
        Format("student_best.pt", "file", _load_student_file, 4),
        Format("student folder", "folder", _load_folder),
        Format("student unsigned", "folder_unsigned", _load_folder, 4),
        Format("teacher folder", "teacher", _load_teacher, 3),
        Format("tokenizer.json", "tokenizer", _load_tokenizer),
        Format("sentencepiece", "sentencepiece", _load_tokenizer),
        Format("ctranslate2", "ctranslate2", _load_folder),
        Format("ctranslate2 unsigned", "ctranslate2_unsigned", _load_ctranslate2, 6),
        Format("onnx", "onnx", _load_folder),
        Format("onnx unsigned", "onnx_unsigned", _load_onnx, 6),
        Format("prepared data", "prepared", _load_prepared, 2),
        Format("prepared unsigned", "prepared_unsigned", _load_prepared, 4),
        Format("teacher states", "cache", _load_cache, 3),
        Format("checkpoint", "checkpoint", _resume, 1),
        Format("checkpoint unsigned", "checkpoint_unsigned", _resume, 4),
        Format("report", "report", _read_report, 3),
        Format("config.toml", "settings", _load_settings, 3),
        *(Format(f"text{suffix}", f"text{suffix}", _read_text, 2) for suffix in (".tsv", ".jsonl", ".tmx", ".zh")),
        *(Format(f"text{suffix}", f"text{suffix}", _read_text, 1) for suffix in PACKERS),
        Format("prepare_data", "text.tsv", _prepare, 1),
    )
}


# --- specimens -------------------------------------------------------------------------------------------------------


def make_specimens(root: Path) -> None:
    """Write a whole specimen of every format into a folder of its own."""
    quiet_libraries()
    torch.manual_seed(1)
    pairs = [
        (f"{who}{what}了{n}只猫。", f"{who} {what} {n} cats.")
        for who in "他她你我"
        for what in "看养买"
        for n in range(9)
    ]
    tokenizer = train_tokenizer((line for pair in pairs for line in pair), VOCABULARY, 1.0)
    shape = t5_config(
        VOCABULARY + 6, encoder_layers=2, decoder_layers=1, width=16, heads=2, head_width=8, feed_forward_width=16
    )
    model = T5ForConditionalGeneration(shape).eval()
    student = Student(model, tokenizer, INFO)
    save_bundle(student, root / "file" / "student_best.pt")
    save_folder(student, root / "folder")
    for name in ("folder_unsigned", "teacher"):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    (root / "folder_unsigned" / INFO_FILE).write_text(json.dumps(INFO))
    (root / "teacher" / RECORD_FILE).write_text(json.dumps(INFO))
    tokenizer.save_pretrained(root / "tokenizer")
    _make_sentencepiece(root / "sentencepiece", [line for pair in pairs for line in pair])
    (root / "ctranslate2_unsigned").mkdir()
    convert_to_ctranslate2(root / "teacher", root / "ctranslate2_unsigned", "int8", languages=("zh", "en"))
    convert_to_onnx(model, tokenizer, root / "onnx_unsigned", "int8")
    for name in ("ctranslate2", "onnx"):
        shutil.copytree(root / f"{name}_unsigned", root / name)
        sign(root / name)
    _make_texts(root, pairs)
    config = DataConfig(
        train=(str(root / "text.tsv"),), source_lang="zh", target_lang="en", validation_ratio=0.2, test_ratio=0.2
    )
    prepared = prepare_data(config, root / "prepared_data", tokenizer)
    prepared.folder.rename(root / "prepared")
    shutil.copytree(root / "prepared", root / "prepared_unsigned")
    manifest = json.loads((root / "prepared_unsigned" / "manifest.json").read_text())
    manifest.pop("sha256", None)
    (root / "prepared_unsigned" / "manifest.json").write_text(json.dumps(manifest))
    rows = PreparedData(root / "prepared").split("train").select(range(40))
    parts = cache_parts(model, rows, 8, "float32")
    with closing(Workers(1, 1)) as workers:
        build_cache(root / "cache", parts, rows, LiveTargets(model, engines("float32", 1)[0]), workers)
    _make_checkpoints(root)
    _make_report(root)
    (root / "settings").mkdir()
    (root / "settings" / "config.toml").write_text(dump_toml(load_preset("quick").config))


def sign(folder: Path) -> None:
    """Write what is known of an export, with checksums, as `mtdistill export` does."""
    (folder / INFO_FILE).write_text(json.dumps({**INFO, CHECKSUMS: checksums(folder)}))


def _make_checkpoints(root: Path) -> None:
    """A training of two updates that was interrupted after the first."""
    train_teacher(PreparedData(root / "prepared"), RECIPE, root / "checkpoint", _ever_better)
    first, last = sorted((root / "checkpoint").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    shutil.rmtree(root / "checkpoint" / BEST_FOLDER)
    shutil.copytree(root / "checkpoint", root / "checkpoint_unsigned")
    (root / "checkpoint_unsigned" / first.name / COMPLETE_FILE).write_text('{"sha256": {}}')


def _make_report(root: Path) -> None:
    with patch.multiple("mtdistill.report.duels", SPEED_REPEATS=1, SPEED_SENTENCES={32: 12, 1: 12}):
        card = measure_student(root / "folder", data=[str(root / "text.tsv" / "pairs.tsv")], thorough=False)
    write_atomically(root / "report" / REPORT_FILE, card.to_json())
    findings = Journal(root / "report" / HEALTH_FILE)
    findings.record(Finding("damaged_cache", "failure", 7, example="states-00000.npy", action="rebuilt"))
    findings.record(Finding("little_memory", "warning", 0, {"free_gib": 0.5, "wanted_gib": 2.0}))


def _make_sentencepiece(folder: Path, lines: list[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=90, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2, hard_vocab_limit=False, num_threads=1,
    )  # fmt: skip
    folder.mkdir()
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))


def _make_texts(root: Path, pairs: list[tuple[str, str]]) -> None:
    tsv = "".join(f"{source}\t{target}\n" for source, target in pairs)
    jsonl = "".join(
        json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n" for source, target in pairs
    )
    units = "".join(
        f'<tu><tuv xml:lang="zh"><seg>{source}</seg></tuv><tuv xml:lang="en"><seg>{target}</seg></tuv></tu>\n'
        for source, target in pairs
    )
    tmx = f'<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4"><header/><body>\n{units}</body></tmx>\n'
    texts = {".tsv": tsv, ".jsonl": jsonl, ".tmx": tmx}
    for suffix, text in texts.items():
        (root / f"text{suffix}").mkdir()
        (root / f"text{suffix}" / f"pairs{suffix}").write_text(text, encoding="utf-8")
    (root / "text.zh").mkdir()
    for side, lang in enumerate(("zh", "en")):
        lines = "".join(pair[side] + "\n" for pair in pairs)
        (root / "text.zh" / f"pairs.{lang}").write_text(lines, encoding="utf-8")
    for (suffix, (pack, _)), (inner, text) in zip(PACKERS.items(), [*texts.items(), (".tsv", tsv)], strict=True):
        (root / f"text{suffix}").mkdir()
        (root / f"text{suffix}" / f"pairs{inner}{suffix}").write_bytes(pack(text.encode()))
