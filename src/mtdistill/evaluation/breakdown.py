"""Where a student is good and where it is not: quality by kind of sentence, and its worst sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtdistill.evaluation.quality import corpus_quality, sentence_chrf

LENGTH_EDGES = (0, 5, 8, 11, 15, 20)  # words; of Tatoeba zh-en each class but the last holds a tenth or more
RARITY_EDGES = (0, 10, 30, 100, 300, 1000)  # occurrences in training of the rarest piece
_MIN_SENTENCES = 10  # a corpus score of fewer says nothing


@dataclass(frozen=True)
class QualityClass:
    """Quality on the sentences whose `low` <= value < `high`; `high` is None in the last class.

    Classes of fewer than ten sentences are merged with the next lower one, the lowest with the next higher one.
    """

    low: int
    high: int | None
    sentences: int
    teacher_bleu: float
    student_bleu: float
    teacher_chrf: float
    student_chrf: float


@dataclass(frozen=True)
class SentenceScore:
    """Sentence chrF2 of both models, 0 to 100, against the reference that fits best."""

    row: int
    teacher_chrf: float
    student_chrf: float


def quality_by(
    values: Sequence[float],
    edges: Sequence[int],
    student: Sequence[str],
    teacher: Sequence[str],
    references: Sequence[Sequence[str]],
    target_lang: str,
) -> tuple[QualityClass, ...]:
    """Corpus BLEU and chrF2 of both models for each class of sentences.

    Args:
        values: what the sentences are classed by, one number of 0 or more each.
        edges: lower ends of the classes, rising from 0.
        student: translations, one for each value.
        teacher: likewise.
        references: every reference of each sentence.
        target_lang: as in `corpus_quality`.
    """
    classes = np.digitize(values, edges) - 1  # (sentences,)
    lows = _merged(edges, np.bincount(classes, minlength=len(edges)))
    found = []
    for low, high in zip(lows, [*lows[1:], None], strict=True):
        rows = [row for row, value in enumerate(values) if low <= value and (high is None or value < high)]
        scores = [
            corpus_quality([texts[row] for row in rows], [references[row] for row in rows], target_lang)
            for texts in (teacher, student)
        ]
        found.append(
            QualityClass(
                low=low,
                high=high,
                sentences=len(rows),
                teacher_bleu=scores[0].bleu,
                student_bleu=scores[1].bleu,
                teacher_chrf=scores[0].chrf,
                student_chrf=scores[1].chrf,
            )
        )
    return tuple(found)


def worst_sentences(
    student: Sequence[str], teacher: Sequence[str], references: Sequence[Sequence[str]], count: int = 20
) -> tuple[SentenceScore, ...]:
    """The sentences whose student translation falls furthest behind the teacher's in sentence chrF2, worst first.

    At most `count` of them; where the student is as good or better there is nothing to show.
    """
    scores = [
        SentenceScore(row, sentence_chrf(teacher[row], refs), sentence_chrf(student[row], refs))
        for row, refs in enumerate(references)
        if student[row] != teacher[row]
    ]
    behind = [score for score in scores if score.student_chrf < score.teacher_chrf]
    return tuple(sorted(behind, key=lambda score: score.student_chrf - score.teacher_chrf)[:count])


def rarest_piece_counts(source_ids: Sequence[Sequence[int]], counts: npt.NDArray[np.int64]) -> list[int]:
    """For each source, how often its rarest piece stands in the training sources.

    Args:
        source_ids: pieces of each source, the end mark included.
        counts: (vocabulary,), occurrences of each piece in the training sources.
    """
    return [min((int(counts[piece]) for piece in ids), default=0) for ids in source_ids]


def _merged(edges: Sequence[int], sizes: npt.NDArray[np.int64]) -> list[int]:
    """Lower ends of classes that are large enough, from the highest down; what is left joins the lowest."""
    lows: list[int] = []
    waiting = 0
    for low, size in zip(reversed(edges), reversed(sizes.tolist()), strict=True):
        waiting += size
        if waiting >= _MIN_SENTENCES:
            lows.insert(0, low)
            waiting = 0
    return [edges[0], *lows[1:]] if lows else [edges[0]]
