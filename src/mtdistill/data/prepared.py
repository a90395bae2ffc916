"""Prepared data: cleaned, split and tokenised once, kept on disk as Arrow and mapped into memory when used.

Reads: built-in corpora or files. Writes, under a name that is the identity of everything it depends on::

    <root>/<identity>/
    ├── manifest.json             identity, languages, cleaning report, split sizes, leakage
    ├── tokenizer/                as a Hugging Face folder
    └── train/ validation/ test/  Arrow: source, target, source_ids, target_ids, source_tokens, target_tokens
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from mtdistill.config import DataConfig
from mtdistill.data import corpora
from mtdistill.data.cleaning import CleaningReport, Pair, clean
from mtdistill.data.readers import input_files, read_pairs
from mtdistill.data.splits import SPLITS, Keys, assign_splits, sentence_keys, shared_with
from mtdistill.data.tokenizer import load_tokenizer, train_tokenizer
from mtdistill.errors import DataError, LeakageError
from mtdistill.files import replacing_folder, sha256_of, write_atomically
from mtdistill.messages import tr

FORMAT_VERSION = 1
_BLOCK_PAIRS = 20_000
_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string())])
Report = Callable[[str], None]


@dataclass(frozen=True)
class Manifest:
    """What prepared data is and how it came to be; `identity` names everything it depends on."""

    identity: str
    source_lang: str
    target_lang: str
    read: int
    kept: int
    dropped: Mapping[str, int]
    sizes: Mapping[str, int]
    removed_from_training: int
    leaked: int
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSet:
    """Distinct sources with every reference of each, in the order of the data."""

    sources: list[str]
    references: list[list[str]]

    def __len__(self) -> int:
        return len(self.sources)


class PreparedData:
    """A folder written by `prepare_data`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = Manifest(**json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(tr(
                en=f"prepared data could not be read: got {folder} ({type(error).__name__}), accepted a folder that "
                "this version wrote. Delete it and run again.",
                zh=f"无法读取已准备的数据：得到 {folder}（{type(error).__name__}），需要由本版本写出的文件夹。请删除后重新运行。",
            )) from error
        self.source_lang, self.target_lang = self.manifest.source_lang, self.manifest.target_lang

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer the data was tokenised with."""
        return load_tokenizer(self.folder / "tokenizer")

    def split(self, name: str) -> datasets.Dataset:
        """One of "train", "validation", "test", mapped from disk."""
        return datasets.load_from_disk(str(self.folder / name))

    def evaluation_set(self, name: str, limit: int | None = None) -> EvaluationSet:
        """Distinct sources of a split with all their references; at most the first ``limit`` sources."""
        rows = self.split(name).select_columns(["source", "target"])
        references: dict[str, list[str]] = {}
        for row in rows:
            references.setdefault(row["source"], []).append(row["target"])
        sources = list(references)[:limit]
        return EvaluationSet(sources, [references[source] for source in sources])


def prepare_data(
    config: DataConfig,
    root: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
    report: Report = lambda _message: None,
) -> PreparedData:
    """Clean, split and tokenise a corpus, or find it ready.

    Args:
        config: where the text is and how it is cleaned and split.
        root: folder that holds one folder for each identity.
        tokenizer: the teacher's; None trains one on the training split.
        report: called with a line of progress at each stage.

    Raises:
        DataError: no usable text, unknown languages, or a split without sentences.
        LeakageError: held-out sentences remain in training (a bug of ours if it ever happens).
        MissingExtraError: a built-in corpus is not installed.
    """
    source_lang, target_lang = languages_of(config)
    parts = _parts(config, tokenizer)
    identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / identity
    if (folder / "manifest.json").is_file():
        return PreparedData(folder)
    root.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as fresh, tempfile.TemporaryDirectory(dir=root) as scratch:
        counts, removed, leaked, texts = _split_text(config, source_lang, target_lang, Path(scratch), report)
        if tokenizer is None:
            report(tr(en="learning the vocabulary", zh="正在学习词表"))
            tokenizer = train_tokenizer(_lines(texts["train"]), config.vocabulary_size, config.character_coverage)
        tokenizer.save_pretrained(str(fresh / "tokenizer"))
        for name in SPLITS:
            report(tr(en=f"tokenising: {name}", zh=f"正在分词：{name}"))
            _tokenised(texts[name], tokenizer).save_to_disk(str(fresh / name))
        manifest = Manifest(
            identity=identity,
            source_lang=source_lang,
            target_lang=target_lang,
            read=counts.read,
            kept=counts.kept,
            dropped=dict(counts.dropped),
            sizes={name: len(texts[name]) for name in SPLITS},
            removed_from_training=removed,
            leaked=leaked,
            parts=parts,
        )
        write_atomically(fresh / "manifest.json", json.dumps(asdict(manifest), ensure_ascii=False, indent=2))
        del texts
    return PreparedData(folder)


def languages_of(config: DataConfig) -> tuple[str, str]:
    """Source and target language: as configured, or those of the built-in corpus.

    Raises:
        DataError: neither says.
    """
    source_lang, target_lang = config.source_lang, config.target_lang
    for name in config.train:
        if corpora.is_builtin(name):
            _, source, target = corpora.BUILTIN[name]
            source_lang, target_lang = source_lang or source, target_lang or target
    if not source_lang or not target_lang:
        raise DataError(tr(
            en=f"the languages are not known: got source {source_lang!r}, target {target_lang!r}. "
            "Set data.source_lang and data.target_lang, for example to zh and en.",
            zh=f"不知道语言方向：源语言为 {source_lang!r}，目标语言为 {target_lang!r}。"
            "请设置 data.source_lang 和 data.target_lang，例如 zh 和 en。",
        ))
    return source_lang, target_lang


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash of everything that decides which ids a text becomes."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _parts(config: DataConfig, tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any]:
    """Everything the prepared data depends on, by name."""
    parts = config.model_dump(mode="json", exclude={"vocabulary_size", "character_coverage"})
    parts["format"] = FORMAT_VERSION
    for name in ("train", "extra", "validation", "test"):
        parts[f"{name}_sha256"] = [sha256_of(path) for entry in getattr(config, name) for path in _files(entry, config)]
    if tokenizer is None:
        parts["tokenizer"] = f"trained, {config.vocabulary_size} pieces, coverage {config.character_coverage}"
    else:
        parts["tokenizer"] = tokenizer_fingerprint(tokenizer)
    return parts


def _files(entry: str, config: DataConfig) -> list[Path]:
    if corpora.is_builtin(entry):
        return [corpora.builtin_file(entry)]
    return input_files([entry], *languages_of(config))


def _pairs(entries: Sequence[str], source_lang: str, target_lang: str) -> Iterator[Pair]:
    builtin = [corpora.read_builtin(entry)[0] for entry in entries if corpora.is_builtin(entry)]
    paths = [entry for entry in entries if not corpora.is_builtin(entry)]
    return chain(*builtin, read_pairs(paths, source_lang, target_lang) if paths else ())


def _split_text(
    config: DataConfig, source_lang: str, target_lang: str, scratch: Path, report: Report
) -> tuple[CleaningReport, int, int, dict[str, datasets.Dataset]]:
    """Cleaned text of every split, the cleaning report, pairs removed from training, and sentences still leaked."""

    def cleaned(name: str, entries: Sequence[str], rules: Sequence[str]) -> tuple[datasets.Dataset, Keys, CleaningReport]:
        report(tr(en=f"reading and cleaning: {', '.join(entries)}", zh=f"正在读取并清洗：{', '.join(entries)}"))
        pairs, counts = clean(_pairs(entries, source_lang, target_lang), source_lang, target_lang, rules)
        text, keys = _written(pairs, scratch / f"{name}.arrow")
        return text, keys, counts

    text, keys, counts = cleaned("all", config.train, config.cleaning)
    own = {name: getattr(config, name) for name in SPLITS[1:]}
    # A split that the user brings takes nothing out of the training text.
    split = assign_splits(
        keys,
        0.0 if own["validation"] else config.validation_ratio,
        0.0 if own["test"] else config.test_ratio,
    )
    texts: dict[str, datasets.Dataset] = {}
    held_out: list[Keys] = []
    for index, name in enumerate(SPLITS[1:], start=1):
        if own[name]:
            # The user's own lines are evaluated on as they are: repeated ones count as often as they stand there.
            texts[name], own_keys, _ = cleaned(name, own[name], ("empty",))
            held_out.append(own_keys)
        else:
            texts[name] = text.select(np.flatnonzero(split == index))
            held_out.append(keys[split == index])
    held_keys = np.concatenate(held_out)
    training = np.flatnonzero((split == 0) & ~shared_with(keys, held_keys))
    removed = int((split == 0).sum()) - len(training)
    texts["train"], train_keys = text.select(training), keys[training]
    if config.extra:
        extra, extra_keys, _ = cleaned("extra", config.extra, config.cleaning)
        usable = np.flatnonzero(~shared_with(extra_keys, held_keys))
        removed += len(extra) - len(usable)
        texts["train"] = datasets.concatenate_datasets([texts["train"], extra.select(usable)])
        train_keys = np.concatenate([train_keys, extra_keys[usable]])
    leaked = int(shared_with(train_keys, held_keys).sum())
    if leaked:
        raise LeakageError(tr(
            en=f"held-out sentences stand in training: got {leaked}, accepted 0. Please report this as a bug.",
            zh=f"训练集中出现了留出句子：{leaked} 个，应为 0 个。请作为程序缺陷报告。",
        ))
    for name in SPLITS:
        if not len(texts[name]):
            raise DataError(tr(
                en=f"the {name} split is empty: {counts.kept} of {counts.read} pairs were usable. "
                "Give more text, or your own files (data.validation, data.test).",
                zh=f"{name} 部分没有句子：{counts.read} 对中有 {counts.kept} 对可用。"
                "请提供更多文本，或给出自己的文件（data.validation、data.test）。",
            ))
    return counts, removed, leaked, texts


def _written(pairs: Iterator[Pair], path: Path) -> tuple[datasets.Dataset, Keys]:
    """Pairs as an Arrow file mapped from disk, and their sentence keys; memory holds one block of pairs."""
    keys: list[Keys] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        block: list[Pair] = []
        for pair in chain(pairs, [None]):
            if pair is not None:
                block.append(pair)
            if block and (pair is None or len(block) == _BLOCK_PAIRS):
                keys.append(sentence_keys(block))
                writer.write_batch(pa.record_batch([list(side) for side in zip(*block, strict=True)], schema=_SCHEMA))
                block = []
    return datasets.Dataset.from_file(str(path)), np.concatenate(keys) if keys else sentence_keys(())


def _lines(text: datasets.Dataset) -> Iterator[str]:
    for row in text:
        yield row["source"]
        yield row["target"]


def _tokenised(text: datasets.Dataset, tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    def ids(rows: dict[str, list[str]]) -> dict[str, Any]:
        sources, targets = tokenizer(rows["source"])["input_ids"], tokenizer(rows["target"])["input_ids"]
        return {
            "source_ids": sources,
            "target_ids": targets,
            "source_tokens": [len(line) for line in sources],
            "target_tokens": [len(line) for line in targets],
        }

    columns: dict[str, Any] = {
        "source": datasets.Value("string"),
        "target": datasets.Value("string"),
        "source_ids": datasets.Sequence(datasets.Value("int32")),
        "target_ids": datasets.Sequence(datasets.Value("int32")),
        "source_tokens": datasets.Value("int32"),
        "target_tokens": datasets.Value("int32"),
    }
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return text.map(ids, batched=True, features=datasets.Features(columns), keep_in_memory=False)
    finally:
        if not shown:
            datasets.enable_progress_bars()

