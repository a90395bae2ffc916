"""What is plainly wrong with a translation, seen without a reference: the output checks of the success rate.

A good translation must pass: of the 56,218 references in Tatoeba zh-en, 1 fails a check in English and 10 in Chinese.
`same_output`, which looks at a whole test set, fails 0.5 % and 1.1 % of them. Imported by cli, distillation,
evaluation, health and report; imports decoding.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from mtdistill.decoding import Translation
from mtdistill.messages import tr
from mtdistill.text import UNSPACED, loops, match_key, script_share, units, word_count

CHECKS = ("empty", "failure_marker", "length_cap", "loop", "copy", "wrong_script", "same_output")
FAILURE_MARKERS = {"en": "[translation failed]", "zh": "[翻译失败]"}

MIN_LETTERS = 4  # for a judgement on copying and script; a Han character counts as two
MIN_COPIED_WORDS = 3  # names and "OK" may stay as they are where both languages share a script
MIN_SCRIPT_SHARE = 0.5
SAME_OUTPUT_SOURCES = 5


def failure_marker() -> str:
    """What is shown in place of a translation that failed, in the user's language. Never written into data."""
    return tr(**FAILURE_MARKERS)


def check_translation(source: str, hypothesis: str, *, target_lang: str, hit_length_cap: bool = False) -> str | None:
    """The first check that a translation fails, one of `CHECKS`; None when it passes all.

    Does not look at other translations (`check_translations` does) and does not judge the meaning.

    Args:
        source: what was translated.
        hypothesis: the translation.
        target_lang: language it should be in; languages with unknown script are not checked for it.
        hit_length_cap: the model was stopped before it had finished.

    >>> check_translation("他说不。", "no, no, no, no, no", target_lang="en")
    'loop'
    >>> check_translation("不，不，不！", "No, no, no!", target_lang="en") is None
    True
    """
    if not match_key(hypothesis) or (_has_letters(source) and not _has_letters(hypothesis)):
        return "empty"
    if any(marker in hypothesis for marker in FAILURE_MARKERS.values()):
        return "failure_marker"
    if hit_length_cap:
        return "length_cap"
    if loops(source, hypothesis):
        return "loop"
    if _weight(hypothesis) >= MIN_LETTERS:
        if match_key(source) == match_key(hypothesis) and (
            word_count(source) > MIN_COPIED_WORDS or _script_share(source, target_lang) < MIN_SCRIPT_SHARE
        ):
            return "copy"
        if _script_share(hypothesis, target_lang) < MIN_SCRIPT_SHARE:
            return "wrong_script"
    return None


def check_translations(
    sources: Sequence[str], translations: Sequence[Translation], *, target_lang: str
) -> list[str | None]:
    """`check_translation` for each line, and `same_output` where 5 or more different sources share one text."""
    sharing: defaultdict[str, set[str]] = defaultdict(set)
    for source, translation in zip(sources, translations, strict=True):
        sharing[translation.text].add(match_key(source))
    return [
        check_translation(source, translation.text, target_lang=target_lang, hit_length_cap=translation.hit_length_cap)
        or ("same_output" if len(sharing[translation.text]) >= SAME_OUTPUT_SOURCES else None)
        for source, translation in zip(sources, translations, strict=True)
    ]


def _has_letters(text: str) -> bool:
    return any(c.isalnum() for c in text)


def _weight(text: str) -> int:
    """Letters, with those of unspaced scripts counted twice."""
    return sum(2 if re.match(f"[{UNSPACED}]", c) else 1 for c in text if c.isalpha())


def _script_share(text: str, lang: str) -> float:
    """Share of the units in the language's script: a foreign name is one unit however long it is."""
    return script_share("".join(unit[0] for unit in units(text)), lang)
