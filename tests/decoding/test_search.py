import itertools

import numpy as np
import pytest

from mtdistill.decoding.search import Floats, Ids, search

START, END, WORDS = 0, 1, 5  # pieces 0 to 4


class Chain:
    """What follows depends on the two last tokens and on the sentence; remembers how many rows each step had."""

    def __init__(self, logits: Floats) -> None:
        self.logits = logits  # (sentences, token before the last, last token, next token)
        self.sentences = np.arange(len(logits))
        self.last_ids = np.full(len(logits), START)
        self.rows: list[int] = []

    def step(self, last_ids: Ids) -> Floats:
        before, self.last_ids = self.last_ids, last_ids
        self.rows.append(len(last_ids))
        return self.logits[self.sentences, before, last_ids]

    def keep(self, rows: Ids) -> None:
        self.sentences, self.last_ids = self.sentences[rows], self.last_ids[rows]


def random_logits(seed: int, sentences: int) -> Floats:
    shape = (sentences, WORDS, WORDS, WORDS)
    logits = np.random.default_rng(seed).normal(scale=1.5, size=shape).astype(np.float32)
    logits[..., START] = -30.0
    return logits


def same_everywhere(*probabilities: float) -> Floats:
    return np.log(np.tile(np.array(probabilities, dtype=np.float32), (1, WORDS, WORDS, 1)))


def found(logits: Floats, beam_size: int, max_new_tokens: int, ngram: int = 0) -> list[list[int]]:
    return search(Chain(logits), len(logits), start_id=START, end_id=END, beam_size=beam_size,
                  max_new_tokens=max_new_tokens, no_repeat_ngram_size=ngram)  # fmt: skip


def outputs_of_up_to(length: int) -> list[tuple[int, ...]]:
    words = [token for token in range(WORDS) if token != END]
    return [
        (*inner, last)
        for count in range(length)
        for inner in itertools.product(words, repeat=count)
        for last in ([END] if count < length - 1 else range(WORDS))
    ]


def per_token(logits: Floats, ids: tuple[int, ...]) -> float:
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    path = [START, START, *ids]
    return float(sum(logs[three] for three in zip(path, path[1:], path[2:], strict=False))) / len(ids)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_likeliest_token_until_the_end_or_the_cap(seed: int) -> None:
    logits = random_logits(seed, 6)
    for sentence, output in zip(logits, found(logits, 1, 7), strict=True):
        before, last = START, START
        for token in output:
            assert token == sentence[before, last].argmax()
            before, last = last, token
        assert END not in output[:-1]
        assert output[-1] == END or len(output) == 7


@pytest.mark.parametrize("seed", range(10))
def test_a_beam_that_holds_everything_finds_the_best_of_all(seed: int) -> None:
    logits = random_logits(seed, 4)
    every = outputs_of_up_to(3)
    for sentence, output in zip(logits, found(logits, len(every), 3), strict=True):
        assert output == list(max(every, key=lambda ids: per_token(sentence, ids)))


def test_a_sentence_stops_when_as_many_hypotheses_have_ended_as_the_beam_holds() -> None:
    # The likeliest of the first step is an end, and so is the likeliest of the second: no third step is made.
    logits = same_everywhere(1e-9, 0.5, 0.4, 0.1, 1e-9)
    chain = Chain(logits)
    assert search(chain, 1, start_id=START, end_id=END, beam_size=2, max_new_tokens=50) == [[END]]
    assert chain.rows == [1, 2]


def test_an_end_that_is_not_among_the_best_of_its_step_does_not_count() -> None:
    logits = same_everywhere(0.2, 0.2, 0.2, 0.2, 0.2)
    # At the start two tokens are likelier than the end, which would beat all that comes later.
    logits[0, START, START] = np.log([1e-9, 0.3, 0.36, 0.34, 1e-9])
    assert found(logits, 2, 10) == [[2, END]]


@pytest.mark.parametrize("beam_size", [1, 2, 3])
def test_finished_sentences_leave_the_batch_and_change_nothing(beam_size: int) -> None:
    logits = random_logits(3, 12)
    chain = Chain(logits)
    together = search(chain, 12, start_id=START, end_id=END, beam_size=beam_size, max_new_tokens=20)
    assert chain.rows[-1] < chain.rows[1]
    assert [found(logits[[index]], beam_size, 20)[0] for index in range(12)] == together


def repeats(ids: list[int], ngram: int) -> bool:
    runs = [tuple(ids[start : start + ngram]) for start in range(len(ids) - ngram + 1)]
    return len({*runs}) < len(runs)


@pytest.mark.parametrize("ngram", [1, 2, 3])
def test_greedy_takes_the_likeliest_token_that_repeats_nothing(ngram: int) -> None:
    logits = random_logits(4, 12)
    logits[..., END] -= 1.0
    for sentence, output in zip(logits, found(logits, 1, 9, ngram), strict=True):
        before, last = START, START
        for place, token in enumerate(output):
            allowed = [t for t in range(WORDS) if not repeats([*output[:place], t], ngram)]
            assert token == max(allowed, key=lambda t: sentence[before, last, t])
            before, last = last, token
    assert any(repeats(output, ngram) for output in found(logits, 1, 9))


@pytest.mark.parametrize("ngram", [1, 2])
def test_a_beam_repeats_nothing_and_still_finds_the_best(ngram: int) -> None:
    """What is left is as likely as before among itself, so the best of all that repeats nothing is found."""
    logits = random_logits(5, 4)
    logits[..., END] += 1.0
    every = outputs_of_up_to(3)

    def score(sentence: Floats, ids: tuple[int, ...]) -> float:
        total, path = 0.0, [START, START]
        for place, token in enumerate(ids):
            row = sentence[path[-2], path[-1]].astype(np.float64)
            allowed = [t for t in range(WORDS) if not repeats([*ids[:place], t], ngram)]
            if token not in allowed:
                return -np.inf
            total += row[token] - np.log(np.exp(row[allowed]).sum())
            path.append(token)
        return total / len(ids)

    for sentence, output in zip(logits, found(logits, len(every), 3, ngram), strict=True):
        assert output == list(max(every, key=lambda ids: score(sentence, ids)))
