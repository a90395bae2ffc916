"""Every sentence once, in an order that can be repeated, with little padding."""

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.data.batches import (
    IGNORED_LABEL,
    WINDOW_BATCHES,
    Collator,
    LengthBucketBatches,
    token_lengths,
    truncated_ratio,
)


def lengths_of(sentences: int, seed: int = 0) -> np.ndarray:
    """Source and target lengths that go together, as in real text."""
    random = np.random.default_rng(seed)
    targets = 2 + random.gamma(4.0, 2.2, sentences)
    sources = np.maximum(2, targets * random.normal(0.9, 0.12, sentences))
    return np.stack([sources, targets], axis=1).astype(np.int32)


class TestLengthBucketBatches:
    @given(st.integers(0, 400), st.integers(1, 33), st.integers(0, 3), st.integers(0, 3))
    @settings(deadline=None, max_examples=60)
    def test_every_sentence_exactly_once(self, sentences: int, batch_size: int, seed: int, epoch: int) -> None:
        sampler = LengthBucketBatches(lengths_of(sentences), batch_size, seed)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(index for batch in batches for index in batch) == list(range(sentences))
        assert len(batches) == len(sampler)
        # All are full but what is left over, which comes last.
        assert all(len(batch) == batch_size for batch in batches[:-1])

    def test_the_same_seed_and_epoch_give_the_same_order(self) -> None:
        def order(seed: int, epoch: int) -> list[list[int]]:
            sampler = LengthBucketBatches(lengths_of(1000), 16, seed)
            sampler.set_epoch(epoch)
            return list(sampler)

        assert order(1, 2) == order(1, 2)
        assert order(1, 2) != order(1, 3)
        assert order(1, 2) != order(2, 2)
        # Not only the order of the batches changes, also who is together with whom.
        assert {frozenset(batch) for batch in order(1, 2)} != {frozenset(batch) for batch in order(1, 3)}

    def test_an_epoch_can_be_read_twice(self) -> None:
        sampler = LengthBucketBatches(lengths_of(100), 8, 1)
        assert list(sampler) == list(sampler)

    def test_under_five_percent_is_padding(self) -> None:
        batch_size, lengths = 32, lengths_of(32 * WINDOW_BATCHES * 2)
        batches = list(LengthBucketBatches(lengths, batch_size, 1))
        targets = sum(len(batch) * lengths[batch, 1].max() for batch in batches)
        assert lengths[:, 1].sum() / targets > 0.95
        both = sum(len(batch) * lengths[batch].max(axis=0).sum() for batch in batches)
        assert lengths.sum() / both > 0.88  # the source has to follow the target

    def test_short_and_long_batches_are_mixed(self) -> None:
        lengths = lengths_of(16 * WINDOW_BATCHES)
        means = [lengths[batch, 1].mean() for batch in LengthBucketBatches(lengths, 16, 1)]
        assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


class TestCollator:
    def test_padding(self) -> None:
        rows = [{"source_ids": [5, 6, 1], "target_ids": [7, 1]}, {"source_ids": [8, 1], "target_ids": [9, 10, 11, 1]}]
        batch = Collator(max_tokens=10)(rows)
        assert {name: tensor.tolist() for name, tensor in batch.items()} == {
            "input_ids": [[5, 6, 1], [8, 1, 0]],
            "attention_mask": [[1, 1, 1], [1, 1, 0]],
            "labels": [[7, 1, IGNORED_LABEL, IGNORED_LABEL], [9, 10, 11, 1]],
        }

    def test_the_pad_id(self) -> None:
        rows = [{"source_ids": [5, 1], "target_ids": [1]}, {"source_ids": [1], "target_ids": [1]}]
        assert Collator(max_tokens=10, pad_id=3)(rows)["input_ids"].tolist() == [[5, 1], [1, 3]]

    def test_a_long_source_keeps_its_end_a_long_target_loses_it(self) -> None:
        row = {"source_ids": [5, 6, 7, 8, 1], "target_ids": [5, 6, 7, 8, 1]}
        batch = Collator(max_tokens=4)([row])
        assert batch["input_ids"].tolist() == [[5, 6, 7, 1]]
        assert batch["labels"].tolist() == [[5, 6, 7, 8]]
        assert batch["attention_mask"].tolist() == [[1, 1, 1, 1]]

    def test_what_just_fits_is_not_cut(self) -> None:
        row = {"source_ids": [5, 6, 7, 1], "target_ids": [5, 6, 7, 1]}
        batch = Collator(max_tokens=4)([row])
        assert batch["input_ids"].tolist() == batch["labels"].tolist() == [[5, 6, 7, 1]]

    def test_a_padded_token_that_is_real_text_is_not_masked(self) -> None:
        row = {"source_ids": [0, 5, 1], "target_ids": [0, 1]}
        batch = Collator(max_tokens=9)([row])
        assert batch["attention_mask"].tolist() == [[1, 1, 1]]
        assert batch["labels"].tolist() == [[0, 1]]


@pytest.fixture
def dataset() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"source": ["a"] * 4, "source_tokens": [3, 5, 2, 9], "target_tokens": [4, 4, 4, 4]}
    )


def test_token_lengths(dataset: datasets.Dataset) -> None:
    lengths = token_lengths(dataset)
    assert lengths.tolist() == [[3, 4], [5, 4], [2, 4], [9, 4]]
    assert lengths.dtype == np.int32
    assert token_lengths(dataset.select([3, 0])).tolist() == [[9, 4], [3, 4]]


@pytest.mark.parametrize(("limit", "share"), [(3, 1.0), (4, 0.5), (5, 0.25), (9, 0.0)])
def test_truncated_ratio(dataset: datasets.Dataset, limit: int, share: float) -> None:
    assert truncated_ratio(dataset, limit) == share
    assert truncated_ratio(dataset.select([]), limit) == 0.0
