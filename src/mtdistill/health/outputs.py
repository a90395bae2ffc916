"""Health checks on what the student writes: translations of validation sentences, judged at every evaluation.

A falling loss does not show that every output is the same sentence; this does. Single translations are judged by
`mtdistill.output_checks`; here their rates are held against floors, and against the teacher's own. Imported by
distillation, evaluation, training and health.monitor; imports output_checks and health.finding.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtdistill.health.finding import Figures
from mtdistill.output_checks import CHECKS
from mtdistill.text import match_key, units

MIN_SUCCESS = 0.5
COLLAPSED = 0.5  # share of the best success rate so far
# Twice the teacher's rate, and at least this: a student after a twentieth of its training fails more often than later.
MAX_FAILURE_RATE = 0.1
ONE_OUTPUT_SHARE = 0.2
ONE_TOKEN_SHARE = 0.2
MIN_REPEATED = 4
FEW_SENTENCES = 20  # below it a rate says little
_CONFIDENCE = 1.645  # one-sided 95 %


@dataclass(frozen=True)
class Outputs:
    """What an evaluation saw.

    Attributes:
        sources: distinct sentences.
        texts: the student's translation of each.
        success_rate: share that is fit to be shown.
        failures: how many fail each output check.
        teacher_failures: of the teacher's translations.
    """

    sources: Sequence[str]
    texts: Sequence[str]
    success_rate: float
    failures: Mapping[str, int]
    teacher_failures: Mapping[str, int]


def success_under_half(outputs: Outputs) -> Figures | None:
    """Most translations are not fit to be shown."""
    rate = outputs.success_rate
    return {"rate": rate, "limit": MIN_SUCCESS} if rate < MIN_SUCCESS else None


def collapsed(outputs: Outputs, best: float) -> bool:
    """Training has destroyed something: the success rate is surely below half of the best so far."""
    count = len(outputs.sources)
    failed = round((1 - outputs.success_rate) * count)
    return count >= FEW_SENTENCES and lower_bound(failed, count) > 1 - COLLAPSED * best


def one_output(outputs: Outputs) -> tuple[Figures, str] | None:
    """One text stands for a fifth of the sources."""
    if len(outputs.texts) < FEW_SENTENCES:
        return None
    text, count = Counter(map(match_key, outputs.texts)).most_common(1)[0]
    share = count / len(outputs.texts)
    return ({"share": share, "limit": ONE_OUTPUT_SHARE}, text) if share > ONE_OUTPUT_SHARE else None


def one_token(outputs: Outputs) -> tuple[Figures, str] | None:
    """A fifth of the translations repeat one word, or one character, from beginning to end."""
    repeated = [text for text in outputs.texts if _is_one_unit(text)]
    share = len(repeated) / max(1, len(outputs.texts))
    return ({"share": share, "limit": ONE_TOKEN_SHARE}, repeated[0]) if share > ONE_TOKEN_SHARE else None


def failing_check(outputs: Outputs, check: str) -> Figures | None:
    """An output check fails for more than twice the teacher's share, and for more than a tenth.

    Args:
        outputs: of an evaluation.
        check: one of `mtdistill.output_checks.CHECKS`.
    """
    assert check in CHECKS
    count = len(outputs.sources)
    failed, teacher = outputs.failures.get(check, 0), outputs.teacher_failures.get(check, 0)
    limit = max(MAX_FAILURE_RATE, 2 * teacher / count)
    surely = lower_bound(failed, count)
    return {"rate": failed / count, "teacher_rate": teacher / count, "limit": limit} if surely > limit else None


def lower_bound(successes: int, trials: int) -> float:
    """One-sided 95 % lower bound of a rate (Wilson 1927), in [0, 1].

    >>> round(lower_bound(10, 50), 3)
    0.123
    """
    if not trials:
        return 0.0
    z, share = _CONFIDENCE, successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def _is_one_unit(text: str) -> bool:
    found = units(text)
    return len(found) >= MIN_REPEATED and len(set(found)) == 1
