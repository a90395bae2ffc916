"""Text in, translations out: what every engine has in common.

All engines get the same tokens, the same limits and the same search, so that their outputs can be compared line by
line. Whether a translation is any good is not known here: see `mtdistill.output_checks`. Imported by cli, distillation,
export and its neighbours; imports decoding.sentences. Knows nothing of torch.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from mtdistill.decoding.sentences import line_of, sentences_of
from mtdistill.text import loops, normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Cap of an output in tokens, end mark included: MAX_RATIO * source tokens + MAX_EXTRA. In Tatoeba zh-en (56,218 pairs,
# 6,000 pieces, either direction) no reference is longer; 2 and 8 would cut 16.
MAX_RATIO, MAX_EXTRA = 3, 10
DEFAULT_MAX_NEW_TOKENS = 256
# Longest source in tokens, end mark included: eight for each token of the longest output. Time and memory of attention grow
# with the square: the reference teacher takes 7 s and 0.3 GiB for 2,000 tokens, 87 s and 4 GiB for 8,000 (one thread).
MAX_SOURCE_TOKENS = 2048
# A second try may not write any three tokens twice: 2 and 4 did no better on the validation split (docs/experiments.md).
SECOND_TRY_NGRAM_SIZE = 3
# Sentences x longest source of a batch in tokens; a batch of very long lines is made smaller, so that memory holds.
_MAX_BATCH_TOKENS = 16_384
# A model can write any byte; a line end would make two lines of one, and an escape would reach the terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True)
class Translation:
    """One translated line.

    Attributes:
        text: one line without special tokens and control characters, "" for a source without visible characters.
        hit_length_cap: the model did not end a sentence within its cap, or only the first `MAX_SOURCE_TOKENS` of it were
            read; the text is cut there.
        tokens: of the output, end marks included.
        second_try: the first output of a sentence went round in circles, or did not end; this one does neither.
    """

    text: str
    hit_length_cap: bool = False
    tokens: int = 0
    second_try: bool = False


class Translator(ABC):
    """What translates lines of text.

    Attributes:
        engine: "PyTorch", "CTranslate2" or "ONNX Runtime".
        precision: number format of the weights, such as "float32" or "int8".
        source_lang: language the sources are normalised for.
    """

    engine: ClassVar[str]
    precision: str

    def __init__(self, tokenizer: PreTrainedTokenizerFast, source_lang: str, max_new_tokens: int) -> None:
        self.source_lang = source_lang
        self._tokenizer, self._max_new_tokens = tokenizer, max_new_tokens

    @property
    @abstractmethod
    def threads(self) -> int:
        """CPU threads a call uses."""

    def translate(
        self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32, second_try: bool = True
    ) -> list[Translation]:
        """Translate lines, each sentence by itself; tokenisation is included, the order is kept.

        Args:
            sources: any text; lines without a visible character become "" without a call of the engine.
            beam_size: hypotheses kept in the search; 1 is greedy.
            batch_size: sentences that go through the engine at once; lines of similar length go together.
            second_try: what loops or does not end is translated again without repetitions of `SECOND_TRY_NGRAM_SIZE` tokens,
                and replaced if that is better. Without it a model shows what it says by itself.
        """
        lines = [sentences_of(text, self.source_lang) for text in self._cleaned(sources)]
        sentences = [sentence for line in lines for sentence in line]
        translations = [candidates[0] for candidates in self._search(sentences, beam_size, batch_size)]
        if second_try:
            self._try_again(sentences, translations, beam_size, batch_size)
        found = iter(translations)
        return [_together(list(islice(found, len(line)))) for line in lines]

    def _try_again(
        self, sentences: Sequence[str], translations: list[Translation], beam_size: int, batch_size: int
    ) -> None:
        """Replace the translations that fail by second tries that do not."""
        failed = [
            row
            for row, sentence in enumerate(sentences)
            # What is longer is no sentence, and takes seconds.
            if len(sentence) <= MAX_SOURCE_TOKENS and _fails(sentence, translations[row])
        ]
        again = self._search(
            [sentences[row] for row in failed], beam_size, batch_size, no_repeat_ngram_size=SECOND_TRY_NGRAM_SIZE
        )
        for row, (translation, *_) in zip(failed, again, strict=True):
            if not _fails(sentences[row], translation):
                translations[row] = replace(translation, second_try=True)

    def _cleaned(self, sources: Sequence[str]) -> list[str]:
        # Lone surrogates, which come from command lines that are not UTF-8, become "?".
        encodable = (source.encode("utf-8", "replace").decode("utf-8") for source in sources)
        return [normalise(source, self.source_lang) for source in encodable]

    def _search(
        self, texts: Sequence[str], beam_size: int, batch_size: int, number: int = 1, no_repeat_ngram_size: int = 0
    ) -> list[list[Translation]]:
        """The best translations that the search finds for each cleaned text, best first.

        For `no_repeat_ngram_size` see `_generate`.
        """
        wanted = [index for index, text in enumerate(texts) if is_visible(text)]
        translations = [[Translation("")] for _ in texts]
        if not wanted:
            return translations
        source_ids = self._encoded([texts[index] for index in wanted])
        caps_of = [self._cap(len(ids)) for ids in source_ids]
        batches = list(_batches([len(ids) for ids in source_ids], batch_size))
        asked = [
            ([self._readable(source_ids[row]) for row in batch], max(caps_of[row] for row in batch))
            for batch in batches
        ]
        for batch, outputs in zip(
            batches, self._generate_all(asked, beam_size, number, no_repeat_ngram_size), strict=True
        ):
            # Every line is held to its own cap, whatever shares its batch.
            rows = [row for row, candidates in zip(batch, outputs, strict=True) for _ in candidates]
            found = (ids for candidates in outputs for ids in candidates)
            kept = [ids[: caps_of[row]] for row, ids in zip(rows, found, strict=True)]
            lines = self._tokenizer.batch_decode(kept, skip_special_tokens=True)
            for row in batch:
                translations[wanted[row]] = []
            for row, ids, line in zip(rows, kept, lines, strict=True):
                unfinished = self._tokenizer.eos_token_id not in ids or len(source_ids[row]) > MAX_SOURCE_TOKENS
                text = _CONTROL.sub(" ", line).strip()
                translations[wanted[row]].append(Translation(text, unfinished, len(ids)))
        return translations

    def _generate_all(
        self, batches: Sequence[tuple[list[list[int]], int]], beam_size: int, number: int, no_repeat_ngram_size: int
    ) -> Iterator[list[list[list[int]]]]:
        """Output ids of every batch, given as its sources and their highest cap; an engine may run several at once.

        For each source a list of up to ``number`` outputs, best first; an engine that knows only the best gives that.
        """
        for source_ids, max_new_tokens in batches:
            yield [[ids] for ids in self._generate(source_ids, beam_size, max_new_tokens, no_repeat_ngram_size)]

    @abstractmethod
    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        """Output ids of each source, with the end mark where the model set one.

        No `no_repeat_ngram_size` tokens in a row come twice in an output; 0: anything may.
        """

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """What the tokenizer makes of them; transformers' own call takes a twentieth of the time of a single sentence."""
        backend = self._tokenizer.backend_tokenizer
        backend.no_padding()  # somebody may have used it with
        backend.no_truncation()
        return [each.ids for each in backend.encode_batch(list(texts))]

    def _readable(self, source_ids: list[int]) -> list[int]:
        if len(source_ids) <= MAX_SOURCE_TOKENS:
            return source_ids
        return [*source_ids[: MAX_SOURCE_TOKENS - 1], source_ids[-1]]  # with its end mark

    def _cap(self, source_tokens: int) -> int:
        return min(MAX_RATIO * source_tokens + MAX_EXTRA, self._max_new_tokens)


def _together(sentences: Sequence[Translation]) -> Translation:
    """The translation of a line from those of its sentences."""
    if len(sentences) == 1:
        return sentences[0]
    return Translation(
        text=line_of([each.text for each in sentences]),
        hit_length_cap=any(each.hit_length_cap for each in sentences),
        tokens=sum(each.tokens for each in sentences),
        second_try=any(each.second_try for each in sentences),
    )


def _fails(source: str, translation: Translation) -> bool:
    return translation.hit_length_cap or loops(source, translation.text)


def is_visible(text: str) -> bool:
    r"""Whether there is anything to translate: more than spaces, control characters and marks without width.

    >>> is_visible("a"), is_visible(" \u200b\u202e\x00")
    (True, False)
    """
    return any(not (c.isspace() or unicodedata.category(c) in ("Cc", "Cf")) for c in text)


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of each batch, longest lines first: what does not fit into memory fails at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[batch[0]] > _MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
