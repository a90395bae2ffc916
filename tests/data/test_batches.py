"""Every sentence once, in an order that can be repeated, and its tokens just as they are stored, one after the other."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.data.batches import (
    IGNORED_LABEL,
    WINDOW_BATCHES,
    Batches,
    LengthBucketBatches,
    PackedBatch,
    PackedRows,
    token_lengths,
    truncated_ratio,
)


def lengths_of(sentences: int, seed: int = 0) -> np.ndarray:
    """Source and target lengths that go together, as in real text."""
    random = np.random.default_rng(seed)
    targets = 2 + random.gamma(4.0, 2.2, sentences)
    sources = np.maximum(2, targets * random.normal(0.9, 0.12, sentences))
    return np.stack([sources, targets], axis=1).astype(np.int32)


def every_kind(sentences: int, batch_size: int, seed: int) -> list[Batches]:
    return [Batches(sentences, batch_size, seed), LengthBucketBatches(lengths_of(sentences), batch_size, seed)]


class TestBatches:
    @given(st.integers(0, 400), st.integers(1, 33), st.integers(0, 3), st.integers(0, 3))
    @settings(max_examples=60)
    def test_every_sentence_exactly_once(self, sentences: int, batch_size: int, seed: int, epoch: int) -> None:
        for sampler in every_kind(sentences, batch_size, seed):
            sampler.set_epoch(epoch)
            batches = list(sampler)
            assert sorted(index for batch in batches for index in batch) == list(range(sentences))
            assert len(batches) == len(sampler)
            # All are full but what is left over, which comes last.
            assert all(len(batch) == batch_size for batch in batches[:-1])

    @pytest.mark.parametrize("kind", [0, 1])
    def test_the_same_seed_and_epoch_give_the_same_order(self, kind: int) -> None:
        def order(seed: int, epoch: int) -> list[list[int]]:
            sampler = every_kind(1000, 16, seed)[kind]
            sampler.set_epoch(epoch)
            return list(sampler)

        assert order(1, 2) == order(1, 2)
        assert order(1, 2) != order(1, 3)
        assert order(1, 2) != order(2, 2)
        # Not only the order of the batches changes, also who is together with whom.
        assert {frozenset(batch) for batch in order(1, 2)} != {frozenset(batch) for batch in order(1, 3)}

    @given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 300), st.integers(1, 7))
    @settings(max_examples=60)
    def test_an_epoch_of_fewer_goes_on_where_the_last_one_ended(
        self, sentences: int, batch_size: int, per_epoch: int, epochs: int
    ) -> None:
        samplers = [
            Batches(sentences, batch_size, 1, per_epoch),
            LengthBucketBatches(lengths_of(sentences), batch_size, 1, per_epoch),
        ]
        for sampler in samplers:
            read: list[int] = []
            for epoch in range(epochs):
                sampler.set_epoch(epoch)
                batches = list(sampler)
                assert len(batches) == len(sampler)
                read += [index for batch in batches for index in batch]
            assert len(read) == epochs * per_epoch
            times = np.bincount(read, minlength=sentences)
            assert set(times) <= {len(read) // sentences, -(-len(read) // sentences)}

    @pytest.mark.parametrize("kind", [0, 1])
    def test_an_epoch_can_be_read_twice(self, kind: int) -> None:
        sampler = every_kind(100, 8, 1)[kind]
        assert list(sampler) == list(sampler)

    def test_a_batch_is_like_the_whole(self) -> None:
        # Bucketed, the lengths in a batch would hardly differ, and the means of batches by as much as sentences do.
        lengths = lengths_of(64 * 100)[:, 1]
        batches = list(Batches(len(lengths), 64, 1))
        spreads = [lengths[batch].std() for batch in batches]
        assert min(spreads) > 0.6 * lengths.std()
        assert np.std([lengths[batch].mean() for batch in batches]) < 0.2 * lengths.std()


class TestLengthBucketBatches:
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


Pairs = list[tuple[list[int], list[int]]]


def dataset_of(pairs: Pairs) -> datasets.Dataset:
    """Rows as prepared data has them; the lists must not be empty."""
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    columns = {"source": ["text"] * len(pairs), "source_ids": sources, "target_ids": targets,
               "source_tokens": [len(ids) for ids in sources], "target_tokens": [len(ids) for ids in targets]}  # fmt: skip
    return datasets.Dataset.from_dict(columns)


def unpacked(batch: PackedBatch) -> Pairs:
    sources = batch.source_ids.split(batch.source_starts.diff().tolist())
    targets = batch.labels.split(batch.target_starts.diff().tolist())
    return [(source.tolist(), target.tolist()) for source, target in zip(sources, targets, strict=True)]


def fields(batch: PackedBatch) -> dict[str, list[int]]:
    return {name: tensor.tolist() for name, tensor in vars(batch).items()}


SENTENCE = st.lists(st.integers(0, 99), min_size=1, max_size=9)
PAIRS = [([5, 6, 1], [7, 1]), ([8, 1], [9, 10, 11, 1]), ([1], [1]), ([12, 13, 14, 15, 1], [16, 17, 1])]


class TestPackedRows:
    def test_the_sentences_stand_one_after_the_other(self) -> None:
        batch = PackedRows(dataset_of(PAIRS), 10).batch([1, 0])
        assert fields(batch) == {
            "source_ids": [8, 1, 5, 6, 1],
            "source_starts": [0, 2, 5],
            "labels": [9, 10, 11, 1, 7, 1],
            "target_starts": [0, 4, 6],
            "rows": [1, 0],
        }
        assert {tensor.dtype for tensor in vars(batch).values()} == {torch.int64}
        assert len(batch) == 2

    @given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=8), st.integers(2, 10), st.data())
    @settings(max_examples=25)
    def test_a_batch_is_its_rows_one_by_one(self, pairs: Pairs, max_tokens: int, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=12))
        packed = PackedRows(dataset_of(pairs), max_tokens)
        expected: Pairs = []
        for row in rows:
            source, target = pairs[row]
            if len(source) > max_tokens:
                source = [*source[: max_tokens - 1], source[-1]]
            expected.append((source, target[:max_tokens]))
        batch = packed.batch(rows)
        assert unpacked(batch) == expected
        assert unpacked(batch) == [pair for row in rows for pair in unpacked(packed[row])]
        assert batch.rows.tolist() == rows

    def test_a_long_source_keeps_its_end_a_long_target_loses_it(self) -> None:
        batch = PackedRows(dataset_of([([5, 6, 7, 8, 1], [5, 6, 7, 8, 1])]), 4)[0]
        assert unpacked(batch) == [([5, 6, 7, 1], [5, 6, 7, 8])]

    def test_what_just_fits_is_not_cut(self) -> None:
        batch = PackedRows(dataset_of([([5, 6, 7, 1], [5, 6, 7, 1])]), 4)[0]
        assert unpacked(batch) == [([5, 6, 7, 1], [5, 6, 7, 1])]

    def test_a_cut_sentence_leaves_its_neighbours_alone(self) -> None:
        batch = PackedRows(dataset_of(PAIRS), 2).batch([0, 1, 2, 3])
        assert unpacked(batch) == [([5, 1], [7, 1]), ([8, 1], [9, 10]), ([1], [1]), ([12, 1], [16, 17])]

    @pytest.mark.parametrize("max_tokens", [2, 10])
    @pytest.mark.parametrize("selection", [[3, 0, 2], [2, 3], [1, 1, 0]])
    def test_rows_of_a_selection_are_counted_in_the_selection(self, selection: list[int], max_tokens: int) -> None:
        whole = PackedRows(dataset_of(PAIRS), max_tokens)
        chosen = PackedRows(dataset_of(PAIRS).select(selection), max_tokens)
        assert len(chosen) == len(selection)
        rows = list(reversed(range(len(selection))))
        batch = chosen.batch(rows)
        assert unpacked(batch) == unpacked(whole.batch([selection[row] for row in rows]))
        assert batch.rows.tolist() == rows

    def test_data_in_several_files_and_shuffled(self) -> None:
        dataset = datasets.concatenate_datasets([dataset_of(PAIRS[:2]), dataset_of(PAIRS[2:])])
        assert unpacked(PackedRows(dataset, 10).batch([3, 1, 2])) == [PAIRS[3], PAIRS[1], PAIRS[2]]
        shuffled = dataset.shuffle(seed=1)
        assert sorted(unpacked(PackedRows(shuffled, 10).batch([0, 1, 2, 3]))) == sorted(PAIRS)

    def test_a_data_loader_gets_the_fields_of_a_batch(self) -> None:
        packed = PackedRows(dataset_of(PAIRS), 10)
        loader = torch.utils.data.DataLoader(packed, batch_sampler=[[2, 0], [3]], collate_fn=lambda batch: batch)
        batches = [PackedBatch(**batch) for batch in loader]
        assert [fields(batch) for batch in batches] == [fields(packed.batch([2, 0])), fields(packed.batch([3]))]


class TestPackedBatch:
    @pytest.fixture
    def batch(self) -> PackedBatch:
        return PackedRows(dataset_of(PAIRS), 10).batch([0, 1, 2, 3])

    def test_padding(self) -> None:
        input_ids, attention_mask, labels = PackedRows(dataset_of(PAIRS), 10).batch([0, 1]).padded()
        assert input_ids.tolist() == [[5, 6, 1], [8, 1, 0]]
        assert attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
        assert labels.tolist() == [[7, 1, IGNORED_LABEL, IGNORED_LABEL], [9, 10, 11, 1]]

    def test_the_pad_id(self) -> None:
        input_ids, _, labels = PackedRows(dataset_of([([5, 1], [1]), ([1], [1])]), 10).batch([0, 1]).padded(3)
        assert input_ids.tolist() == [[5, 1], [1, 3]]
        assert labels.tolist() == [[1], [1]]

    def test_a_token_that_looks_like_padding_is_not_masked(self) -> None:
        _, attention_mask, labels = PackedRows(dataset_of([([0, 5, 1], [0, 1])]), 9)[0].padded()
        assert attention_mask.tolist() == [[1, 1, 1]]
        assert labels.tolist() == [[0, 1]]

    def test_the_decoder_reads_the_labels_one_position_later(self, batch: PackedBatch) -> None:
        assert batch.labels.tolist() == [7, 1, 9, 10, 11, 1, 1, 16, 17, 1]
        before = batch.labels.clone()
        assert batch.decoder_input_ids(50).tolist() == [50, 7, 50, 9, 10, 11, 50, 50, 16, 17]
        assert torch.equal(batch.labels, before)

    @pytest.mark.parametrize(("first", "last"), [(0, 4), (0, 1), (1, 3), (3, 4)])
    def test_a_part_is_the_batch_of_its_sentences(self, batch: PackedBatch, first: int, last: int) -> None:
        part = batch.part(first, last)
        assert fields(part) == fields(PackedRows(dataset_of(PAIRS), 10).batch(list(range(first, last))))
        assert part.source_ids.untyped_storage().data_ptr() == batch.source_ids.untyped_storage().data_ptr()

    def test_a_part_of_a_part(self, batch: PackedBatch) -> None:
        assert fields(batch.part(1, 4).part(1, 2)) == fields(batch.part(2, 3))


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
