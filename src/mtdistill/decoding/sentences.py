"""One line into its sentences, and their translations into one line again.

Models here have seen single sentences: of a line of two the reference teacher translates the first and drops the other
(docs/experiments.md, 2026-11-27). Imported by decoding.translator.
"""

import unicodedata
from collections.abc import Sequence

import sentencex

from mtdistill.text import base_language


def sentences_of(text: str, lang: str) -> list[str]:
    """The sentences of a line, at least one; what has no letter, such as the number of a list, stays with its sentence.

    Args:
        text: a line that can be written as UTF-8.
        lang: language of the text; the rules of punctuation of an unknown one are those of English.

    >>> sentences_of("你好。我是汤姆！", "zh"), sentences_of("Mr. Smith left. 2. Who?", "en")
    (['你好。', '我是汤姆！'], ['Mr. Smith left.', '2. Who?'])
    """
    sentences: list[str] = []
    waiting = ""
    for part in sentencex.segment(base_language(lang), text):
        waiting += part
        if any(c.isalpha() for c in part):
            sentences.append(waiting.strip())
            waiting = ""
    if not sentences:
        return [text]
    if waiting.strip():
        sentences[-1] += " " + waiting.strip()
    return sentences


def line_of(texts: Sequence[str]) -> str:
    """Sentences in one line, with a space after those that do not end in full width.

    >>> line_of(["Hello.", "Who?"]), line_of(["你好。", "谁？"])
    ('Hello. Who?', '你好。谁？')
    """
    line = ""
    for text in filter(None, texts):
        wide = not line or unicodedata.east_asian_width(line[-1]) in "WF"
        line += text if wide else " " + text
    return line
