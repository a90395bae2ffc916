"""Which sentences go into one batch, and the tensors that come out.

Sentences of similar length are batched together, because on a CPU the padding of a mixed batch costs as much as the
text. The order depends on the seed and the epoch only, so a resumed run sees what it would have seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler

IGNORED_LABEL = -100
# Batches are sorted by length within windows of this many: enough to waste under 5 % on padding, few enough that the
# composition of a batch still changes with every epoch.
WINDOW_BATCHES = 50


class LengthBucketBatches(Sampler[list[int]]):
    """Indices of every batch of an epoch; every sentence exactly once, what is left over as a smaller batch at the end.

    Args:
        lengths: (sentences, 2) source and target tokens.
        batch_size: sentences in a batch.
        seed: of the order; the same seed and epoch give the same batches.
    """

    def __init__(self, lengths: npt.NDArray[np.int32], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        window = self.batch_size * WINDOW_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            chunk = order[start : start + window]
            # Target length first: the decoder and the output layer cost more than the encoder.
            by_length = chunk[np.lexsort((self.lengths[chunk, 0], self.lengths[chunk, 1]))]
            batches += [by_length[i : i + self.batch_size].tolist() for i in range(0, len(by_length), self.batch_size)]
        whole = len(order) // self.batch_size
        yield from (batches[index] for index in random.permutation(whole))
        # Last, because accelerate takes a smaller batch for the end when it deals batches out to several processes.
        yield from batches[whole:]


@dataclass(frozen=True)
class Collator:
    """Rows with `source_ids` and `target_ids` to padded tensors.

    Sequences beyond `max_tokens` are cut: a source keeps its final end token, a target loses it, so that the student
    is not taught to stop in the middle of a sentence.
    """

    max_tokens: int
    pad_id: int = 0

    def __call__(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (batch, source_len) and `labels` (batch, target_len), padded with -100."""
        sources = [_cut_source(row["source_ids"], self.max_tokens) for row in rows]
        input_ids = _padded(sources, self.pad_id)
        return {
            "input_ids": input_ids,
            "attention_mask": _padded([[1] * len(ids) for ids in sources], 0),
            "labels": _padded([row["target_ids"][: self.max_tokens] for row in rows], IGNORED_LABEL),
        }


def token_lengths(dataset: Dataset) -> npt.NDArray[np.int32]:
    """(sentences, 2) source and target tokens, stored when the data was prepared."""
    columns = dataset.select_columns(["source_tokens", "target_tokens"]).with_format("numpy")[:]
    return np.stack([columns["source_tokens"], columns["target_tokens"]], axis=1).astype(np.int32)


def truncated_ratio(dataset: Dataset, max_tokens: int) -> float:
    """Share in [0, 1] of the pairs that a limit of this many tokens cuts on either side."""
    return float((token_lengths(dataset).max(axis=1) > max_tokens).mean()) if len(dataset) else 0.0


def _cut_source(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
