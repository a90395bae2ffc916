"""Timing a student against its teacher, one duel after the other.

Imported by report and report.building; imports decoding and evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mtdistill.decoding import Translator
from mtdistill.display import Display
from mtdistill.evaluation import SpeedUp, measure_speed
from mtdistill.messages import tr

# Sentences of a timed run by batch size: about a second of teacher time each in CTranslate2 on one core. What a promise is
# held against is timed on the larger number at any batch size: with 48 sentences it is chance how many of them loop, and a
# loop takes as long as ten sentences (docs/experiments.md, 2026-11-27).
SPEED_SENTENCES = {32: 256, 1: 48}
SPEED_REPEATS = 5


@dataclass(frozen=True)
class Duel:
    """A pair of translators to time against each other, and how.

    Attributes:
        promised: this measurement is held against the promise; the slowest of these counts.
    """

    student: Translator
    teacher: Translator
    batch_size: int = 32
    beam_size: int = 1
    promised: bool = False


def run_duels(duels: Sequence[Duel], sources: Sequence[str], display: Display) -> list[SpeedUp]:
    """Time every duel on sentences spread evenly over the sources; as many results, in the same order."""
    speed_ups = []
    with display.bar(tr(en="measuring speed", zh="测速"), len(duels)) as bar:
        for done, duel in enumerate(duels, start=1):
            timed = [sources[row] for row in spread(len(sources), _timed_sentences(duel))]
            speed_ups.append(
                measure_speed(
                    duel.student,
                    duel.teacher,
                    timed,
                    batch_size=duel.batch_size,
                    beam_size=duel.beam_size,
                    repeats=_repeats(duel),
                )
            )
            bar.advance_to(done, f"{duel.student.engine} {duel.student.precision}")
    return speed_ups


def _timed_sentences(duel: Duel) -> int:
    """Fewer where a sentence takes longer."""
    count = max(SPEED_SENTENCES.values()) if duel.promised else SPEED_SENTENCES[duel.batch_size]
    count = count // 3 if duel.beam_size > 1 else count
    return count if duel.teacher.engine == "CTranslate2" else count // 4


def _repeats(duel: Duel) -> int:
    """Fewer where a run has that many sentences one by one."""
    return min(2, SPEED_REPEATS) if duel.promised and duel.batch_size == 1 else SPEED_REPEATS


def spread(count: int, wanted: int) -> list[int]:
    """At most this many of the row numbers, evenly over the whole set."""
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]
