"""Which of several labels (column names, JSON keys, file suffixes, xml:lang) names which of the two languages.

Imported by data.readers and data.tmx. Knows no file format.
"""

from collections.abc import Iterable

from mtdistill.text import base_language


def find_languages(labels: Iterable[str], source_lang: str, target_lang: str) -> tuple[str, str] | None:
    """The labels of the source and of the target language; None where one of the two is missing.

    A label that is spelt like the language wins over one of the same base language; of several, the first.

    >>> find_languages(["fr", "en-GB", "zh_CN"], "zh", "en")
    ('zh_CN', 'en-GB')
    """
    labels = tuple(labels)
    source, target = find_language(labels, source_lang, target_lang), find_language(labels, target_lang, source_lang)
    return None if source is None or target is None or source == target else (source, target)


def find_columns(labels: Iterable[str], source_lang: str, target_lang: str) -> tuple[str, str] | None:
    """Like `find_languages`, for labels that may also be ``source`` and ``target``, in any case."""
    labels = tuple(labels)
    folded = {label.strip().casefold(): label for label in labels}
    if {"source", "target"} <= folded.keys():
        return folded["source"], folded["target"]
    return find_languages(labels, source_lang, target_lang)


def find_language(labels: Iterable[str], lang: str, other_lang: str) -> str | None:
    """The label of one language, never one that is spelt like the other language (``zh-CN`` and ``zh-TW``)."""
    related = None
    for label in labels:
        spelt = spelling(label)
        if spelt == spelling(lang):
            return label
        if related is None and base_language(spelt) == base_language(lang) and spelt != spelling(other_lang):
            related = label
    return related


def spelling(label: str) -> str:
    """What is compared of a label: neither case nor the kind of dash counts."""
    return label.strip().lower().replace("_", "-")
