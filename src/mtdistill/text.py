"""What one line of text is: its normal form, its identity, the script it is written in, and whether it goes round in circles.

Pure functions over strings, shared by data cleaning and by the checks on translations. Imported by data, decoding,
distillation, evaluation, health, output_checks and report.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise

import regex

# Scripts as the first word(s) of Unicode character names. Languages that are not listed are not checked.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "bg": ("CYRILLIC",),
    "el": ("GREEK",),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "th": ("THAI",),
    **dict.fromkeys(
        [
            "en",
            "de",
            "fr",
            "es",
            "it",
            "pt",
            "nl",
            "sv",
            "da",
            "no",
            "fi",
            "pl",
            "cs",
            "sk",
            "ro",
            "hu",
            "tr",
            "vi",
            "id",
            "et",
            "lv",
            "lt",
            "ca",
            "is",
        ],
        ("LATIN",),
    ),
}

_TRADITIONAL = {"hant", "tw", "hk", "mo"}  # script and regions

# Characters of scripts without spaces (Thai, Lao, Burmese, Khmer, kana, Han) stand alone; other letters and digits form
# words, with the marks that many scripts write their vowels with.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]"
_REST = rf"[[\p{{L}}\p{{N}}\p{{Mn}}\p{{Mc}}]--[{UNSPACED}]]"
_UNITS = regex.compile(rf"[{UNSPACED}]|{_LETTER}{_REST}*(?:['’]{_REST}+)*", regex.VERSION1)
_LETTERS = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{Mn}\p{Mc}]*")
# Vowel signs that Hebrew and Arabic leave out as often as not, the dot that is left of a capital i in Turkish, and what
# chooses the form of a character.
_OPTIONAL = re.compile("[\u0307\ufe00-\ufe0f\u0591-\u05c7\u064b-\u0652\u0670]")

MIN_LOOP = 4  # repetitions; below it short, good sentences would fail
LOOP_EXCESS = 2  # repetitions beyond those of the source
UNITS_PER_REPETITION = 12  # in long text, what comes back less often than this is no loop
_INNER_LOOP = re.compile(r"([^\W\d_]{2,6}?)\1+")  # "hahahaha", "mymymymy" within a word

# UTF-8 read as Latin-1 or Windows-1252: a letter of two bytes, of three (kana and Han among them), or a curved quote.
# One character after ä or â is sound text, such as a Finnish word before a closing quotation mark.
_TWICE = re.compile("[ÃÂ][\x80-\xbf]|[âä][\x80-\xbf]{2}|â€")
_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str, lang: str) -> str:
    """NFKC, one space between words, and simplified characters for Chinese (OpenCC t2s).

    Lone surrogates, which no encoding can write, become the replacement character.
    """
    text = _SURROGATE.sub("\ufffd", text)
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return _to_simplified(text) if base_language(lang) == "zh" else text


def normalise_target(text: str, lang: str) -> str:
    """Like `normalise`, but traditional characters stay where the language is written with them: ``zh-TW``, ``zh-Hant``.

    Sources become simplified all the same, so that a model need not know both.
    """
    return normalise(text, "und" if writes_traditional(lang) else lang)


def writes_traditional(lang: str) -> bool:
    """Whether a language code asks for traditional Chinese.

    >>> [writes_traditional(lang) for lang in ("zh-TW", "zh_Hant", "zh-Hans-HK", "zh", "ja")]
    [True, True, False, False, False]
    """
    tags = set(lang.lower().replace("_", "-").split("-"))
    return base_language(lang) == "zh" and not _TRADITIONAL.isdisjoint(tags) and "hans" not in tags


def base_language(lang: str) -> str:
    """``zh`` for ``zh``, ``zh-CN``, ``zh_Hans`` and so on."""
    return lang.lower().replace("_", "-").split("-")[0]


def match_key(text: str) -> str:
    """What makes two lines the same sentence: letters with their marks and digits only, case folded.

    Falls back to the text itself where there are none, so that "?" and "!" stay different.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(_LETTERS.findall(_OPTIONAL.sub("", folded))) or folded.strip()


def units(text: str) -> list[str]:
    """Words, case folded; of scripts without spaces, single characters.

    >>> units("Tom 说: OK!")
    ['tom', '说', 'ok']
    """
    found: list[str] = _UNITS.findall(text.casefold())
    return found


def word_count(text: str) -> float:
    """Length in words; a character of a script without spaces is half a word.

    >>> word_count("Tom 说: OK!")
    2.5
    """
    return sum(0.5 if re.match(f"[{UNSPACED}]", unit) else 1 for unit in units(text))


def loops(source: str, hypothesis: str) -> bool:
    """Whether a translation says the same again and again, and its source does not.

    After Raunak et al. 2021 (arXiv:2104.06683), with thresholds for short sentences.

    >>> loops("他说不。", "no, no, no, no, no"), loops("不，不，不！", "No, no, no!")
    (True, False)
    """
    found = units(hypothesis)
    # Most text ends here: too few of its units come back, and none is long enough, for a loop.
    if len(found) - len(set(found)) < MIN_LOOP - 1 and max(map(len, found), default=0) < 2 * MIN_LOOP:
        return False
    repetitions = _repetitions(found)
    return repetitions >= max(MIN_LOOP, len(found) / UNITS_PER_REPETITION) and (
        repetitions > _repetitions(units(source)) + LOOP_EXCESS
    )


def _repetitions(found: Sequence[str]) -> int:
    """How often the most frequent pair of neighbours stands among the units, or one unit or syllable in a row."""
    in_a_row = max((len(list(run)) for _, run in groupby(found)), default=0)
    pairs = max(Counter(pairwise(found)).values(), default=0)
    syllables = max((len(m[0]) // len(m[1]) for unit in found for m in _INNER_LOOP.finditer(unit)), default=0)
    return max(in_a_row, pairs, syllables)


def script_share(text: str, lang: str) -> float:
    """Share in [0, 1] of the letters that belong to the language's script.

    1.0 where there are no letters, and for languages whose script is not known here.
    """
    expected = _SCRIPTS.get(base_language(lang))
    letters = [c for c in text if c.isalpha()]
    if expected is None or not letters:
        return 1.0
    return sum(_in_scripts(c, expected) for c in letters) / len(letters)


def written_only_in(text: str, lang: str, other: str) -> bool:
    """Whether a text has a letter that one language is written with and the other is not.

    Latin letters do not count, since names come in them everywhere; nor does anything where a script is not known here.

    >>> written_only_in("▁你", "zh", "en"), written_only_in("▁OK", "en", "zh"), written_only_in("か", "ja", "zh")
    (True, False, True)
    """
    scripts, others = (_SCRIPTS.get(base_language(each), ()) for each in (lang, other))
    only = tuple(script for script in scripts if others and script not in (*others, "LATIN"))
    return any(c.isalpha() and _in_scripts(c, only) for c in text)


def shows_encoding_damage(text: str) -> bool:
    """Replacement characters, control characters, or UTF-8 that was once read as Latin-1 (``Ã©``, ``â€™``)."""
    if "\ufffd" in text or any(unicodedata.category(c) in ("Cc", "Cs", "Co") for c in text):
        return True
    return _TWICE.search(text) is not None


@cache
def _in_scripts(character: str, scripts: tuple[str, ...]) -> bool:
    return unicodedata.name(character, "").startswith(scripts)


def _to_simplified(text: str) -> str:
    return str(_opencc().convert(text))


@cache
def _opencc():  # type: ignore[no-untyped-def]
    from opencc import OpenCC

    return OpenCC("t2s")
