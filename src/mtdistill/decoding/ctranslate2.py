"""Translating with CTranslate2."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding.conversion import (
    SHARED_VOCABULARY,
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    VOCABULARY_MAP,
    convert_model_to_ctranslate2,
    convert_to_ctranslate2,
    detail_of,
)
from mtdistill.decoding.model_bin import require_t5
from mtdistill.decoding.translator import DEFAULT_MAX_NEW_TOKENS, Translation, Translator
from mtdistill.errors import CheckpointError
from mtdistill.messages import tr

if TYPE_CHECKING:
    import ctranslate2
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

ComputeType = Literal["float32", "int8"]


class CTranslate2Translator(Translator):
    """Translates with CTranslate2; made by `open`, `from_folder` or `from_model`."""

    engine = "CTranslate2"

    def __init__(self, engine_model: ctranslate2.Translator, tokenizer: PreTrainedTokenizerFast, *, source_lang: str,
                 threads: int, max_new_tokens: int) -> None:  # fmt: skip
        super().__init__(tokenizer, source_lang, max_new_tokens)
        self._engine_model, self._threads = engine_model, threads
        self.precision = engine_model.compute_type.removesuffix("_float32")  # int8_float32: the rest is float32

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        source_lang: str,
        compute_type: ComputeType | None = None,
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Load a CTranslate2 folder with its tokenizer beside it.

        Args:
            folder: as `convert_to_ctranslate2` writes it.
            source_lang: language the sources are normalised for.
            compute_type: number format of the weights in use; None: the one they are stored in, or float32 where the
                processor cannot compute in it.
            threads: batches of one call that are translated at the same time, by a CPU thread each.
            max_new_tokens: highest cap of an output, end mark included.

        Raises:
            CheckpointError: not a CTranslate2 model, damaged, or without its tokenizer.
        """
        import ctranslate2

        try:
            tokenizer = load_tokenizer(folder)
            _require_vocabularies(folder, tokenizer, *require_t5(folder / "model.bin"))
            # A sentence is too little work for several threads: each takes batches of its own.
            with _torch_threads_kept():
                engine_model = ctranslate2.Translator(
                    str(folder),
                    device="cpu",
                    compute_type=compute_type or "default",
                    intra_threads=1,
                    inter_threads=threads,
                )
            translator = cls(
                engine_model, tokenizer, source_lang=source_lang, threads=threads, max_new_tokens=max_new_tokens
            )
            # CTranslate2 looks at most settings, and at the types of weights, only when it translates.
            translator._generate([tokenizer(["a"])["input_ids"][0]], 2, 2, 0)
        except Exception as error:  # transformers and CTranslate2 raise many kinds, RuntimeError and ValueError too
            raise CheckpointError(
                tr(
                    en=f"the CTranslate2 model could not be loaded: got {folder} ({detail_of(error)}), accepted a folder "
                    "with model.bin and its tokenizer. Export it again: mtdistill export PATH --format ctranslate2",
                    zh=f"无法加载 CTranslate2 模型：得到 {folder}（{detail_of(error)}），需要含有 model.bin 及其分词器的"
                    "文件夹。请重新导出：mtdistill export PATH --format ctranslate2",
                )
            ) from error
        return translator

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        source_lang: str,
        target_lang: str | None = None,
        compute_type: ComputeType = "float32",
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Like `open`, for a Hugging Face folder, which is converted; nothing is left on disk.

        With ``target_lang`` the model can write only pieces of that language, see `decoding.target_pieces`; without, all.

        Raises:
            CheckpointError: CTranslate2 cannot convert or load this model.
        """
        with tempfile.TemporaryDirectory() as scratch:
            convert_to_ctranslate2(folder, Path(scratch), languages=_languages(source_lang, target_lang))
            # The weights are read into memory here, so the converted folder is not needed afterwards.
            return cls.open(
                Path(scratch),
                source_lang=source_lang,
                compute_type=compute_type,
                threads=threads,
                max_new_tokens=max_new_tokens,
            )

    @classmethod
    def from_model(
        cls,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        *,
        source_lang: str,
        target_lang: str | None = None,
        compute_type: ComputeType = "float32",
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Like `from_folder`, for a model in memory, which is left as it is."""
        with tempfile.TemporaryDirectory() as scratch:
            languages = _languages(source_lang, target_lang)
            convert_model_to_ctranslate2(model, tokenizer, Path(scratch), languages=languages)
            return cls.open(
                Path(scratch),
                source_lang=source_lang,
                compute_type=compute_type,
                threads=threads,
                max_new_tokens=max_new_tokens,
            )

    @property
    def threads(self) -> int:
        """Threads a call of several batches uses."""
        return self._threads

    def candidates(
        self, sources: Sequence[str], *, beam_size: int, number: int, batch_size: int = 32
    ) -> list[list[Translation]]:
        """Several translations of each line: the n-best list of the beam search, best first.

        Args:
            sources: sentences, otherwise as for `translate`.
            beam_size: hypotheses kept in the search, at least ``number``.
            number: translations of each line; fewer where a line has none, or the search finds fewer.
            batch_size: as for `translate`.
        """
        return self._search(self._cleaned(sources), beam_size, batch_size, number)

    def _generate_all(
        self, batches: Sequence[tuple[list[list[int]], int]], beam_size: int, number: int, no_repeat_ngram_size: int
    ) -> Iterator[list[list[list[int]]]]:
        # All at once: every thread takes the next batch when it is free.
        waiting = [
            self._submit(source_ids, beam_size, cap, number, no_repeat_ngram_size) for source_ids, cap in batches
        ]
        return (self._output_ids(results) for results in waiting)

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        return [
            best
            for best, *_ in self._output_ids(
                self._submit(source_ids, beam_size, max_new_tokens, 1, no_repeat_ngram_size)
            )
        ]

    def _submit(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, number: int, no_repeat_ngram_size: int
    ) -> list[Any]:
        submitted: list[Any] = self._engine_model.translate_batch(
            [self._tokenizer.convert_ids_to_tokens(ids) for ids in source_ids],
            beam_size=beam_size,
            num_hypotheses=number,
            max_batch_size=0,  # one batch, as it comes
            max_input_length=0,  # by default everything after 1024 tokens is dropped without a word
            max_decoding_length=max_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            return_end_token=True,
            asynchronous=True,
        )
        return submitted

    def _output_ids(self, submitted: list[Any]) -> list[list[list[int]]]:
        to_ids: Any = self._tokenizer.convert_tokens_to_ids  # of a list: a list
        return [[to_ids(tokens) for tokens in each.result().hypotheses] for each in submitted]


def _languages(source_lang: str, target_lang: str | None) -> tuple[str, str] | None:
    return (source_lang, target_lang) if target_lang else None


def _require_vocabularies(folder: Path, tokenizer: PreTrainedTokenizerFast, source_rows: int, target_rows: int) -> None:
    """Refuse another vocabulary, or one that does not fit its table of embeddings.

    Tokens go to CTranslate2 as text. One beyond the table would be looked up all the same, and a special token that is missing
    is given the place after the last.
    """
    if (folder / VOCABULARY_MAP).exists():  # a damaged one crashes
        raise ValueError(VOCABULARY_MAP)
    shared = (folder / SHARED_VOCABULARY).exists()
    files = (SHARED_VOCABULARY, SHARED_VOCABULARY) if shared else (SOURCE_VOCABULARY, TARGET_VOCABULARY)
    source, target, config = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in (*files, "config.json")
    )
    own = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kept = {*target}
    fits = len(source) == source_rows and source[: len(own)] == own
    if not (fits and len(target) == target_rows and target == [piece for piece in source if piece in kept]):
        raise ValueError(tr(en=f"another vocabulary: {len(source)} pieces of the source, {len(target)} of the target, "
                               f"{len(own)} in the tokenizer, {source_rows} and {target_rows} rows",
                            zh=f"词表不一致：源语言 {len(source)} 个词元，目标语言 {len(target)} 个，分词器 {len(own)} 个，"
                               f"模型 {source_rows} 行和 {target_rows} 行"))  # fmt: skip
    missing = {config[f"{name}_token"] for name in ("bos", "eos", "unk", "decoder_start")} - kept
    if missing:
        raise ValueError(tr(en=f"special tokens that are no pieces: {missing}", zh=f"特殊词元不在词表中：{missing}"))


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """CTranslate2 sets the number of OpenMP threads of whoever loads a model, which PyTorch reads as its own."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
