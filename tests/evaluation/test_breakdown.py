import random
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.evaluation import (
    LENGTH_EDGES,
    RARITY_EDGES,
    QualityClass,
    quality_by,
    rarest_piece_counts,
    worst_sentences,
)

WORDS = ["the", "a", "cat", "dog", "sees", "likes", "old", "red", "house", "quickly", "and", "my", "friend"]
MIN_SENTENCES = 10  # below it a class is merged
few_examples = settings(max_examples=25)

Sentences = list[str]


def sentences(count: int, seed: int) -> Sentences:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)]


def damaged(originals: Sentences, share: float, seed: int) -> Sentences:
    """Each word replaced with this probability."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(WORDS) if draw.random() < share else word for word in line.split()) for line in originals
    ]


def judged(values: list[float], edges: tuple[int, ...] = LENGTH_EDGES) -> tuple[QualityClass, ...]:
    originals = sentences(len(values), 1)
    references = [[line] for line in originals]
    return quality_by(values, edges, damaged(originals, 0.5, 2), damaged(originals, 0.2, 3), references, "en")


def bounds(classes: tuple[QualityClass, ...]) -> list[tuple[int, int | None, int]]:
    return [(each.low, each.high, each.sentences) for each in classes]


class TestQualityBy:
    def test_each_class_is_scored_as_sacrebleu_scores_its_sentences(self) -> None:
        values = [4.5] * 15 + [5] * 12 + [7.5] * 3 + [8] * 20
        random.Random(1).shuffle(values)
        first, second = sentences(50, 1), sentences(50, 2)
        student, teacher = damaged(first, 0.5, 3), damaged(first, 0.2, 4)
        references = [list(pair) for pair in zip(first, second, strict=True)]
        classes = quality_by(values, (0, 5, 8), student, teacher, references, "en")
        assert bounds(classes) == [(0, 5, 15), (5, 8, 15), (8, None, 20)]
        for each in classes:
            rows = [row for row in range(50) if each.low <= values[row] < (each.high or 99)]
            streams = [[stream[row] for row in rows] for stream in (first, second)]
            ours, theirs = [student[row] for row in rows], [teacher[row] for row in rows]
            assert each.student_bleu == sacrebleu.corpus_bleu(ours, streams).score
            assert each.teacher_bleu == sacrebleu.corpus_bleu(theirs, streams).score
            assert each.student_chrf == sacrebleu.corpus_chrf(ours, streams).score
            assert each.teacher_chrf == sacrebleu.corpus_chrf(theirs, streams).score
            assert 0 < each.student_bleu < each.teacher_bleu < 100

    def test_words_are_split_as_the_language_asks(self) -> None:
        lines = ["他喜欢猫和狗。", "我们昨天看了一本书。"] * 5
        student = [line[:-2] + "。" for line in lines]
        [found] = quality_by([1] * 10, (0,), student, lines, [[line] for line in lines], "zh")
        assert found.student_bleu == sacrebleu.corpus_bleu(student, [lines], tokenize="zh").score
        assert found.student_bleu != sacrebleu.corpus_bleu(student, [lines]).score

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ({0: 10, 4.5: 10, 5: 10}, [(0, 5, 20), (5, None, 10)]),
            ({0: 12, 5: 10, 8: 10}, [(0, 5, 12), (5, 8, 10), (8, None, 10)]),
            ({0: 12, 5: 9, 8: 10}, [(0, 8, 21), (8, None, 10)]),  # with the next lower one
            ({0: 12, 5: 12, 8: 9}, [(0, 5, 12), (5, None, 21)]),
            ({0: 9, 5: 12, 8: 12}, [(0, 8, 21), (8, None, 12)]),  # the lowest with the next higher one
            ({0: 9, 5: 1, 8: 10}, [(0, 8, 10), (8, None, 10)]),
            ({0: 1, 5: 5, 8: 5}, [(0, None, 11)]),
            ({0: 3, 5: 5, 8: 12}, [(0, None, 20)]),
            ({5: 12, 8: 12}, [(0, 8, 12), (8, None, 12)]),  # from 0 on, although nothing is there
            ({0: 12, 8: 12}, [(0, 8, 12), (8, None, 12)]),
            ({0: 12}, [(0, None, 12)]),
            ({8: 12}, [(0, None, 12)]),
            ({0: 1}, [(0, None, 1)]),
        ],
        ids=str,
    )
    def test_small_classes_are_merged(
        self, counts: dict[float, int], expected: list[tuple[int, int | None, int]]
    ) -> None:
        values = [value for value, count in counts.items() for _ in range(count)]
        assert bounds(judged(values, (0, 5, 8))) == expected

    @few_examples
    @given(
        st.lists(st.integers(0, 60).map(lambda halves: halves / 2), min_size=1, max_size=80),
        st.sampled_from([LENGTH_EDGES, RARITY_EDGES, (0,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]),
    )
    def test_classes_partition_the_sentences(self, values: list[float], edges: tuple[int, ...]) -> None:
        classes = judged(values, edges)
        assert classes[0].low == 0
        assert classes[-1].high is None
        assert [each.high for each in classes[:-1]] == [each.low for each in classes[1:]]
        assert {each.low for each in classes} <= {*edges}
        counted = [sum(each.low <= value and (each.high is None or value < each.high) for value in values)
                   for each in classes]  # fmt: skip
        assert [each.sentences for each in classes] == counted
        assert sum(counted) == len(values)
        assert min(counted) >= min(MIN_SENTENCES, len(values))


class TestWorstSentences:
    REFERENCES = (["the old red house"], ["my friend likes the dog"], ["a cat and a dog"], ["the house", "my house"])

    def test_the_furthest_behind_comes_first(self) -> None:
        teacher = [references[0] for references in self.REFERENCES]
        student = ["the old red horse", "xyz", "a cat and a fog and", "a house"]
        found = worst_sentences(student, teacher, self.REFERENCES)
        differences = [
            max(sacrebleu.sentence_chrf(text, [reference]).score for reference in references) - 100
            for text, references in zip(student, self.REFERENCES, strict=True)
        ]
        assert [score.row for score in found] == np.argsort(differences).tolist()
        assert [score.student_chrf - score.teacher_chrf for score in found] == pytest.approx(sorted(differences))
        assert found[0].row == 1

    def test_it_is_the_distance_that_counts_not_the_score(self) -> None:
        student, teacher = ["the old red", "qqq"], ["the old red house", "vvv my"]
        found = worst_sentences(student, teacher, self.REFERENCES[:2])
        assert [score.row for score in found] == [0, 1]
        assert found[0].student_chrf > found[1].student_chrf

    @pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
    def test_no_more_than_asked_for(self, count: int, expected: int) -> None:
        teacher = [references[0] for references in self.REFERENCES]
        assert len(worst_sentences(["", "x", "y", teacher[3]], teacher, self.REFERENCES, count)) == expected

    def test_twenty_by_default(self) -> None:
        assert len(worst_sentences([""] * 30, ["a house"] * 30, [["a house"]] * 30)) == 20

    def test_those_that_are_as_good_or_better_are_left_out(self) -> None:
        student = ["the old red house", "my friend", "a dog and a cat", "zzz"]
        teacher = ["the old house", "my friend", "a cat", "qqq"]  # worse, the same, worse, other but as bad
        assert worst_sentences(student, teacher, self.REFERENCES) == ()

    def test_the_reference_that_fits_best_counts(self) -> None:
        [found] = worst_sentences(["my houses"], ["the house"], [self.REFERENCES[3]])
        alone = [sacrebleu.sentence_chrf("my houses", [reference]).score for reference in self.REFERENCES[3]]
        assert (found.student_chrf, found.teacher_chrf) == (pytest.approx(alone[1]), pytest.approx(100))
        assert alone[1] > alone[0]


class TestRarestPieceCounts:
    @given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=20), st.data())
    def test_agrees_with_counting_by_hand(self, training: list[list[int]], data: st.DataObject) -> None:
        end = 0
        training = [[*ids, end] for ids in training]
        seen = Counter(piece for ids in training for piece in ids)
        counts = np.bincount(np.concatenate([np.array(ids) for ids in training]), minlength=10)
        sources = data.draw(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=5))
        expected = [min([seen[piece] for piece in [*ids, end]]) for ids in sources]
        assert rarest_piece_counts([[*ids, end] for ids in sources], counts) == expected

    def test_plain_numbers_come_out(self) -> None:
        [found] = rarest_piece_counts([[1, 0]], np.array([3, 2]))
        assert type(found) is int

    def test_a_source_without_pieces_is_as_rare_as_can_be(self) -> None:
        assert rarest_piece_counts([[], [1]], np.array([3, 2])) == [0, 2]
