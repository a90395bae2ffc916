"""A batch is cut into parts that cost about the same, and threads compute them in order."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtdistill.data.batches import PackedBatch
from mtdistill.training import engine as module
from mtdistill.training.engine import TIMED_ROUNDS, Engine, Workers, engines, fastest, shared_out, summed

LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=30)


def batch_of(lengths: list[tuple[int, int]]) -> PackedBatch:
    """Every token is different, so that none can be mistaken for another."""
    sources, targets = (torch.tensor([0, *np.cumsum(side)]) for side in zip(*lengths, strict=True))
    rows = torch.arange(len(lengths)) + 100
    return PackedBatch(torch.arange(int(sources[-1])), sources, 1000 + torch.arange(int(targets[-1])), targets, rows)


def tokens_of(part: PackedBatch) -> int:
    return len(part.source_ids) + len(part.labels)


class TestCut:
    @given(lengths=LENGTHS, parts=st.integers(1, 5), limit=st.integers(1, 60), costs=st.tuples(
        st.floats(0.1, 10.0), st.floats(0.1, 10.0)))  # fmt: skip
    def test_every_sentence_once_and_in_order(
        self, lengths: list[tuple[int, int]], parts: int, limit: int, costs: tuple[float, float]
    ) -> None:
        batch = batch_of(lengths)
        cut = Engine(parts=parts, max_part_tokens=limit).cut(batch, costs)
        assert all(len(part) for part in cut)
        for name in ("source_ids", "labels", "rows"):
            assert torch.equal(torch.cat([getattr(part, name) for part in cut]), getattr(batch, name))
        for name in ("source_starts", "target_starts"):
            assert all(getattr(part, name)[0] == 0 for part in cut)
            assert torch.equal(torch.cat([getattr(part, name).diff() for part in cut]), getattr(batch, name).diff())
        for part in cut:
            assert (len(part.source_ids), len(part.labels)) == (part.source_starts[-1], part.target_starts[-1])

    @given(lengths=LENGTHS, parts=st.integers(1, 4), costs=st.sampled_from([(1.0, 1.0), (1.0, 5.0), (3.0, 1.0)]))
    def test_parts_cost_about_the_same(
        self, lengths: list[tuple[int, int]], parts: int, costs: tuple[float, float]
    ) -> None:
        each = [source * costs[0] + target * costs[1] for source, target in lengths]
        cut = Engine(parts=parts).cut(batch_of(lengths), costs)
        assert len(cut) <= parts
        for part in cut:
            # A bound goes to one of the two ends of the sentence that it falls into.
            cost = len(part.source_ids) * costs[0] + len(part.labels) * costs[1]
            assert cost <= sum(each) / parts + max(each) + 1e-3

    @pytest.mark.parametrize(
        ("lengths", "costs", "expected"),
        [
            ([(8, 1)] * 2 + [(1, 8)] * 2 + [(1, 1)] * 2, (1.0, 1.0), [3, 3]),
            ([(8, 1)] * 2 + [(1, 8)] * 2 + [(1, 1)] * 2, (1.0, 0.0), [2, 4]),
            ([(8, 1)] * 4 + [(1, 8)] * 2, (1.0, 1.0), [3, 3]),
            ([(8, 1)] * 4 + [(1, 8)] * 2, (0.0, 1.0), [5, 1]),
        ],
    )
    def test_the_costs_decide_where(
        self, lengths: list[tuple[int, int]], costs: tuple[float, float], expected: list[int]
    ) -> None:
        assert [len(part) for part in Engine(parts=2).cut(batch_of(lengths), costs)] == expected

    @given(lengths=LENGTHS, parts=st.integers(1, 3), limit=st.integers(1, 60))
    def test_no_part_is_much_longer_than_the_limit(
        self, lengths: list[tuple[int, int]], parts: int, limit: int
    ) -> None:
        longest = max(source + target for source, target in lengths)
        for part in Engine(parts=parts, max_part_tokens=limit).cut(batch_of(lengths)):
            assert tokens_of(part) < limit + longest or len(part) == 1

    @pytest.mark.parametrize(("limit", "expected"), [(400, 2), (200, 2), (199, 4), (100, 4), (50, 8), (2, 40)])
    def test_as_many_parts_as_memory_asks_for_in_whole_rounds(self, limit: int, expected: int) -> None:
        cut = Engine(parts=2, max_part_tokens=limit).cut(batch_of([(5, 5)] * 40))
        assert len(cut) == expected
        assert max(map(tokens_of, cut)) <= max(limit, 10)

    @pytest.mark.parametrize("engine", [Engine(), Engine(parts=3), Engine(parts=2, max_part_tokens=1)])
    def test_a_single_sentence_stays_whole(self, engine: Engine) -> None:
        batch = batch_of([(7, 3)])
        [part] = engine.cut(batch)
        assert torch.equal(part.source_ids, batch.source_ids)
        assert torch.equal(part.labels, batch.labels)


class TestWorkers:
    def test_results_are_in_order_whatever_ends_first(self) -> None:
        workers, ended, over = Workers(3, 1), list[int](), [threading.Event() for _ in range(3)]

        def work(number: int) -> int:
            if number < 2:
                assert over[number + 1].wait(10)
            ended.append(number)
            over[number].set()
            return number * 10

        try:
            assert workers.map(work, 3) == [0, 10, 20]
        finally:
            workers.close()
        assert ended == [2, 1, 0]

    def test_parts_run_side_by_side(self) -> None:
        workers, together = Workers(2, 1), threading.Barrier(2, timeout=10)
        try:
            workers.map(lambda _: together.wait(), 2)
        finally:
            workers.close()

    def test_more_parts_than_threads(self) -> None:
        workers = Workers(2, 1)
        try:
            assert workers.map(lambda number: number, 9) == list(range(9))
        finally:
            workers.close()

    def test_the_first_error_is_raised(self) -> None:
        workers = Workers(2, 1)

        def fail(number: int) -> int:
            if number:
                raise ValueError(f"part {number}")
            return number

        try:
            with pytest.raises(ValueError, match="part 1"):
                workers.map(fail, 4)
            assert workers.map(lambda number: number, 2) == [0, 1]  # usable afterwards
        finally:
            workers.close()

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_every_thread_has_its_number_of_inner_threads_and_the_caller_keeps_its_own(self, threads: int) -> None:
        torch.set_num_threads(2)
        workers, together = Workers(2, threads), threading.Barrier(2, timeout=10)

        def count(_: int) -> int:
            together.wait()  # both threads take part
            return torch.get_num_threads()

        try:
            assert workers.map(count, 2) == [threads, threads]
            assert torch.get_num_threads() == 2
        finally:
            workers.close()

    @pytest.mark.parametrize(
        "used",
        [
            False,
            True,
        ],
    )
    def test_other_new_threads_have_the_number_of_the_caller(self, used: bool) -> None:
        torch.set_num_threads(2)
        workers, together = Workers(2, 1), threading.Barrier(2, timeout=10)
        found: list[int] = []
        try:
            if used:
                workers.map(lambda _: together.wait(), 2)
            other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            other.start()
            other.join()
        finally:
            workers.close()
        assert found == [2]

    def test_closing_ends_the_threads(self) -> None:
        workers, together = Workers(3, 1), threading.Barrier(3, timeout=10)
        threads: list[threading.Thread] = []

        def work(_: int) -> None:
            together.wait()  # so that each part has a thread of its own
            threads.append(threading.current_thread())

        workers.map(work, 3)
        of_its_own = [thread for thread in threads if thread is not threading.current_thread()]
        assert of_its_own
        workers.close()
        assert not any(thread.is_alive() for thread in of_its_own)


def test_gradients_of_parts_are_added_by_name() -> None:
    parts = [{"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}, {"b": torch.tensor(30.0), "a": torch.ones(2)}]
    found = summed([*parts, {"a": torch.zeros(2), "b": torch.tensor(300.0)}])
    assert {*found} == {"a", "b"}
    assert found["a"].tolist() == [2.0, 3.0]
    assert found["b"].item() == 333.0
    assert summed(parts[1:])["b"].item() == 30.0


@given(sizes=st.lists(st.integers(1, 1000), min_size=1), count=st.integers(1, 5))
def test_shares_are_of_about_equal_size(sizes: list[int], count: int) -> None:
    shares = shared_out(sizes, count)
    assert sorted(place for places in shares for place in places) == [*range(len(sizes))]
    assert len(shares) == min(count, len(sizes))
    totals = [sum(sizes[place] for place in places) for places in shares]
    assert max(totals) <= sum(sizes) / count + max(sizes)
    assert shared_out([5, 1, 2, 2], 2) == [[0], [2, 3, 1]]


@pytest.mark.parametrize(("threads", "ways"), [(1, [(1, 1)]), (2, [(2, 1), (1, 2)]),
                                               (6, [(6, 1), (1, 6)])])  # fmt: skip
def test_the_ways_worth_trying_use_all_threads(threads: int, ways: list[tuple[int, int]]) -> None:
    found = engines("float32", threads)
    assert [(engine.parts, engine.threads_per_part) for engine in found] == ways
    assert all(engine.fused and not engine.bfloat16 for engine in found)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_all_ways_have_the_number_format_that_was_chosen(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "uses_bfloat16", lambda wish: asked.append(wish) or bfloat16)
    found = engines("auto", 2)
    assert {engine.bfloat16 for engine in found} == {bfloat16}
    assert {engine.dtype for engine in found} == {torch.bfloat16 if bfloat16 else torch.float32}
    assert asked == ["auto"]  # one measurement for all


class TestFastest:
    def race(self, rounds: list[tuple[float, float]]) -> int:
        """Which of two engines wins when the rounds take these seconds."""
        candidates = [Engine(), Engine(parts=2)]
        left = [list(times) for times in zip(*rounds, strict=True)]
        return candidates.index(fastest(candidates, lambda engine: left[candidates.index(engine)].pop(0)))

    def test_the_first_round_does_not_count(self) -> None:
        assert self.race([(0.1, 9.0), *[(2.0, 1.0)] * TIMED_ROUNDS]) == 1

    def test_one_disturbed_round_does_not_decide(self) -> None:
        assert self.race([(1.0, 1.0), (9.0, 2.0), *[(1.0, 2.0)] * (TIMED_ROUNDS - 1)]) == 0
        assert self.race([(1.0, 1.0), *[(2.0, 1.0)] * (TIMED_ROUNDS - 1), (2.0, 9.0)]) == 1
