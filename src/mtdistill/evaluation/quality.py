"""Corpus BLEU and chrF2 with all references, and how much of the teacher's BLEU a student keeps.

All formulas are sacreBLEU's; what is ours is the resampling, from statistics that are counted once per sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtdistill.text import base_language

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

_NGRAM_ORDERS = 4
# Languages of which 13a would take a whole sentence for one word.
_TOKENIZERS = {"zh": "zh", **dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")}


@dataclass(frozen=True)
class Quality:
    """Scores of a set of translations, 0 to 100, with the sacreBLEU signatures they were measured under."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


@dataclass(frozen=True)
class Retention:
    """Student BLEU / teacher BLEU.

    Attributes:
        ratio: on the whole set; 0 where the teacher scores 0, because there is nothing to retain.
        low: lower end of the 95 % interval.
        high: upper end.
        samples: bootstrap samples behind the interval.
        seed: of the resampling.
    """

    ratio: float
    low: float
    high: float
    samples: int
    seed: int


def corpus_quality(hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_lang: str) -> Quality:
    """BLEU and chrF2 of a corpus.

    Args:
        hypotheses: one translation for each source.
        references: every reference of each source, one or more; their number may differ from source to source.
        target_lang: decides how BLEU splits words: "zh" for Chinese, "char" for Japanese, Thai, Lao,
            Khmer and Burmese, else "13a".
    """
    from sacrebleu.metrics.chrf import CHRF

    # sacreBLEU wants one stream for the first references, one for the second, and so on; None fills the gaps.
    streams = [list(stream) for stream in zip_longest(*references)]
    bleu, chrf = _bleu(target_lang), CHRF()
    return Quality(
        bleu=bleu.corpus_score(hypotheses, streams).score,
        chrf=chrf.corpus_score(hypotheses, streams).score,
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )


def sentence_chrf(hypothesis: str, references: Sequence[str]) -> float:
    """chrF2 of one sentence, 0 to 100, against whichever reference fits best."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(hypothesis, references).score)


def retention(
    student_hypotheses: Sequence[str],
    teacher_hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    target_lang: str,
    *,
    samples: int = 1000,
    seed: int = 1,
) -> Retention:
    """The share of the teacher's corpus BLEU that the student reaches, with a paired bootstrap interval.

    Each sample draws as many sentences as there are, with replacement, and scores both systems on the same draw. The
    interval runs from the 2.5th to the 97.5th percentile of the ratios. It covers the choice of test sentences, not
    the luck of training. Orders of n-grams for which no translation of the teacher is long enough are left out.

    Args:
        student_hypotheses: one translation for each source, 1 or more.
        teacher_hypotheses: likewise, of the same sources.
        references: every reference of each source.
        target_lang: as in `corpus_quality`.
        samples: how many times the test set is drawn.
        seed: of the drawing.

    Source: Koehn 2004 (aclanthology.org/W04-3250).
    """
    bleu = _bleu(target_lang)
    counting = _bleu(target_lang, effective_order=True)
    student = _sentence_statistics(counting, student_hypotheses, references)
    teacher = _sentence_statistics(counting, teacher_hypotheses, references)
    count = len(references)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    ratios = [
        _ratio(bleu, sample @ student, sample @ teacher)  # (statistics,)
        for sample in draws
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Retention(
        ratio=_ratio(bleu, student.sum(0), teacher.sum(0)), low=float(low), high=float(high), samples=samples, seed=seed
    )


def _bleu(target_lang: str, *, effective_order: bool = False) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    # The order matters to scores of single sentences only, of which we take nothing but the counts; without it sacreBLEU
    # advises to set it at every call.
    return BLEU(tokenize=_TOKENIZERS.get(base_language(target_lang), "13a"), effective_order=effective_order)


def _sentence_statistics(
    bleu: BLEU, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.int64]:
    """(sentences, 10): matching n-grams of orders 1 to 4, all n-grams of these orders, length, reference length."""
    scores = [bleu.sentence_score(each, refs) for each, refs in zip(hypotheses, references, strict=True)]
    return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores], dtype=np.int64)


def _ratio(bleu: BLEU, student: npt.NDArray[np.int64], teacher: npt.NDArray[np.int64]) -> float:
    # BLEU proper is 0 for translations of less than four tokens, however good: what is no measure of either is not taken.
    orders = int(np.count_nonzero(teacher[_NGRAM_ORDERS : 2 * _NGRAM_ORDERS]))
    teacher_score = _score(bleu, teacher, orders) if orders else 0.0
    return _score(bleu, student, orders) / teacher_score if teacher_score else 0.0


def _score(bleu: BLEU, statistics: npt.NDArray[np.int64], orders: int) -> float:
    numbers = statistics.tolist()
    score = bleu.compute_bleu(
        correct=numbers[:orders],
        total=numbers[_NGRAM_ORDERS : _NGRAM_ORDERS + orders],
        sys_len=numbers[-2],
        ref_len=numbers[-1],
        smooth_method=bleu.smooth_method,
        smooth_value=bleu.smooth_value,
        max_ngram_order=orders,
    )
    return float(score.score)
