"""The pieces a translation can be made of: those only the source is written with are left out of a decoder's tables.

A joint vocabulary holds both languages, and the output layer reads all of it for every token; of the reference
teacher's 6,000 pieces 3,569 are Chinese. What is left is a shortlist in Marian's sense, the same for every sentence.
Greedy translations stay the same unless a model writes in the source's script. Imported by decoding.conversion.
"""

from collections.abc import Sequence
from typing import Any

from mtdistill.text import written_only_in


def target_pieces(pieces: Sequence[str], source_lang: str, target_lang: str) -> list[str]:
    """The pieces of a vocabulary without those that have a letter only the source language is written with.

    >>> target_pieces(["</s>", "▁the", "你", "3"], "zh", "en"), target_pieces(["▁the", "你"], "en", "zh")
    (['</s>', '▁the', '3'], ['▁the', '你'])
    """
    return [piece for piece in pieces if not written_only_in(piece, source_lang, target_lang)]


def keep_target_pieces(spec: Any, source_lang: str, target_lang: str) -> None:
    """Leave all other pieces out of what a model about to be converted reads and writes as target text.

    Args:
        spec: a ctranslate2 `TransformerSpec` with one vocabulary; changed in place.
        source_lang: language of the texts to translate.
        target_lang: language of the translations.
    """
    (pieces,) = spec._vocabularies["target"]
    kept = target_pieces(pieces, source_lang, target_lang)
    if len(kept) == len(pieces):
        return
    spec._vocabularies["target"] = [kept]
    place = {piece: row for row, piece in enumerate(pieces)}
    rows = [place[piece] for piece in kept]
    for table in (spec.decoder.embeddings, spec.decoder.projection):
        table.weight = table.weight[rows]
