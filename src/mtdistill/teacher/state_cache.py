"""The teacher's states of a whole training set, computed once and mapped from disk in every epoch.

Reads: tokenised rows, a teacher. Writes, under a name that is the hash of everything the states depend on::

    <root>/<identity>/
    ├── starts.npy              first token of every row and the end of the last, (rows + 1,) int64
    ├── states-00000.npy ...    float16, (tokens, width), `_shard_rows` rows each, in the order of the rows
    └── manifest.json           written last: what the states depend on, and a checksum of every file

A shard appears when it is whole, so an interrupted build goes on where it stopped. Imported by distillation; imports
data, training, teacher.cache_manifest and teacher.targets.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch, PackedRows, token_lengths
from mtdistill.errors import CacheError
from mtdistill.files import checksums_of, write_atomically
from mtdistill.messages import tr
from mtdistill.teacher.cache_manifest import MANIFEST, STARTS, CacheManifest, damaged, read_manifest
from mtdistill.teacher.targets import TargetSource
from mtdistill.training.engine import Workers

FORMAT_VERSION = 2  # 2: the teacher's settings count as well
SHARD_ROWS, MAX_SHARDS = 8192, 100  # every shard is an open file, of which a process may have 256 on some systems
# Other than what the shapes of weights tell.
_USES = (
    "num_heads", "d_kv", "layer_norm_epsilon", "relative_attention_num_buckets", "relative_attention_max_distance",
    "feed_forward_proj", "scale_decoder_outputs",
)  # fmt: skip
_BATCH_ROWS = 128
Progress = Callable[[int, int], None]


def model_fingerprint(model: T5ForConditionalGeneration) -> str:
    """Hexadecimal SHA-256 of the names and values of all weights, and of the settings that say how they are used."""
    weights = hashlib.sha256(json.dumps([getattr(model.config, name, None) for name in _USES]).encode())
    for name, weight in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return weights.hexdigest()


def cache_parts(teacher: T5ForConditionalGeneration, rows: datasets.Dataset, max_tokens: int,
                precision: str) -> dict[str, Any]:  # fmt: skip
    """Everything that the states of these rows depend on, by name.

    Args:
        teacher: its weights are hashed.
        rows: tokenised pairs in training order; their tokens are hashed, whatever made them.
        max_tokens: where sentences are cut.
        precision: of the teacher's matrix products.
    """
    table = rows.select_columns(["source_ids", "target_ids"]).with_format("arrow")
    data = hashlib.sha256()
    for table_part in table.iter(SHARD_ROWS):
        for name in ("source_ids", "target_ids"):
            lists = table_part.column(name).combine_chunks()
            data.update(np.diff(lists.offsets.to_numpy()).tobytes())
            data.update(lists.flatten().to_numpy().tobytes())
    return {
        "format": FORMAT_VERSION,
        "teacher": model_fingerprint(teacher),
        "data": data.hexdigest(),
        "rows": len(rows),
        "max_sequence_length": max_tokens,
        "stored_as": "float16",
        "computed_in": precision,
    }


def cache_folder(root: Path, parts: Mapping[str, Any]) -> Path:
    """Where the cache with these dependencies lives."""
    return root / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def cache_bytes(rows: datasets.Dataset, max_tokens: int, width: int) -> int:
    """Disk that a cache of these rows takes."""
    return int(_starts(rows, max_tokens)[-1]) * width * 2


def build_cache(folder: Path, parts: Mapping[str, Any], rows: datasets.Dataset, source: TargetSource, workers: Workers,
                progress: Progress = lambda _done, _total: None) -> "CachedTargets":  # fmt: skip
    """Compute what is missing of a cache, and open it.

    Args:
        folder: from `cache_folder`.
        parts: from `cache_parts`.
        rows: the rows that they name.
        source: the live teacher.
        workers: what it runs in; each works on sentences of its own.
        progress: called with the rows that are done, and all.

    Raises:
        CacheError: the disk is full or cannot be written.
    """
    if (folder / MANIFEST).is_file():
        return CachedTargets(folder, source.head, parts)
    limit = int(parts["max_sequence_length"])
    packed, starts = PackedRows(rows, limit), _starts(rows, limit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_array(folder / STARTS, starts)
        size = _shard_rows(len(rows))
        for number, first in enumerate(range(0, len(rows), size)):
            shard, last = folder / _shard_name(number), min(first + size, len(rows))
            if not shard.is_file():
                _write_array(shard, _states_of(packed, starts, first, last, source, workers, progress))
            progress(last, len(rows))
        manifest = CacheManifest(
            folder.name, int(starts[-1]), len(rows), source.head.shape[1], dict(parts),
            checksums_of(folder, folder.glob("*.npy")),
        )  # fmt: skip
        write_atomically(folder / MANIFEST, json.dumps(asdict(manifest), indent=2))
    except OSError as error:
        raise CacheError(
            tr(
                en=f"the cache of teacher states could not be written: got {folder} ({error.strerror}). What is done is "
                "kept. Free some disk, choose another --output, or go without: --set teacher.targets=live",
                zh=f"无法写入教师状态缓存：{folder}（{error.strerror}）。已完成的部分会保留。"
                "请腾出磁盘空间、换一个 --output，或不使用缓存：--set teacher.targets=live",
            )
        ) from error
    return CachedTargets(folder, source.head, parts)


class CachedTargets:
    """Reads the teacher's states from a cache, mapped into memory; see `mtdistill.teacher.targets.TargetSource`.

    Args:
        folder: of a whole cache.
        head: the teacher's output head, in the type that states are wanted in.
        parts: what the states have to depend on; None takes whatever the cache holds.

    Raises:
        CacheError: no cache there, a damaged one, or one of other things than those wanted.
    """

    def __init__(self, folder: Path, head: Tensor, parts: Mapping[str, Any] | None = None) -> None:
        self.folder, self.manifest, self.head = folder, read_manifest(folder), head
        for name, wanted in (parts or {}).items():
            if self.manifest.parts.get(name) != wanted:
                cached = self.manifest.parts.get(name)
                raise CacheError(
                    tr(
                        en=f"this cache was made for something else: {name} is {cached!r} in {folder}, this run has "
                        f"{wanted!r}. Build another one: mtdistill cache build",
                        zh=f"该缓存不适用于本次训练：{folder} 中的 {name} 为 {cached!r}，而本次为 {wanted!r}。"
                        "请重新生成：mtdistill cache build",
                    )
                )
        rows, tokens, width = self.manifest.rows, self.manifest.tokens, self.manifest.width
        self._starts = _mapped(folder, STARTS, np.int64, (rows + 1,))
        if self._starts[0] != 0 or self._starts[-1] != tokens or np.any(self._starts[:-1] > self._starts[1:]):
            raise damaged(folder, f"{STARTS}: {self._starts[-1]} / {tokens}")
        self._shard_rows = _shard_rows(rows)
        bounds = self._starts[[*range(0, rows, self._shard_rows), rows]]
        self._shards = [
            _mapped(folder, _shard_name(number), np.float16, (int(size), width))
            for number, size in enumerate(np.diff(bounds))
        ]

    def states(self, batch: PackedBatch) -> Tensor:
        """(target tokens, teacher width), in the order of the labels."""
        found = np.empty((len(batch.labels), self.manifest.width), np.float16)
        done, rows = 0, batch.rows.numpy()
        if (there := int((self._starts[rows + 1] - self._starts[rows]).sum())) != len(found):
            raise damaged(self.folder, f"{STARTS}: {there} / {len(found)}")
        for row in rows.tolist():
            shard = row // self._shard_rows
            base = self._starts[shard * self._shard_rows]
            first, last = self._starts[row] - base, self._starts[row + 1] - base
            found[done : done + last - first] = self._shards[shard][first:last]
            done += last - first
        return torch.from_numpy(found).to(self.head.dtype)


def _states_of(packed: PackedRows, starts: npt.NDArray[np.int64], first: int, last: int, source: TargetSource,
               workers: Workers, progress: Progress) -> npt.NDArray[np.float16]:  # fmt: skip
    """States of rows first to last - 1, in order; computed in batches of similar length."""
    base = starts[first]
    found = np.empty((int(starts[last] - base), source.head.shape[1]), np.float16)
    by_length = first + np.argsort(np.diff(starts[first : last + 1]), kind="stable")
    parts = [by_length[begin : begin + _BATCH_ROWS].tolist() for begin in range(0, len(by_length), _BATCH_ROWS)]
    done = first
    for begin in range(0, len(parts), workers.count):
        batches = [packed.batch(rows) for rows in parts[begin : begin + workers.count]]
        results = workers.map(partial(_computed, source, batches), len(batches))
        for batch, states in zip(batches, results, strict=True):
            for row, start, end in zip(
                batch.rows.tolist(), batch.target_starts[:-1], batch.target_starts[1:], strict=True
            ):
                found[starts[row] - base : starts[row + 1] - base] = states[start:end]
            done += len(batch)
        progress(done, len(packed))
    return found


def _computed(source: TargetSource, batches: list[PackedBatch], place: int) -> npt.NDArray[np.float16]:
    states: npt.NDArray[np.float16] = source.states(batches[place]).half().numpy()
    return states


def _starts(rows: datasets.Dataset, max_tokens: int) -> npt.NDArray[np.int64]:
    kept = np.minimum(token_lengths(rows)[:, 1], max_tokens)
    return np.concatenate([[0], kept.cumsum(dtype=np.int64)]).astype(np.int64)


def _shard_rows(rows: int) -> int:
    """In each but the last."""
    return max(SHARD_ROWS, -(-rows // MAX_SHARDS))


def _shard_name(number: int) -> str:
    return f"states-{number:05}.npy"


def _mapped(folder: Path, name: str, kind: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array mapped from disk. Mapped, a size that a header only claims is compared with the file's."""
    try:
        values = open_memmap(folder / name, mode="r")
    except (ArithmeticError, EOFError, MemoryError, OSError, SyntaxError, TokenError, TypeError, ValueError) as error:
        # A header is a Python literal, and numpy passes on whatever reading a damaged one raises.
        raise damaged(folder, f"{name}: {error}") from error
    if values.dtype != kind or values.shape != shape:
        raise damaged(folder, f"{name}: {values.dtype} {values.shape}")
    return values


def _write_array(path: Path, values: npt.NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    write_atomically(path, stream.getvalue())
