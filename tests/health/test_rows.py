"""Checks on tokenised pairs; the teacher is a table that says which target belongs to which source."""

import math
from collections.abc import Callable

import datasets
import pytest
import torch
from torch import Tensor

from mtdistill.data.batches import PackedBatch
from mtdistill.health import rows as pairs

VOCABULARY = 40
END, PAD = 1, 0


def make_rows(sources: list[list[int]], targets: list[list[int]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "source_ids": sources,
            "target_ids": targets,
            "source_tokens": [len(ids) for ids in sources],
            "target_tokens": [len(ids) for ids in targets],
        }
    )


@pytest.fixture
def true_rows() -> datasets.Dataset:
    """Sixty pairs of three to six tokens; the translation of a source token is the token after it."""
    draw = torch.Generator().manual_seed(1)
    sources = [torch.randint(4, VOCABULARY - 1, (3 + number % 4,), generator=draw).tolist() for number in range(60)]
    return make_rows([[*ids, END] for ids in sources], [[*(token + 1 for token in ids), END] for ids in sources])


def knowing(shift: int = 0) -> Callable[[PackedBatch], Tensor]:
    """A teacher that gives the right token 90 %; `shift` moves its predictions along the target."""

    def log_probs(batch: PackedBatch) -> Tensor:
        found = torch.full((len(batch.labels), VOCABULARY), 0.1 / VOCABULARY)
        sources = batch.source_ids.split(batch.source_starts.diff().tolist())
        for source, start, end in zip(sources, batch.target_starts[:-1], batch.target_starts[1:], strict=True):
            for place in range(int(start), int(end)):
                at = place - int(start) - shift
                right = END if at >= len(source) - 1 else (int(source[max(at, 0)]) + 1) % VOCABULARY
                found[place, right] += 0.9
        return found.log()

    return log_probs


def test_true_pairs_are_silent(true_rows: datasets.Dataset) -> None:
    scores = pairs.judge_pairs(knowing(), true_rows, max_tokens=32)
    assert scores["given"] == pytest.approx(-math.log(0.9), rel=0.1)
    assert pairs.shuffled_pairs(scores) is None
    assert pairs.swapped_languages(scores) is None
    assert pairs.misaligned_labels(scores) is None
    assert pairs.padding_in_data(true_rows, PAD) is None
    assert pairs.duplicate_data(true_rows) is None
    assert pairs.many_truncated(true_rows, max_tokens=32) is None


def test_shuffled_targets_are_no_likelier_than_those_of_others(true_rows: datasets.Dataset) -> None:
    targets = true_rows["target_ids"]
    shuffled = make_rows(list(true_rows["source_ids"]), [*targets[20:], *targets[:20]])
    assert pairs.shuffled_pairs(pairs.judge_pairs(knowing(), shuffled, max_tokens=32))


def test_swapped_languages_are_likelier_the_other_way_round(true_rows: datasets.Dataset) -> None:
    swapped = make_rows(list(true_rows["target_ids"]), list(true_rows["source_ids"]))
    scores = pairs.judge_pairs(knowing(), swapped, max_tokens=32)
    assert pairs.swapped_languages(scores)


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_that_are_moved_by_a_token_are_seen_with_the_direction(true_rows: datasets.Dataset, shift: int) -> None:
    found = pairs.misaligned_labels(pairs.judge_pairs(knowing(shift), true_rows, max_tokens=32))
    assert found is not None
    assert found["offset"] == shift
    assert found["shifted"] < found["given"]


def test_exchanged_targets_are_all_somewhere_else(true_rows: datasets.Dataset) -> None:
    seen: list[PackedBatch] = []

    def remember(batch: PackedBatch) -> Tensor:
        seen.append(batch)
        return knowing()(batch)

    pairs.judge_pairs(remember, true_rows, max_tokens=32)
    given, exchanged, swapped = seen
    own = [tuple(part.tolist()) for part in given.labels.split(given.target_starts.diff().tolist())]
    other = [tuple(part.tolist()) for part in exchanged.labels.split(exchanged.target_starts.diff().tolist())]
    assert sorted(own) == sorted(other)
    assert not any(a == b for a, b in zip(own, other, strict=True))
    assert torch.equal(swapped.source_ids, given.labels)


def test_padding_and_empty_sentences_are_counted(true_rows: datasets.Dataset) -> None:
    targets = list(true_rows["target_ids"])
    targets[3], targets[40] = [PAD, PAD, PAD], []
    found = pairs.padding_in_data(make_rows(list(true_rows["source_ids"]), targets), PAD)
    assert found == {"rows": pytest.approx(2 / 60), "limit": 0.01}


def test_the_same_pairs_again_and_again(true_rows: datasets.Dataset) -> None:
    found = pairs.duplicate_data(true_rows.select([number % 3 for number in range(60)]))
    assert found == {"distinct": pytest.approx(3 / 60), "limit": 0.5}
    assert pairs.duplicate_data(true_rows.select([0] * 5)) is None  # too few to say


def test_many_cut_sentences(true_rows: datasets.Dataset) -> None:
    found = pairs.many_truncated(true_rows, max_tokens=5)
    assert found is not None
    assert found["truncated"] == pytest.approx(0.5)


@pytest.fixture
def batch(true_rows: datasets.Dataset) -> PackedBatch:
    from mtdistill.data.batches import PackedRows

    return PackedRows(true_rows, 32).batch([0, 1, 2, 3])


def test_a_loss_that_counts_padding_differs_from_that_of_single_sentences(batch: PackedBatch) -> None:
    def padded(batch: PackedBatch) -> float:
        longest = int(batch.target_starts.diff().max())
        return float(longest * len(batch))

    assert pairs.padding_in_loss(lambda batch: float(len(batch.labels)), batch) is None
    assert pairs.padding_in_loss(padded, batch) == {"together": 28.0, "alone": 22.0, "limit": 0.02}
    assert pairs.padding_in_loss(lambda batch: math.nan, batch) is None


def test_special_tokens_have_to_be_the_same() -> None:
    class Model:
        def __init__(self, **config: int) -> None:
            values = {"vocab_size": 9, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, **config}
            self.config = type("Config", (), values)()

    assert pairs.special_tokens_differ(Model(), Model()) is None
    found = pairs.special_tokens_differ(Model(eos_token_id=2), Model())
    assert found is not None
    assert [name for name, differs in found.items() if differs] == ["eos_token_id"]
