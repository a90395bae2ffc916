"""The text of each split, out of the files and corpora that a configuration names: read, cleaned, divided, checked.

The text is in Arrow files that are mapped from disk; memory holds one block of pairs, and the hashes of `data.splits`.
Imported by distillation and data.prepared; imports config, data.cleaning, data.corpora, data.readers and data.splits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from mtdistill.config import DataConfig
from mtdistill.data import corpora
from mtdistill.data.cleaning import CleaningReport, Pair, clean
from mtdistill.data.readers import read_pairs
from mtdistill.data.splits import SPLITS, Keys, assign_splits, sentence_keys, shared_with
from mtdistill.errors import DataError, LeakageError
from mtdistill.messages import listed, tr

Report = Callable[[str], None]
_BLOCK_PAIRS = 20_000
_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string())])


@dataclass(frozen=True)
class SplitText:
    """Clean text of every split, and how it came to be.

    Attributes:
        texts: datasets with the columns source and target, by split.
        cleaning: what happened to the pairs of `DataConfig.train`.
        removed: pairs taken out of training because one of their sentences is held out.
        leaked: pairs of training with a held-out sentence, counted afterwards; always 0.
    """

    texts: Mapping[str, datasets.Dataset]
    cleaning: CleaningReport
    removed: int
    leaked: int


@dataclass(frozen=True)
class _Text:
    rows: datasets.Dataset
    keys: Keys
    cleaning: CleaningReport

    def where(self, chosen: np.ndarray) -> tuple[datasets.Dataset, Keys]:
        indices = np.flatnonzero(chosen)
        return self.rows.select(indices), self.keys[indices]


def split_text(config: DataConfig, source_lang: str, target_lang: str, scratch: Path, report: Report) -> SplitText:
    """Read and clean all text of a configuration, and put every pair into its split.

    Args:
        config: where the text is and how it is cleaned and split.
        source_lang: language code of the sources.
        target_lang: language code of the targets.
        scratch: folder for Arrow files, which the result is mapped from.
        report: called with a line of progress for every part.

    Raises:
        DataError: text that cannot be read, or a split without sentences.
        LeakageError: held-out sentences remain in training (a bug of ours if it ever happens).
        MissingExtraError: a built-in corpus is not installed.
    """

    def read(name: str, entries: Sequence[str], rules: Sequence[str]) -> _Text:
        report(tr(en=f"reading and cleaning: {', '.join(entries)}", zh=f"正在读取并清洗：{'、'.join(entries)}"))
        pairs, cleaning = clean(_pairs(entries, source_lang, target_lang), source_lang, target_lang, rules)
        rows, keys = _stored(pairs, scratch / f"{name}.arrow")
        return _Text(rows, keys, cleaning)

    given = read("train", config.train, config.cleaning)
    own = {name: getattr(config, name) for name in SPLITS[1:]}
    # A split that the user brings takes nothing out of the training text.
    split = assign_splits(
        given.keys,
        0.0 if own["validation"] else config.validation_ratio,
        0.0 if own["test"] else config.test_ratio,
    )
    texts: dict[str, datasets.Dataset] = {}
    cleaning = dict.fromkeys(SPLITS, given.cleaning)
    held_out: list[Keys] = []
    for index, name in enumerate(SPLITS[1:], start=1):
        if own[name]:
            # The user's own lines are evaluated on as they are; only what has no text on one side cannot be.
            brought = read(name, own[name], ("empty",))
            texts[name], keys, cleaning[name] = brought.rows, brought.keys, brought.cleaning
        else:
            texts[name], keys = given.where(split == index)
        held_out.append(keys)
    held_keys = np.concatenate(held_out)
    texts["train"], _ = given.where((split == 0) & ~shared_with(given.keys, held_keys))
    candidates = int((split == 0).sum())
    if config.extra:
        extra = read("extra", config.extra, config.cleaning)
        rows, _ = extra.where(~shared_with(extra.keys, held_keys))
        texts["train"] = datasets.concatenate_datasets([texts["train"], rows])
        candidates += len(extra.keys)
    for name in SPLITS:
        if not len(texts[name]):
            raise _empty(name, cleaning[name])
    # Counted anew in the text itself, so that a mistake above would show.
    held_keys = np.concatenate([keys_of(texts[name]) for name in SPLITS[1:]])
    leaked = int(shared_with(keys_of(texts["train"]), held_keys).sum())
    if leaked:
        raise LeakageError(
            tr(
                en=f"held-out sentences stand in training: got {leaked}, accepted 0. Please report this as a bug.",
                zh=f"训练集中出现了留出句子：{leaked} 个，应为 0 个。这是程序缺陷，请反馈。",
            )
        )
    return SplitText(texts, given.cleaning, candidates - len(texts["train"]), leaked)


def _pairs(entries: Sequence[str], source_lang: str, target_lang: str) -> Iterator[Pair]:
    builtin = [corpora.read_builtin(entry)[0] for entry in entries if corpora.is_builtin(entry)]
    paths = [entry for entry in entries if not corpora.is_builtin(entry)]
    return chain(*builtin, read_pairs(paths, source_lang, target_lang))


def _stored(pairs: Iterator[Pair], path: Path) -> tuple[datasets.Dataset, Keys]:
    """Pairs as an Arrow file mapped from disk, and their sentence keys."""
    keys = [sentence_keys(())]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        while block := list(islice(pairs, _BLOCK_PAIRS)):
            keys.append(sentence_keys(block))
            writer.write_batch(pa.record_batch([list(side) for side in zip(*block, strict=True)], schema=_SCHEMA))
    return datasets.Dataset.from_file(str(path)), np.concatenate(keys)


def keys_of(rows: datasets.Dataset) -> Keys:
    """The sentence keys of some rows, see `sentence_keys`."""
    blocks = rows.iter(_BLOCK_PAIRS)
    return sentence_keys(Pair(*pair) for block in blocks for pair in zip(block["source"], block["target"], strict=True))


def _empty(name: str, cleaning: CleaningReport) -> DataError:
    dropped = listed(f"{rule} {count}" for rule, count in cleaning.dropped.most_common()) or "-"
    return DataError(
        tr(
            en=f"the {name} split is empty: got {cleaning.kept} usable pairs of {cleaning.read} (dropped: {dropped}), "
            "accepted one sentence or more in every split. Give more text, or files of your own (data.validation, "
            "data.test).",
            zh=f"{name} 部分没有句子：读入 {cleaning.read} 对，可用 {cleaning.kept} 对（丢弃：{dropped}），"
            "每个部分至少应有一句。请提供更多文本，或给出自己的文件（data.validation、data.test）。",
        )
    )
