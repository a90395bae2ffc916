"""Health checks on tokenised pairs before training: whether they fit each other, the teacher and the student.

The teacher is the judge: it finds a true pair far likelier than a source with another sentence's target, than the pair
turned around, and than labels moved by a token. Some seconds of work spare hours. Imported by distillation; imports
data and health.finding.
"""

import hashlib
import math
from collections.abc import Callable

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch, PackedRows, truncated_ratio
from mtdistill.health.finding import Figures

JUDGED_PAIRS = 256
# True pairs of our corpus cost the teacher 1.5 to 1.8 nats a token, exchanged ones 5.0 to 5.2, swapped ones 12, and labels
# compared one token off 8 to 9 (256 pairs, three draws).
MAX_EXCHANGED_SHARE = 0.8
MIN_DISTINCT = 0.5
HOPELESS_DISTINCT = 0.02
FEW_ROWS = 20  # so few may well be alike
MAX_PADDED = 0.01
MAX_TRUNCATED = 0.25
LOSS_TOLERANCE = 0.02

Scores = dict[str, float]
LogProbs = Callable[[PackedBatch], Tensor]
"""(target tokens, vocabulary): what the teacher thinks of every next token of a batch."""


@torch.no_grad()
def judge_pairs(log_probs_of: LogProbs, rows: datasets.Dataset, max_tokens: int, seed: int = 1) -> Scores:
    """Nats per token that the teacher needs for some of the pairs, as they are and tampered with.

    Args:
        log_probs_of: the teacher.
        rows: what is trained on.
        max_tokens: where sentences are cut.
        seed: of the choice of pairs.

    Returns:
        `given`: as they are; `exchanged`: every source with the target of another one of about its length;
        `swapped`: source and target exchanged; `earlier` and `later`: labels compared with the prediction one token
        before and after their own.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:JUDGED_PAIRS])
    batch = PackedRows(rows, max_tokens).batch(chosen.tolist())
    log_probs = log_probs_of(batch)
    inner = torch.ones(len(batch.labels), dtype=torch.bool)
    inner[batch.target_starts[:-1]] = False  # only labels with a neighbour on both sides
    inner[batch.target_starts[1:] - 1] = False
    at = inner.nonzero().flatten()

    def nats(offset: int) -> float:
        return -log_probs[at + offset, batch.labels[at]].mean().item() if len(at) else 0.0

    return {
        "given": -log_probs[torch.arange(len(batch.labels)), batch.labels].mean().item(),
        "exchanged": _nats(log_probs_of, _exchanged(batch)),
        "swapped": _nats(log_probs_of, _swapped(batch)),
        "aligned": nats(0),
        "earlier": nats(-1),
        "later": nats(1),
    }


def shuffled_pairs(scores: Scores) -> Figures | None:
    """Given targets are hardly likelier than those of other sentences."""
    given, exchanged = scores["given"], scores["exchanged"]
    limit = MAX_EXCHANGED_SHARE * exchanged
    return {"given": given, "exchanged": exchanged, "limit": limit} if given > limit else None


def swapped_languages(scores: Scores) -> Figures | None:
    """The pairs are likelier the other way round."""
    given, swapped = scores["given"], scores["swapped"]
    return {"given": given, "swapped": swapped} if swapped < MAX_EXCHANGED_SHARE * given else None


def misaligned_labels(scores: Scores) -> Figures | None:
    """The teacher predicts the labels better from a neighbouring place."""
    offset, shifted = min(((-1, scores["earlier"]), (1, scores["later"])), key=lambda pair: pair[1])
    found = shifted < MAX_EXCHANGED_SHARE * scores["aligned"]
    return {"given": scores["aligned"], "shifted": shifted, "offset": offset} if found else None


def padding_in_data(rows: datasets.Dataset, pad_id: int) -> Figures | None:
    """Sentences that hold padding, or no token at all."""
    padded = np.zeros(len(rows), dtype=bool)
    first = 0
    for part in rows.select_columns(["source_ids", "target_ids"]).with_format("arrow").iter(8192):
        for name in ("source_ids", "target_ids"):
            lists = part.column(name).combine_chunks()
            lengths = np.diff(lists.offsets.to_numpy())
            owners = np.repeat(np.arange(len(lengths)), lengths)
            here = padded[first : first + len(lengths)]
            here[owners[lists.flatten().to_numpy() == pad_id]] = True
            here[lengths == 0] = True
        first += len(part)
    share = float(padded.mean())
    return {"rows": share, "limit": MAX_PADDED} if share > MAX_PADDED else None


def duplicate_data(rows: datasets.Dataset) -> Figures | None:
    """The same few pairs again and again."""
    if len(rows) < FEW_ROWS:
        return None
    seen = {
        hashlib.blake2b(np.asarray([*source, -1, *target], np.int64).tobytes(), digest_size=8).digest()
        for part in rows.select_columns(["source_ids", "target_ids"]).iter(8192)
        for source, target in zip(part["source_ids"], part["target_ids"], strict=True)
    }
    distinct = len(seen) / len(rows)
    return {"distinct": distinct, "limit": MIN_DISTINCT} if distinct < MIN_DISTINCT else None


def many_truncated(rows: datasets.Dataset, max_tokens: int) -> Figures | None:
    """A quarter of the pairs and more are cut."""
    share = truncated_ratio(rows, max_tokens)
    return {"truncated": share, "tokens": max_tokens, "limit": MAX_TRUNCATED} if share > MAX_TRUNCATED else None


def padding_in_loss(loss_of: Callable[[PackedBatch], float], batch: PackedBatch) -> Figures | None:
    """The loss of a batch is not that of its sentences.

    Args:
        loss_of: summed loss, without dropout.
        batch: of sentences of different length.
    """
    together = loss_of(batch)
    alone = sum(loss_of(batch.part(row, row + 1)) for row in range(len(batch)))
    if not math.isfinite(together + alone):
        return None  # seen, and named, in training
    differs = abs(together - alone) > LOSS_TOLERANCE * abs(alone)
    return {"together": together, "alone": alone, "limit": LOSS_TOLERANCE} if differs else None


def special_tokens_differ(student: T5ForConditionalGeneration, teacher: T5ForConditionalGeneration) -> Figures | None:
    """Teacher and student do not speak of the same tokens."""
    names = ("vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id")
    different = [getattr(student.config, name) != getattr(teacher.config, name) for name in names]
    return {name: float(differs) for name, differs in zip(names, different, strict=True)} if any(different) else None


def _nats(log_probs_of: LogProbs, batch: PackedBatch) -> float:
    return -log_probs_of(batch)[torch.arange(len(batch.labels)), batch.labels].mean().item()


def _exchanged(batch: PackedBatch) -> PackedBatch:
    """Every target moves to the source of the next one in order of target length."""
    targets = batch.labels.split(batch.target_starts.diff().tolist())
    order = batch.target_starts.diff().argsort(stable=True)
    moved = [targets[0]] * len(targets)
    for here, there in zip(order.tolist(), order.roll(1).tolist(), strict=True):
        moved[there] = targets[here]
    lengths = torch.tensor([0, *map(len, moved)])
    return PackedBatch(batch.source_ids, batch.source_starts, torch.cat(moved), lengths.cumsum(0), batch.rows)


def _swapped(batch: PackedBatch) -> PackedBatch:
    return PackedBatch(batch.labels, batch.target_starts, batch.source_ids, batch.source_starts, batch.rows)
