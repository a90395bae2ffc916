import random
import re

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.evaluation import corpus_quality, retention, sentence_chrf

WORDS = ["the", "a", "cat", "dog", "sees", "likes", "old", "red", "house", "quickly", "and", "my", "friend"]
few_examples = settings(max_examples=25)

Sentences = list[str]


def sentences(seed: int, count: int) -> Sentences:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)]


def damaged(originals: Sentences, share: float, seed: int) -> Sentences:
    """Each word replaced with this probability."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(WORDS) if draw.random() < share else word for word in line.split()) for line in originals
    ]


class TestCorpusQuality:
    def test_agrees_with_sacrebleu_on_two_references_each(self) -> None:
        first, second = sentences(1, 30), sentences(2, 30)
        hypotheses = damaged(first, 0.4, 3)
        quality = corpus_quality(hypotheses, [list(pair) for pair in zip(first, second, strict=True)], "en")
        assert quality.bleu == sacrebleu.corpus_bleu(hypotheses, [first, second]).score
        assert quality.chrf == sacrebleu.corpus_chrf(hypotheses, [first, second]).score
        assert 20 < quality.bleu < 80

    def test_sentences_may_have_different_numbers_of_references(self) -> None:
        first, second = sentences(1, 30), sentences(2, 30)
        hypotheses = damaged(first, 0.4, 3)
        references = [[a, b] if index % 2 else [a] for index, (a, b) in enumerate(zip(first, second, strict=True))]
        # Saying a reference twice changes neither its n-grams nor the lengths to choose from.
        filled = [b if index % 2 else a for index, (a, b) in enumerate(zip(first, second, strict=True))]
        quality = corpus_quality(hypotheses, references, "en")
        assert quality.bleu == sacrebleu.corpus_bleu(hypotheses, [first, filled]).score
        assert quality.chrf == sacrebleu.corpus_chrf(hypotheses, [first, filled]).score
        assert quality.bleu != sacrebleu.corpus_bleu(hypotheses, [first]).score

    def test_every_reference_counts(self) -> None:
        assert corpus_quality(["my old red house"], [["the cat", "my old red house"]], "en").bleu == pytest.approx(100)

    @pytest.mark.parametrize(
        ("target_lang", "tokenizer"),
        [("en", "13a"), ("zh", "zh"), ("zh-CN", "zh"), ("ja", "char"), ("km", "char"), ("xx", "13a")],
    )
    def test_words_are_split_as_the_language_asks(self, target_lang: str, tokenizer: str) -> None:
        quality = corpus_quality(["他喜欢猫 a."], [["他喜欢狗 a.", "猫"]], target_lang)
        expected = sacrebleu.corpus_bleu(["他喜欢猫 a."], [["他喜欢狗 a."], ["猫"]], tokenize=tokenizer).score
        assert quality.bleu == expected
        assert f"|tok:{tokenizer}|" in quality.bleu_signature

    def test_signatures_name_references_and_version(self) -> None:
        quality = corpus_quality(["a b", "c d"], [["a b"], ["c", "d"]], "en")
        assert re.fullmatch(
            r"nrefs:var\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:[\d.]+", quality.bleu_signature
        )
        assert re.fullmatch(
            r"nrefs:var\|case:mixed\|eff:yes\|nc:6\|nw:0\|space:no\|version:[\d.]+", quality.chrf_signature
        )


def test_sentence_chrf_takes_the_reference_that_fits_best() -> None:
    references = ["the cat sees the dog", "my old friend", "a red house"]
    alone = [sacrebleu.sentence_chrf("my old house", [reference]).score for reference in references]
    assert sentence_chrf("my old house", references) == max(alone)
    assert len(set(alone)) == 3


class TestRetention:
    def test_agrees_with_scoring_every_sample_from_its_sentences(self) -> None:
        """The same draws, spelt out as lists of sentences and scored by sacreBLEU from the text."""
        numpy = pytest.importorskip("numpy")
        count, samples = 40, 60
        first, second = sentences(1, count), sentences(2, count)
        references = [[a, b] if index % 3 else [a] for index, (a, b) in enumerate(zip(first, second, strict=True))]
        student, teacher = damaged(first, 0.5, 4), damaged(first, 0.3, 5)
        ratios = []
        draws = numpy.random.default_rng(7).multinomial(count, [1 / count] * count, size=samples)
        for draw in draws:
            rows = [row for row in range(count) for _ in range(draw[row])]
            drawn = [references[row] for row in rows]
            scores = [corpus_quality([lines[row] for row in rows], drawn, "en").bleu for lines in (student, teacher)]
            ratios.append(scores[0] / scores[1])
        ratios.sort()
        result = retention(student, teacher, references, "en", samples=samples, seed=7)
        assert result.ratio == pytest.approx(
            corpus_quality(student, references, "en").bleu / corpus_quality(teacher, references, "en").bleu
        )
        # Percentiles by hand: 60 values, linear between ranks 0 to 59.
        assert result.low == pytest.approx(ratios[1] + 0.475 * (ratios[2] - ratios[1]))
        assert result.high == pytest.approx(ratios[57] + 0.525 * (ratios[58] - ratios[57]))
        assert result.low < result.ratio < result.high
        assert (result.samples, result.seed) == (60, 7)

    def test_the_samples_are_paired(self) -> None:
        lines = damaged(sentences(1, 30), 0.5, 2)
        result = retention(lines, lines, [[line] for line in sentences(1, 30)], "en", samples=50)
        assert (result.ratio, result.low, result.high) == (1.0, 1.0, 1.0)

    def test_more_sentences_give_a_narrower_interval(self) -> None:
        widths = []
        for count in (20, 320):
            originals = sentences(1, count)
            result = retention(
                damaged(originals, 0.5, 2),
                damaged(originals, 0.3, 3),
                [[line] for line in originals],
                "en",
                samples=200,
            )
            widths.append(result.high - result.low)
        assert widths[1] < widths[0] / 2

    def test_the_seed_decides_the_interval_and_nothing_else(self) -> None:
        originals = sentences(1, 30)
        student, teacher, references = damaged(originals, 0.5, 2), damaged(originals, 0.3, 3), [[o] for o in originals]
        results = [retention(student, teacher, references, "en", samples=50, seed=seed) for seed in (1, 1, 2)]
        assert results[0] == results[1]
        assert results[0].ratio == results[2].ratio
        assert results[0].low != results[2].low

    def test_of_a_teacher_without_score_nothing_is_retained(self) -> None:
        result = retention(["a cat"], ["xyz"], [["a cat"]], "en", samples=10)
        assert (result.ratio, result.low, result.high) == (0.0, 0.0, 0.0)

    def test_translations_too_short_for_bleu_are_held_against_each_other_all_the_same(self) -> None:
        references = [["a cat"], ["two dogs"], ["three birds"], ["tea"]]
        teacher, half = ["a cat", "two dogs", "three birds", "tea"], ["a cat", "two dogs", "no", "no"]
        assert corpus_quality(teacher, references, "en").bleu == 0  # there is nothing of four words
        assert retention(teacher, teacher, references, "en", samples=10).ratio == pytest.approx(1)
        assert 0.2 < retention(half, teacher, references, "en", samples=10).ratio < 0.8
        assert retention(["no"] * 4, teacher, references, "en", samples=10).ratio == 0

    def test_short_output_is_no_way_around_long_n_grams(self) -> None:
        references = [["the cat sat on the mat"]]
        assert retention(["the cat"], ["the cat sat on a mat"], references, "en", samples=5).ratio == 0

    def test_chinese_is_scored_in_characters(self) -> None:
        references = [["我们昨天在图书馆看了一本书"]]
        result = retention(["我们昨天在图书馆看了一本"], ["我们昨天在图书馆看了一本书"], references, "zh", samples=5)
        assert 0.8 < result.ratio < 1

    @few_examples
    @given(st.integers(0, 1000), st.integers(1, 25), st.floats(0, 1), st.floats(0, 1))
    def test_the_interval_is_in_order_and_positive(self, seed: int, count: int, worse: float, better: float) -> None:
        originals = sentences(seed, count)
        result = retention(
            damaged(originals, worse, 1),
            damaged(originals, better, 2),
            [[line] for line in originals],
            "en",
            samples=30,
        )
        assert 0 <= result.low <= result.high
