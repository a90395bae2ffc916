"""The language people are spoken to in: Chinese or English.

Every message stands once, in both languages, where it is used: ``tr(en="...", zh="...")``. A missing translation is
therefore a type error, and neither text can drift away from the code that prints it
(docs/decisions/0002-two-languages-in-place.md). Imported everywhere.
"""

import locale
import os
from collections.abc import Iterable
from typing import Literal

Language = Literal["en", "zh"]

_chosen: Language | None = None


def system_language() -> Language:
    """``zh`` where the user's locale is Chinese, else ``en`` (POSIX order: LC_ALL, LC_MESSAGES, LANG)."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def set_language(language: Language | None) -> None:
    """Fix the language of all later messages; None returns to the system's."""
    global _chosen
    _chosen = language


def language() -> Language:
    """The language messages are shown in now."""
    return _chosen or system_language()


def tr(*, en: str, zh: str) -> str:
    """The message in the user's language."""
    return zh if language() == "zh" else en


def listed(names: Iterable[str]) -> str:
    """Names one after the other, with the mark that lists have in the language."""
    return tr(en=", ", zh="、").join(names)


def colon() -> str:
    """What stands between a heading and its text."""
    return tr(en=": ", zh="：")
