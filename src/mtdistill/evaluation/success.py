"""The success rate: how many translations are fit to be shown, judged by the output checks and against the teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtdistill.decoding import Translation
from mtdistill.evaluation.quality import sentence_chrf
from mtdistill.output_checks import CHECKS, check_translations

FAR_BELOW_TEACHER = "far_below_teacher"  # sentence chrF2 under half of the teacher's
MIN_TEACHER_SHARE = 0.5
FAILURES = (*CHECKS, FAR_BELOW_TEACHER)
_EXAMPLES_PER_CHECK = 3


@dataclass(frozen=True)
class FailedExample:
    """A source whose translation failed."""

    source: str
    hypothesis: str


@dataclass(frozen=True)
class Success:
    """How many translations pass.

    Attributes:
        rate: share in [0, 1] that passes every output check and is not far below the teacher.
        teacher_rate: share of the teacher's translations that pass every output check: the ceiling.
        failures: how many sentences failed, by the first check they fail, in the order of the checks.
        examples: up to three of them for each check.
        teacher_failures: like `failures`, of the teacher.
        teacher_examples: like `examples`, of the teacher.
        second_tries: how many of the student's translations are second tries; see `Translator.translate`.
        teacher_second_tries: likewise of the teacher's.
    """

    rate: float
    teacher_rate: float
    failures: Mapping[str, int]
    examples: Mapping[str, tuple[FailedExample, ...]]
    teacher_failures: Mapping[str, int]
    teacher_examples: Mapping[str, tuple[FailedExample, ...]]
    second_tries: int = 0
    teacher_second_tries: int = 0


def success_rate(
    sources: Sequence[str],
    student_translations: Sequence[Translation],
    teacher_translations: Sequence[Translation],
    references: Sequence[Sequence[str]],
    target_lang: str,
) -> Success:
    """Judge a student's translations of a test set.

    Args:
        sources: 1 or more distinct sentences.
        student_translations: one for each source.
        teacher_translations: likewise.
        references: every reference of each source.
        target_lang: language the translations should be in.
    """
    teacher_checks = check_translations(sources, teacher_translations, target_lang=target_lang)
    checks = [
        check or _far_below(student.text, teacher.text, refs)
        for check, student, teacher, refs in zip(
            check_translations(sources, student_translations, target_lang=target_lang),
            student_translations,
            teacher_translations,
            references,
            strict=True,
        )
    ]
    failures, examples = _failures(sources, student_translations, checks)
    teacher_failures, teacher_examples = _failures(sources, teacher_translations, teacher_checks)
    return Success(
        rate=checks.count(None) / len(sources),
        teacher_rate=teacher_checks.count(None) / len(sources),
        failures=failures,
        examples=examples,
        teacher_failures=teacher_failures,
        teacher_examples=teacher_examples,
        second_tries=sum(translation.second_try for translation in student_translations),
        teacher_second_tries=sum(translation.second_try for translation in teacher_translations),
    )


def _failures(
    sources: Sequence[str], translations: Sequence[Translation], checks: Sequence[str | None]
) -> tuple[dict[str, int], dict[str, tuple[FailedExample, ...]]]:
    """Counts and examples of the failures, in the order of the checks."""
    failed: dict[str, list[FailedExample]] = {}
    for source, translation, check in zip(sources, translations, checks, strict=True):
        if check is not None:
            failed.setdefault(check, []).append(FailedExample(source, translation.text))
    found = [name for name in FAILURES if name in failed]
    return (
        {name: len(failed[name]) for name in found},
        {name: tuple(failed[name][:_EXAMPLES_PER_CHECK]) for name in found},
    )


def _far_below(student: str, teacher: str, references: Sequence[str]) -> str | None:
    if student == teacher:
        return None
    enough = MIN_TEACHER_SHARE * sentence_chrf(teacher, references)
    return None if sentence_chrf(student, references) >= enough else FAR_BELOW_TEACHER
