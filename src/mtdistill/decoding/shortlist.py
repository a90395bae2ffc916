"""The pieces a translation can be made of: those only the source is written with are left out of the search.

A joint vocabulary holds both languages, and the output layer reads all of it for every token; of the reference teacher's
6,000 pieces 3,569 are Chinese. What is left is a shortlist in Marian's sense, the same for every sentence. Greedy
translations stay the same unless a model writes in the source's script. Imported by decoding.conversion and
decoding.ctranslate2; imports text, messages.
"""

from collections.abc import Sequence
from pathlib import Path

from mtdistill.messages import tr
from mtdistill.text import written_only_in

SHORTLIST_FILE = "vmap.txt"  # the name under which CTranslate2 looks for its vocabulary map


def shortlist(pieces: Sequence[str], source_lang: str, target_lang: str) -> list[str]:
    """The pieces of a vocabulary without those that have a letter only the source language is written with.

    >>> shortlist(["</s>", "▁the", "你", "3"], "zh", "en"), shortlist(["▁the", "你"], "en", "zh")
    (['</s>', '▁the', '3'], ['▁the', '你'])
    """
    return [piece for piece in pieces if not written_only_in(piece, source_lang, target_lang)]


def write_shortlist(folder: Path, pieces: Sequence[str], source_lang: str, target_lang: str) -> None:
    """Put the shortlist into a CTranslate2 folder; nothing is written where it would hold every piece.

    Args:
        folder: takes the file `SHORTLIST_FILE`.
        pieces: the whole vocabulary.
        source_lang: language of the texts to translate.
        target_lang: language of the translations.
    """
    kept = shortlist(pieces, source_lang, target_lang)
    if len(kept) < len(pieces):
        # One line: after the empty source phrase, which every sentence holds, its candidates. Spaces part them.
        line = "\t" + " ".join(piece for piece in kept if piece.split() == [piece])
        (folder / SHORTLIST_FILE).write_text(line + "\n", encoding="utf-8")


def require_shortlist(folder: Path, pieces: Sequence[str]) -> None:
    """Refuse a file in the shortlist's place that `write_shortlist` did not write; CTranslate2 would crash, or write nothing.

    Raises:
        ValueError: it is not one line, or has no pieces, or others than the vocabulary.
        OSError: it cannot be read.
    """
    file = folder / SHORTLIST_FILE
    if not file.exists():
        return
    phrase, _, candidates = file.read_text(encoding="utf-8").partition("\t")
    found = candidates.removesuffix("\n").split(" ")
    if phrase or not set(found) <= set(pieces):
        raise ValueError(tr(en=f"{SHORTLIST_FILE} is no list of its pieces", zh=f"{SHORTLIST_FILE} 不是其词元的列表"))
