"""Which of the teacher's translations become training targets.

Imported by cli, distillation.forecast, distillation.pseudo_rows and distillation.pseudo_targets; imports decoding,
evaluation and output_checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtdistill.decoding import CTranslate2Translator, Translation
from mtdistill.evaluation import sentence_chrf
from mtdistill.output_checks import check_translation

Pair = tuple[str, list[str]]  # a source and its gold texts


@dataclass(frozen=True)
class Search:
    """How the teacher translates.

    Attributes:
        beam_size: hypotheses kept in the search.
        n_best: translations to choose from, at most `beam_size`.
        kept: of these, written for each source, at most `n_best`.
        share: of the sources that are translated, in (0, 1]; which ones is drawn by `seed`.
        seed: of that draw.
    """

    beam_size: int = 5
    n_best: int = 4
    kept: int = 1
    share: float = 1.0
    seed: int = 1


DEFAULT_SEARCH = Search()


def search_for(kept: int) -> Search:
    """The usual search, made wider where it would not find so many translations of each source."""
    return replace(
        DEFAULT_SEARCH,
        beam_size=max(kept, DEFAULT_SEARCH.beam_size),
        n_best=max(kept, DEFAULT_SEARCH.n_best),
        kept=kept,
    )


@dataclass(frozen=True)
class Choice:
    """A translation to be written, or that of a source none of whose translations is fit to be.

    Attributes:
        source: what was translated.
        target: the translation.
        rank: among the n best, 0 for the best.
        chrf: sentence chrF2 to the gold text; None without one.
        failure: the output check it failed; None: fit to be written.
    """

    source: str
    target: str
    rank: int
    chrf: float | None
    failure: str | None


def choose(pairs: Sequence[Pair], translator: CTranslate2Translator, target_lang: str, search: Search) -> list[Choice]:
    """Translate the sources, and choose of each one's translations; in their order, at least one for each."""
    sources = [source for source, _ in pairs]
    found = translator.candidates(sources, beam_size=search.beam_size, number=search.n_best)
    return [
        choice
        for (source, gold), each in zip(pairs, found, strict=True)
        for choice in _best(source, gold, each, target_lang, search.kept)
    ]


def _best(
    source: str, gold: Sequence[str], candidates: Sequence[Translation], target_lang: str, kept: int
) -> list[Choice]:
    """The candidates that are closest to the gold text, of those that pass the checks; the best one where none does."""
    failures = [
        check_translation(source, each.text, target_lang=target_lang, hit_length_cap=each.hit_length_cap)
        for each in candidates
    ]
    passing = [rank for rank, failure in enumerate(failures) if failure is None]
    if not passing:
        return [Choice(source, candidates[0].text, 0, None, failures[0])]
    found = dict[str, Choice]()  # the search may end in one text twice
    for rank in passing:
        text = candidates[rank].text
        found.setdefault(text, Choice(source, text, rank, sentence_chrf(text, gold) if gold else None, None))
    return sorted(found.values(), key=lambda choice: -(choice.chrf or 0.0))[:kept]
