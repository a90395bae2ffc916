"""Greedy and beam search, for engines that only say what follows a token.

Imported by decoding.onnx.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


class Decoding(Protocol):
    """A batch of unfinished outputs, one in each row; the rows are those of the last call of `keep`."""

    def step(self, last_ids: Ids) -> Floats:
        """Append one token to every row; (rows, vocabulary) logits of the one after it."""

    def keep(self, rows: Ids) -> None:
        """Go on with these rows in this order; a row may be there more than once, or not at all."""


def search(decoding: Decoding, sentences: int, *, start_id: int, end_id: int, beam_size: int,
           max_new_tokens: int, no_repeat_ngram_size: int = 0) -> list[list[int]]:  # fmt: skip
    """The output of each sentence, with the end mark where there is one.

    Args:
        decoding: begins with one row for each sentence.
        sentences: how many.
        start_id: what every output begins with; not part of the result.
        end_id: the end mark.
        beam_size: hypotheses kept; 1 is greedy.
        max_new_tokens: cap of an output, end mark included, > 0.
        no_repeat_ngram_size: so many tokens in a row come only once in an output; 0: any may come again.
    """
    if beam_size == 1:
        return _greedy(decoding, sentences, start_id, end_id, max_new_tokens, no_repeat_ngram_size)
    return _beam(decoding, sentences, start_id, end_id, max_new_tokens, no_repeat_ngram_size, beam_size)


def _greedy(
    decoding: Decoding, sentences: int, start_id: int, end_id: int, max_new_tokens: int, no_repeat_ngram_size: int
) -> list[list[int]]:
    outputs: list[list[int]] = [[] for _ in range(sentences)]
    going, last_ids = np.arange(sentences), np.full(sentences, start_id)
    for _ in range(max_new_tokens):
        logits = _without_repetitions(
            decoding.step(last_ids), [outputs[sentence] for sentence in going], no_repeat_ngram_size
        )
        last_ids = logits.argmax(axis=1)
        for sentence, token in zip(going, last_ids, strict=True):
            outputs[sentence].append(int(token))
        [rows] = np.nonzero(last_ids != end_id)
        if len(rows) == 0:
            break
        if len(rows) < len(going):  # what is finished costs no time any more
            decoding.keep(rows)
            going, last_ids = going[rows], last_ids[rows]
    return outputs


def _beam(
    decoding: Decoding,
    sentences: int,
    start_id: int,
    end_id: int,
    max_new_tokens: int,
    no_repeat_ngram_size: int,
    beam_size: int,
) -> list[list[int]]:
    """The search of CTranslate2, and of transformers with ``early_stopping``: log-probability per token decides.

    A sentence is finished once `beam_size` of its hypotheses have ended, each among the best `beam_size` of its step.
    """
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(sentences)]
    going = list(range(sentences))
    beams: list[list[list[int]]] = [[[]] for _ in going]  # one at first: more would all be the same
    scores, last_ids = np.zeros((sentences, 1), dtype=np.float32), np.full(sentences, start_id)
    for length in range(1, max_new_tokens + 1):
        # Twice as many as go on: up to half of them may be ends.
        so_far = [ids for hypotheses in beams for ids in hypotheses]
        logits = _without_repetitions(decoding.step(last_ids), so_far, no_repeat_ngram_size)
        values, parents, tokens = _best(logits, scores, 2 * beam_size)
        next_going, next_beams, next_scores, rows = [], [], [], []
        for place, sentence in enumerate(going):
            hypotheses: list[list[int]] = []
            kept: list[int] = []
            for rank, (value, parent, token) in enumerate(
                zip(values[place], parents[place], tokens[place], strict=True)
            ):
                ids = [*beams[place][parent], int(token)]
                if rank < beam_size and (token == end_id or length == max_new_tokens):
                    ended[sentence].append((float(value) / length, ids))
                elif token != end_id and len(kept) < beam_size:
                    hypotheses.append(ids)
                    kept.append(rank)
            if len(ended[sentence]) < beam_size:
                next_going.append(sentence)
                next_beams.append(hypotheses)
                next_scores.append(values[place, kept])
                rows.append(place * scores.shape[1] + parents[place, kept])
        if not next_going:
            break
        going, beams, scores = next_going, next_beams, np.stack(next_scores)
        decoding.keep(np.concatenate(rows))
        last_ids = np.array([ids[-1] for hypotheses in beams for ids in hypotheses])
    return [max(hypotheses, key=lambda scored: scored[0])[1] for hypotheses in ended]


def _without_repetitions(logits: Floats, outputs: Sequence[list[int]], no_repeat_ngram_size: int) -> Floats:
    """The logits with minus infinity for every token that would end an n-gram which the output has already.

    Args:
        logits: (rows, vocabulary), changed where they are writable.
        outputs: what each row has written so far.
        no_repeat_ngram_size: 0 leaves everything as it is.
    """
    if no_repeat_ngram_size == 0:
        return logits
    allowed = logits if logits.flags.writeable else logits.copy()
    for row, ids in enumerate(outputs):
        last = ids[len(ids) - no_repeat_ngram_size + 1 :]
        ends = range(no_repeat_ngram_size - 1, len(ids))
        allowed[row, [ids[end] for end in ends if ids[end - no_repeat_ngram_size + 1 : end] == last]] = -np.inf
    return allowed


def _best(logits: Floats, scores: Floats, count: int) -> tuple[Floats, Ids, Ids]:
    """The best continuations of every sentence, best first.

    Args:
        logits: (sentences * beams, vocabulary).
        scores: (sentences, beams) log-probabilities of the beams.
        count: continuations of each sentence.

    Returns:
        Three times (sentences, count): log-probability, beam that goes on, token it goes on with.
    """
    vocabulary = logits.shape[1]
    highest = logits.max(axis=1, keepdims=True)
    normalisers = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    totals = (logits + (scores.reshape(-1, 1) - normalisers)).reshape(len(scores), -1)
    sentences, count = np.arange(len(totals)), min(count, totals.shape[1])
    values, places = np.empty((len(totals), count), dtype=np.float32), np.empty((len(totals), count), dtype=np.int64)
    # For so few of so many ten times faster than a partition; and of equals the first comes first, whatever the batch.
    for rank in range(count):
        places[:, rank] = totals.argmax(axis=1)
        values[:, rank] = totals[sentences, places[:, rank]]
        totals[sentences, places[:, rank]] = -np.inf
    return values, places // vocabulary, places % vocabulary
