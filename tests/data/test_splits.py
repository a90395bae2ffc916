"""No sentence on both sides, and a split that depends on nothing but the text."""

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.data.cleaning import Pair
from mtdistill.data.splits import MAX_HELD_OUT_COMPONENT, SPLITS, assign_splits, sentence_keys, shared_with
from mtdistill.text import match_key

# Few distinct sentences, so that pairs hang together in every way.
pairs_strategy = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ids: Pair(f"甲{ids[0]}", f"sentence {ids[1]}")),
    max_size=60,
)
ratios = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


def split_of(pairs: list[Pair], validation: float = 0.2, test: float = 0.2) -> dict[Pair, int]:
    return dict(zip(pairs, assign_splits(sentence_keys(pairs), validation, test).tolist(), strict=True))


def components_of(pairs: list[Pair]) -> list[set[Pair]]:
    """By walking from pair to pair, without hashes and matrices."""
    by_sentence: defaultdict[tuple[int, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        for side, text in enumerate(pair):
            by_sentence[side, match_key(text)].append(pair)
    components, left = [], set(pairs)
    while left:
        found, todo = set(), [left.pop()]
        while todo:
            pair = todo.pop()
            found.add(pair)
            near = {other for side, text in enumerate(pair) for other in by_sentence[side, match_key(text)]}
            todo += near - found
            found |= near
        left -= found
        components.append(found)
    return components


@given(pairs_strategy, ratios)
@settings(max_examples=60)
def test_what_hangs_together_stays_together(pairs: list[Pair], shares: tuple[float, float]) -> None:
    split = split_of(pairs, *shares)
    for component in components_of(pairs):
        assert len({split[pair] for pair in component}) == 1


@given(pairs_strategy, ratios)
@settings(max_examples=60)
def test_no_sentence_stands_on_both_sides(pairs: list[Pair], shares: tuple[float, float]) -> None:
    split = split_of(pairs, *shares)
    for side in (0, 1):
        train, validation, test = ({pair[side] for pair, index in split.items() if index == i} for i in range(3))
        assert train.isdisjoint(validation)
        assert train.isdisjoint(test)
        assert validation.isdisjoint(test)


@given(pairs_strategy, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_the_pairs_does_not_matter(pairs: list[Pair], shuffler: random.Random) -> None:
    shuffled = shuffler.sample(pairs, len(pairs))
    assert split_of(shuffled) == split_of(pairs)


@given(pairs_strategy)
@settings(max_examples=60)
def test_more_text_moves_nothing(pairs: list[Pair]) -> None:
    more = [Pair(f"乙{index}", f"other {index}") for index in range(10)]
    after = split_of([*more, *pairs])
    assert {pair: after[pair] for pair in pairs} == split_of(pairs)


def test_the_assignment_is_pinned() -> None:
    """A split that changes with a version of ours would turn yesterday's test sentences into training data."""
    pairs = [Pair(f"第{index}句", f"sentence {index}") for index in range(400)]
    split = assign_splits(sentence_keys(pairs), 0.02, 0.03)
    assert {name: np.flatnonzero(split == SPLITS.index(name)).tolist() for name in ("validation", "test")} == {
        "validation": [58, 104, 136, 248, 275, 349, 355, 389, 396],
        "test": [56, 110, 154, 158, 164, 184, 276, 303, 332, 356, 359],
    }


def test_shares_are_those_asked_for() -> None:
    pairs = [Pair(f"甲{index}", f"sentence {index}") for index in range(20_000)]
    shares = np.bincount(assign_splits(sentence_keys(pairs), 0.05, 0.1), minlength=3) / len(pairs)
    assert shares.tolist() == pytest.approx([0.85, 0.05, 0.1], abs=0.008)


def test_components_of_any_size_are_held_out_alike() -> None:
    """The smallest of several hashes is small: without mixing, larger components would all be in one split."""
    pairs = [Pair(f"甲{index}", f"sentence {index // 20}") for index in range(20_000)]
    shares = np.bincount(assign_splits(sentence_keys(pairs), 0.2, 0.2), minlength=3) / len(pairs)
    assert shares.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


@pytest.mark.parametrize(("size", "held_out"), [(MAX_HELD_OUT_COMPONENT, True), (MAX_HELD_OUT_COMPONENT + 1, False)])
def test_a_large_component_is_for_training(size: int, held_out: bool) -> None:
    pairs = [Pair(f"甲{index}", "Yes.") for index in range(size)]
    split = assign_splits(sentence_keys(pairs), 0.0, 0.999999)
    assert {*split.tolist()} == ({2} if held_out else {0})


def test_many_copies_of_a_pair_do_not_tear_it_from_its_neighbours() -> None:
    # 256 ones are 0 in the small integers that the graph is made of.
    pairs = [Pair("你好", "hello")] * 256 + [Pair("您好", "hello")]
    assert {*assign_splits(sentence_keys(pairs), 0.0, 0.999999).tolist()} == {0}


def test_nothing_held_out_and_no_text() -> None:
    pairs = [Pair(f"甲{index}", f"sentence {index}") for index in range(100)]
    assert not assign_splits(sentence_keys(pairs), 0.0, 0.0).any()
    assert assign_splits(sentence_keys([]), 0.1, 0.1).shape == (0,)
    assert sentence_keys([]).shape == (0, 2)


class TestSentenceKeys:
    def test_case_and_punctuation_do_not_make_another_sentence(self) -> None:
        first, second, third = sentence_keys([Pair("你好。", "Hello!"), Pair("你好", "HELLO"), Pair("你们好", "Hell")])
        assert (first == second).all()
        assert (first != third).all()

    def test_a_source_is_not_a_target(self) -> None:
        [[source, target]] = sentence_keys([Pair("OK", "OK")])
        assert source != target


def test_shared_with_looks_at_both_sides() -> None:
    keys = sentence_keys([Pair("甲", "a"), Pair("乙", "b"), Pair("丙", "c"), Pair("b", "甲")])
    held_out = sentence_keys([Pair("甲", "x"), Pair("y", "B.")])
    assert shared_with(keys, held_out).tolist() == [True, True, False, False]
    assert shared_with(keys, sentence_keys([])).tolist() == [False] * 4
