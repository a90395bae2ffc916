"""Which sentences go into one batch, and the tensors that come out.

A batch is packed: the tokens of its sentences stand one after the other, and only the boundaries say where one ends,
because on a CPU padding costs as much as text. Where a batch has to be padded, sentences of similar length are batched
together, so that little is wasted; else sentences are drawn as they come, which students learn more from. The order depends
on the seed and the epoch only, so a resumed run sees what it would have seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

IGNORED_LABEL = -100
# Batches are sorted by length within windows of this many: enough to waste under 5 % on padding, few enough that the
# composition of a batch still changes with every epoch.
WINDOW_BATCHES = 50


@dataclass(frozen=True)
class PackedBatch:
    """Sentence pairs as two lists of tokens and the boundaries of the sentences in them.

    Attributes:
        source_ids: (source tokens,) int64.
        source_starts: (sentences + 1,) int64, first token of each sentence and the end of the last.
        labels: (target tokens,) int64, what is to be predicted; the decoder reads them one position later.
        target_starts: (sentences + 1,) int64.
        rows: (sentences,) int64, the place of each pair in the data set.
    """

    source_ids: Tensor
    source_starts: Tensor
    labels: Tensor
    target_starts: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, first: int, last: int) -> "PackedBatch":
        """Sentences first to last - 1, sharing the memory."""
        sources, targets = self.source_starts[first : last + 1], self.target_starts[first : last + 1]
        return PackedBatch(
            self.source_ids[sources[0] : sources[-1]],
            sources - sources[0],
            self.labels[targets[0] : targets[-1]],
            targets - targets[0],
            self.rows[first:last],
        )

    def decoder_input_ids(self, start_id: int) -> Tensor:
        """(target tokens,): the labels one position later, each sentence begun by the start token."""
        shifted = self.labels.roll(1)
        shifted[self.target_starts[:-1]] = start_id
        return shifted

    def padded(self, pad_id: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Input ids and attention mask, (sentences, longest source), and labels, padded with -100."""
        sources = self.source_ids.split(self.source_starts.diff().tolist())
        targets = self.labels.split(self.target_starts.diff().tolist())
        return (
            pad_sequence(sources, batch_first=True, padding_value=pad_id),
            pad_sequence([torch.ones_like(source) for source in sources], batch_first=True),
            pad_sequence(targets, batch_first=True, padding_value=IGNORED_LABEL),
        )


class PackedRows(torch.utils.data.Dataset[PackedBatch]):
    """Tokenised pairs, read from disk as they are asked for.

    Sequences beyond `max_tokens` are cut: a source keeps its final end token, a target loses it, so that the student
    is not taught to stop in the middle of a sentence.

    Args:
        dataset: rows as `mtdistill.data.prepared` writes them.
        max_tokens: longest source and longest target, > 1.
    """

    def __init__(self, dataset: Dataset, max_tokens: int) -> None:
        self._table = dataset.select_columns(["source_ids", "target_ids"]).with_format("arrow")
        self.max_tokens = max_tokens

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> PackedBatch:
        return self.batch([row])

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        """What a DataLoader asks for, in the form that a Trainer moves between devices: a PackedBatch as a dict."""
        return dict(vars(self.batch(rows)))

    def batch(self, rows: list[int]) -> PackedBatch:
        """These rows, in this order."""
        table = self._table[rows]
        source_ids, source_starts = _cut(table.column("source_ids"), self.max_tokens, keep_end=True)
        target_ids, target_starts = _cut(table.column("target_ids"), self.max_tokens, keep_end=False)
        return PackedBatch(source_ids, source_starts, target_ids, target_starts, torch.tensor(rows))


class Batches(Sampler[list[int]]):
    """Indices of every batch of an epoch; what is left over is a smaller batch at the end.

    Every sentence comes exactly once in an epoch, or, where an epoch has fewer, once before any comes again.

    Args:
        sentences: how many there are.
        batch_size: sentences of a batch.
        seed: of the order; the same seed and epoch give the same batches.
        per_epoch: sentences of an epoch; None: all.
    """

    def __init__(self, sentences: int, batch_size: int, seed: int, per_epoch: int | None = None) -> None:
        self.sentences, self.batch_size, self.seed, self.epoch = sentences, batch_size, seed, 0
        self.per_epoch = per_epoch or sentences

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.per_epoch // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        yield from (order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size))

    def _order(self) -> npt.NDArray[np.int64]:
        """The sentences of this epoch: the next ones of passes over all of them, each in an order of its own."""
        whole, read = divmod(self.epoch * self.per_epoch, max(1, self.sentences))
        passes = range(whole, whole + 1 + (read + self.per_epoch) // max(1, self.sentences))
        orders = [np.random.default_rng((self.seed, number)).permutation(self.sentences) for number in passes]
        return np.concatenate(orders)[read : read + self.per_epoch]


class LengthBucketBatches(Batches):
    """Batches of sentences of similar length, for where they are padded.

    Args:
        lengths: (sentences, 2) source and target tokens.
        batch_size: as for `Batches`, as are the others.
        seed: of the order.
        per_epoch: sentences of an epoch.
    """

    def __init__(
        self, lengths: npt.NDArray[np.int32], batch_size: int, seed: int, per_epoch: int | None = None
    ) -> None:
        super().__init__(len(lengths), batch_size, seed, per_epoch)
        self.lengths = lengths

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        window = self.batch_size * WINDOW_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            chunk = order[start : start + window]
            # Target length first: the decoder and the output layer cost more than the encoder.
            by_length = chunk[np.lexsort((self.lengths[chunk, 0], self.lengths[chunk, 1]))]
            batches += [by_length[i : i + self.batch_size].tolist() for i in range(0, len(by_length), self.batch_size)]
        whole = len(order) // self.batch_size
        shuffled = np.random.default_rng((self.seed, self.epoch, whole)).permutation(whole)
        yield from (batches[index] for index in shuffled)
        # Last, because accelerate takes a smaller batch for the end when it deals batches out to several processes.
        yield from batches[whole:]


def token_lengths(dataset: Dataset) -> npt.NDArray[np.int32]:
    """(sentences, 2) source and target tokens, stored when the data was prepared."""
    columns = dataset.select_columns(["source_tokens", "target_tokens"]).with_format("numpy")[:]
    return np.stack([columns["source_tokens"], columns["target_tokens"]], axis=1).astype(np.int32)


def truncated_ratio(dataset: Dataset, max_tokens: int) -> float:
    """Share in [0, 1] of the pairs that a limit of this many tokens cuts on either side."""
    return float((token_lengths(dataset).max(axis=1) > max_tokens).mean()) if len(dataset) else 0.0


def _cut(column: Any, limit: int, *, keep_end: bool) -> tuple[Tensor, Tensor]:
    """Tokens and boundaries of an Arrow column of lists, no list longer than the limit."""
    lists = column.combine_chunks()
    tokens, lengths = lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy())
    kept = np.minimum(lengths, limit)
    starts, ends = np.concatenate([[0], kept.cumsum()]), lengths.cumsum()
    if len(tokens) > starts[-1]:
        shift = np.repeat(ends - lengths - starts[:-1], kept)
        shortened = tokens[np.arange(starts[-1]) + shift]
        if keep_end:
            longer = lengths > limit
            shortened[starts[1:][longer] - 1] = tokens[ends[longer] - 1]
        tokens = shortened
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(starts.astype(np.int64))
