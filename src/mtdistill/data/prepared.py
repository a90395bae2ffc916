"""Prepared data: cleaned, split and tokenised once, kept on disk as Arrow and mapped into memory when used.

Reads: built-in corpora or files. Writes, under a name that is the identity of everything it depends on::

    <root>/<identity>/
    ├── manifest.json             identity, languages, cleaning report, split sizes, leakage, checksums of all files
    ├── tokenizer/                as a Hugging Face folder
    └── train/ validation/ test/  Arrow: source, target, source_ids, target_ids, source_tokens, target_tokens
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
from pydantic import TypeAdapter
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mtdistill.config import DataConfig
from mtdistill.data import corpora
from mtdistill.data.readers import input_files
from mtdistill.data.rows import mapped_rows, require_sound, save_rows, tokenised_rows
from mtdistill.data.splits import SPLITS
from mtdistill.data.splitting import Report, split_text
from mtdistill.data.tokenizer import load_tokenizer, train_tokenizer
from mtdistill.errors import DataError
from mtdistill.files import (
    changed_files,
    checksums_of,
    clear_leftovers,
    one_at_a_time,
    replacing_folder,
    scratch_folder,
    sha256_of,
    write_atomically,
)
from mtdistill.messages import tr
from mtdistill.text import base_language, writes_traditional

FORMAT_VERSION = 2  # 2: marks count in what makes two sentences the same


@dataclass(frozen=True)
class Manifest:
    """What prepared data is and how it came to be; `identity` names everything it depends on.

    `sha256` has a checksum of every other file, by its path in the folder; data of older versions has none.
    """

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
    sha256: Mapping[str, str] = field(default_factory=dict)


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class EvaluationSet:
    """Distinct sources with every reference of each, in the order of the data."""

    sources: list[str]
    references: list[list[str]]

    def __len__(self) -> int:
        return len(self.sources)

    @classmethod
    def of(cls, rows: datasets.Dataset) -> "EvaluationSet":
        """The distinct sources of some rows."""
        references: dict[str, list[str]] = {}
        for row in rows.select_columns(["source", "target"]):
            references.setdefault(row["source"], []).append(row["target"])
        return cls(list(references), list(references.values()))

    def first(self, count: int) -> "EvaluationSet":
        """At most the first ``count`` sources."""
        return EvaluationSet(self.sources[:count], self.references[:count])


class PreparedData:
    """A folder written by `prepare_data`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: set[str] = set()
        try:
            self.manifest = _MANIFEST.validate_json((folder / "manifest.json").read_bytes(), strict=True)
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        self.source_lang, self.target_lang = self.manifest.source_lang, self.manifest.target_lang

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer the data was tokenised with."""
        self._require_unchanged("tokenizer")
        return load_tokenizer(self.folder / "tokenizer")

    def split(self, name: str) -> datasets.Dataset:
        """One of "train", "validation", "test", mapped from disk.

        Raises:
            DataError: it is missing or damaged.
        """
        self._require_unchanged(name)
        try:
            rows = mapped_rows(self.folder / name)
            if name not in self._sound:
                require_sound(rows, len(self.tokenizer))
        except DataError:
            raise
        except Exception as error:  # datasets, pyarrow and json raise their own for every kind of damage
            raise self._damaged(error) from error
        self._sound.add(name)
        return rows

    def _require_unchanged(self, part: str) -> None:
        """Compare the files of a folder in this one with their checksums, where there are any; once."""
        if part in self._sound:
            return
        wanted = {name: checksum for name, checksum in self.manifest.sha256.items() if Path(name).parts[:1] == (part,)}
        if changed := changed_files(self.folder, wanted):
            raise self._damaged(ValueError(", ".join(changed)))
        if part == "tokenizer":  # the rows of a split are still to be looked at
            self._sound.add(part)

    def _damaged(self, error: Exception) -> DataError:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        return DataError(
            tr(
                en=f"prepared data could not be read: got {self.folder} ({detail}), accepted a folder that this version "
                "wrote. Delete it and run again.",
                zh=f"无法读取已准备的数据：得到 {self.folder}（{detail}），需要由本版本写出的文件夹。请删除后重新运行。",
            )
        )

    def evaluation_set(self, name: str, limit: int | None = None) -> EvaluationSet:
        """Distinct sources of a split with all their references; at most the first ``limit`` sources."""
        whole = EvaluationSet.of(self.split(name))
        return whole if limit is None else whole.first(limit)


def prepare_data(
    config: DataConfig,
    root: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
    report: Report = lambda _message: None,
) -> PreparedData:
    """Clean, split and tokenise a corpus, or find it ready; one process at a time, the others find what it made.

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
    parts = _parts(config, tokenizer)
    identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / identity
    if (folder / "manifest.json").is_file():
        return PreparedData(folder)
    root.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        report(
            tr(
                en=f"another run prepares the same text: {folder}. Waiting",
                zh=f"另一个任务正在准备同样的数据：{folder}。正在等待",
            )
        )

    with one_at_a_time(folder, waiting):
        if not (folder / "manifest.json").is_file():
            clear_leftovers(root, identity)
            _prepare(config, folder, parts, tokenizer, report)
    return PreparedData(folder)


def _prepare(
    config: DataConfig,
    folder: Path,
    parts: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerFast | None,
    report: Report,
) -> None:
    source_lang, target_lang = languages_of(config)
    with replacing_folder(folder) as fresh, scratch_folder(folder.parent, folder.name) as scratch:
        split = split_text(config, source_lang, target_lang, scratch, report)
        if tokenizer is None:
            report(tr(en="learning the vocabulary", zh="正在学习词表"))
            tokenizer = train_tokenizer(_lines(split.texts["train"]), config.vocabulary_size, config.character_coverage)
        tokenizer.save_pretrained(str(fresh / "tokenizer"))
        for name in SPLITS:
            report(tr(en=f"tokenising: {name}", zh=f"正在分词：{name}"))
            save_rows(tokenised_rows(split.texts[name], tokenizer), fresh / name)
        manifest = Manifest(
            identity=folder.name,
            source_lang=source_lang,
            target_lang=target_lang,
            read=split.cleaning.read,
            kept=split.cleaning.kept,
            dropped=dict(split.cleaning.dropped),
            sizes={name: len(split.texts[name]) for name in SPLITS},
            removed_from_training=split.removed,
            leaked=split.leaked,
            parts=parts,
            sha256=checksums_of(fresh, fresh.glob("*/*")),
        )
        write_atomically(fresh / "manifest.json", json.dumps(asdict(manifest), ensure_ascii=False, indent=2))
        del split  # closes the files in the scratch folder, which could not be deleted on Windows otherwise


def languages_of(config: DataConfig) -> tuple[str, str]:
    """Source and target language: as configured, or those of the first built-in corpus.

    Raises:
        DataError: neither says, or a built-in corpus has another direction.
    """
    named = [name for entries in (config.train, config.extra, config.validation, config.test) for name in entries]
    builtin = {name: corpora.BUILTIN[name][1:] for name in named if corpora.is_builtin(name)}
    first_source, first_target = next(iter(builtin.values()), (None, None))
    source_lang, target_lang = config.source_lang or first_source, config.target_lang or first_target
    if not source_lang or not target_lang:
        raise DataError(
            tr(
                en=f"the languages are not known: got source {source_lang!r}, target {target_lang!r}. "
                "Set data.source_lang and data.target_lang, for example to zh and en.",
                zh=f"不知道语言方向：源语言为 {source_lang!r}，目标语言为 {target_lang!r}。"
                "请设置 data.source_lang 和 data.target_lang，例如 zh 和 en。",
            )
        )
    for name, direction in builtin.items():
        if direction != (base_language(source_lang), base_language(target_lang)):
            raise DataError(
                tr(
                    en=f"a built-in corpus has another direction: got {name} for {source_lang}-{target_lang}. "
                    "Use a corpus of that direction, or set data.source_lang and data.target_lang to the corpus's.",
                    zh=f"内置语料的方向不符：得到 {name}，而语言方向为 {source_lang}-{target_lang}。"
                    "请使用该方向的语料，或把 data.source_lang 和 data.target_lang 改成语料的语言。",
                )
            )
    return source_lang, target_lang


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash of everything that decides which ids a text becomes.

    Padding and truncation are left out: a tokenizer remembers those of its last call.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def _parts(config: DataConfig, tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any]:
    """Everything the prepared data depends on, by name."""
    parts = config.model_dump(mode="json", exclude={"vocabulary_size", "character_coverage"})
    parts["format"] = FORMAT_VERSION
    if writes_traditional(config.target_lang or ""):
        parts["target"] = "traditional"  # simplified in data of versions before
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


def _lines(text: datasets.Dataset) -> Iterator[str]:
    for row in text:
        yield row["source"]
        yield row["target"]
