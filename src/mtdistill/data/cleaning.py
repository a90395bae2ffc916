"""Which pairs are dropped before training, and why.

Each rule is a named predicate that can be switched off; a pair is counted under the first rule that drops it.
Works on a stream, so it runs in constant memory apart from one 16-byte hash per kept pair for the duplicates rule.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mtdistill.text import match_key, normalise, normalise_target, script_share, shows_encoding_damage

MAX_CHARACTERS = 1000  # far beyond any sentence; keeps a 1 MB line from reaching the tokenizer
# English written out is about 3.5 times as many characters as the same in Chinese (measured on Tatoeba zh-en: median
# 3.4, 99.9 % below 9), so the bound must be loose; short lines vary most and get 20 characters for free.
MAX_LENGTH_RATIO = 9.0
FREE_CHARACTERS = 20
MIN_SCRIPT_SHARE = 0.5


class Pair(NamedTuple):
    """One source line and its translation."""

    source: str
    target: str


@dataclass
class CleaningReport:
    """How many pairs came in, how many were kept, and how many each rule dropped."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def _too_long(pair: Pair, _languages: tuple[str, str]) -> bool:
    return max(len(pair.source), len(pair.target)) > MAX_CHARACTERS


def _length_ratio(pair: Pair, _languages: tuple[str, str]) -> bool:
    short, long = sorted((len(pair.source), len(pair.target)))
    return long - FREE_CHARACTERS > short * MAX_LENGTH_RATIO


def _copy(pair: Pair, _languages: tuple[str, str]) -> bool:
    return match_key(pair.source) == match_key(pair.target)


def _wrong_script(pair: Pair, languages: tuple[str, str]) -> bool:
    return any(script_share(text, lang) < MIN_SCRIPT_SHARE for text, lang in zip(pair, languages, strict=True))


def _encoding_damage(pair: Pair, _languages: tuple[str, str]) -> bool:
    return any(map(shows_encoding_damage, pair))


def _empty(pair: Pair, _languages: tuple[str, str]) -> bool:
    return not (pair.source and pair.target)


RULES: dict[str, Callable[[Pair, tuple[str, str]], bool]] = {
    "empty": _empty,
    "too_long": _too_long,
    "encoding_damage": _encoding_damage,
    "length_ratio": _length_ratio,
    "copy": _copy,
    "wrong_script": _wrong_script,
}
RULE_NAMES = (*RULES, "duplicate")


def clean(
    pairs: Iterable[Pair], source_lang: str, target_lang: str, rules: Iterable[str] = RULE_NAMES
) -> tuple[Iterator[Pair], CleaningReport]:
    """Normalise pairs and drop those that a rule objects to.

    Args:
        pairs: raw pairs; normalised here (see `mtdistill.text.normalise` and `normalise_target`).
        source_lang: language code of the sources, for the script rule.
        target_lang: language code of the targets.
        rules: names out of `RULE_NAMES` that apply; "empty" always does.

    Returns:
        The kept pairs as a stream, and the report, which is complete once the stream has been read.
    """
    report = CleaningReport()
    chosen = {*rules, "empty"}
    active = {name: test for name, test in RULES.items() if name in chosen}
    return _kept(pairs, (source_lang, target_lang), active, "duplicate" in chosen, report), report


def _kept(
    pairs: Iterable[Pair],
    languages: tuple[str, str],
    active: dict[str, Callable[[Pair, tuple[str, str]], bool]],
    drop_duplicates: bool,
    report: CleaningReport,
) -> Iterator[Pair]:
    seen: set[bytes] = set()
    for raw in pairs:
        report.read += 1
        # Damage is looked for before normalisation, which would hide control characters.
        pair = Pair(normalise(raw.source, languages[0]), normalise_target(raw.target, languages[1]))
        reason = next(
            (name for name, test in active.items() if test(raw if name == "encoding_damage" else pair, languages)), None
        )
        if reason is None and drop_duplicates:
            identity = hashlib.blake2b("\t".join(pair).encode(), digest_size=16).digest()
            if identity in seen:
                reason = "duplicate"
            seen.add(identity)
        if reason is None:
            report.kept += 1
            yield pair
        else:
            report.dropped[reason] += 1
