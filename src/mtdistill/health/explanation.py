"""The form of an explanation, and phrases that several share.

Imported by health.set_up_words, health.training_words and health.wording; imports health.finding.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtdistill.health.finding import Finding
from mtdistill.messages import tr

Say = Callable[[Finding], str]


@dataclass(frozen=True)
class Explanation:
    """Three sentences about a finding."""

    seen: Say
    meaning: Say
    advice: Say


def lower_rate(_: Finding) -> str:
    """Advice."""
    return tr(
        en="Lower training.learning_rate (a third is a good first try), or raise kd.temperature.",
        zh="请降低 training.learning_rate（可先试三分之一），或提高 kd.temperature。",
    )


def look_at_data(_: Finding) -> str:
    """Advice."""
    return tr(
        en="Look at these pairs in the data: source and target have to be translations of each other.",
        zh="请检查数据：每个句对的原文和译文必须互为翻译。",
    )


def more_training(_: Finding) -> str:
    """Advice."""
    return tr(
        en="If it does not improve by itself: more training.epochs, a lower training.learning_rate, or a wider student "
        "(student.width_ratio).",
        zh="如果没有自行好转：增加 training.epochs、降低 training.learning_rate，或使用更宽的学生模型（student.width_ratio）。",
    )


def number(finding: Finding, name: str) -> str:
    """A figure with three digits."""
    return f"{finding.figures[name]:.3g}"


def share(finding: Finding, name: str) -> str:
    """A figure in percent."""
    return f"{finding.figures[name]:.0%}"
