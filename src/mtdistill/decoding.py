"""Text in, translations out: one interface over a model in PyTorch and the same model in CTranslate2.

Both engines get the same tokens, the same limits and the same search, so that their outputs can be compared line by
line. Whether a translation is any good is not known here: see `mtdistill.output_checks`.
Imported by output_checks, evaluation and everything above; imports text, messages, errors.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mtdistill.errors import CheckpointError
from mtdistill.messages import tr
from mtdistill.text import normalise

if TYPE_CHECKING:
    import ctranslate2
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

ComputeType = Literal["float32", "int8"]

# Cap of an output in tokens, end mark included: MAX_RATIO * source tokens + MAX_EXTRA. In Tatoeba zh-en (56,218 pairs,
# 6,000 pieces, either direction) no reference is longer; 2 and 8 would cut 16.
MAX_RATIO, MAX_EXTRA = 3, 10
DEFAULT_MAX_NEW_TOKENS = 256
# Sentences x longest source of a batch in tokens; a batch of very long lines is made smaller, so that memory holds.
_MAX_BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Translation:
    """One translated line.

    Attributes:
        text: without special tokens, "" for an empty source.
        hit_length_cap: the model did not end the sentence within its cap, and the text is cut there.
    """

    text: str
    hit_length_cap: bool = False


class Translator(ABC):
    """What translates lines of text.

    Attributes:
        engine: "PyTorch" or "CTranslate2".
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

    def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
        """Translate lines; tokenisation is included, the order is kept.

        Args:
            sources: any text; lines without a visible character become "" without a call of the engine.
            beam_size: hypotheses kept in the search; 1 is greedy.
            batch_size: sentences that go through the engine at once; lines of similar length go together.
        """
        # Lone surrogates, which come from command lines that are not UTF-8, become "?".
        encodable = [source.encode("utf-8", "replace").decode("utf-8") for source in sources]
        texts = [normalise(source, self.source_lang) for source in encodable]
        wanted = [index for index, text in enumerate(texts) if text]
        translations = [Translation("")] * len(texts)
        if not wanted:
            return translations
        source_ids: list[list[int]] = self._tokenizer([texts[index] for index in wanted])["input_ids"]
        for batch in _batches([len(ids) for ids in source_ids], batch_size):
            caps = [self._cap(len(source_ids[row])) for row in batch]
            outputs = self._generate([source_ids[row] for row in batch], beam_size, max(caps))
            # Every line is held to its own cap, whatever shares its batch.
            kept = [ids[:cap] for ids, cap in zip(outputs, caps, strict=True)]
            lines = self._tokenizer.batch_decode(kept, skip_special_tokens=True)
            for row, ids, line in zip(batch, kept, lines, strict=True):
                translations[wanted[row]] = Translation(line.strip(), self._tokenizer.eos_token_id not in ids)
        return translations

    @abstractmethod
    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        """Output ids of each source, with the end mark where the model set one."""

    def _cap(self, source_tokens: int) -> int:
        return min(MAX_RATIO * source_tokens + MAX_EXTRA, self._max_new_tokens)


class HuggingFaceTranslator(Translator):
    """Translates with a model in PyTorch, through ``model.generate``.

    Args:
        model: used as it is, on its device; its training mode is restored after each call.
        tokenizer: the model's.
        source_lang: language the sources are normalised for.
        max_new_tokens: highest cap of an output, end mark included.
    """

    engine = "PyTorch"

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        *,
        source_lang: str,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> None:
        super().__init__(tokenizer, source_lang, max_new_tokens)
        self._model = model
        self.precision = str(model.dtype).removeprefix("torch.")

    @property
    def threads(self) -> int:
        """Threads PyTorch uses now."""
        return torch.get_num_threads()

    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        generate: Any = self._model.generate  # its annotations do not fit the models it belongs to
        inputs = self._tokenizer.pad({"input_ids": source_ids}, return_tensors="pt").to(self._model.device)
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                output_ids = generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=max_new_tokens,
                    max_length=None,  # both limits at once would bring a warning at every call
                    num_beams=beam_size,
                    # With this a beam search stops where CTranslate2's does.
                    early_stopping=beam_size > 1,
                    # What a model folder may ask for and CTranslate2 would not know of:
                    do_sample=False,
                    use_cache=True,  # the Trainer switches it off, and a model saved in training keeps that
                    length_penalty=1.0,
                    repetition_penalty=1.0,
                    no_repeat_ngram_size=0,
                    min_length=0,
                )
        finally:
            self._model.train(was_training)
        # The first id starts the decoder; what follows the end mark is padding.
        return [_through_end(ids[1:], self._tokenizer.eos_token_id) for ids in output_ids.tolist()]


class CTranslate2Translator(Translator):
    """Translates with CTranslate2; made by `from_folder` or `from_model`."""

    engine = "CTranslate2"

    def __init__(self, engine_model: ctranslate2.Translator, tokenizer: PreTrainedTokenizerFast, *, source_lang: str,
                 precision: str, threads: int, max_new_tokens: int) -> None:  # fmt: skip
        super().__init__(tokenizer, source_lang, max_new_tokens)
        self._engine_model, self._threads = engine_model, threads
        self.precision = precision

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        source_lang: str,
        compute_type: ComputeType = "float32",
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Convert a Hugging Face folder and load the result; nothing is left on disk.

        Args:
            folder: model and tokenizer.
            source_lang: language the sources are normalised for.
            compute_type: number format of the weights in use.
            threads: CPU threads for one call.
            max_new_tokens: highest cap of an output, end mark included.

        Raises:
            CheckpointError: CTranslate2 cannot convert or load this model.
        """
        import ctranslate2

        with _no_progress_bars(), tempfile.TemporaryDirectory() as scratch:
            converted = Path(scratch) / "ctranslate2"
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
                ctranslate2.converters.TransformersConverter(str(folder)).convert(str(converted))
                # The weights are read into memory here, so the converted folder is not needed afterwards.
                engine_model = ctranslate2.Translator(
                    str(converted), device="cpu", compute_type=compute_type, intra_threads=threads, inter_threads=1
                )
            except Exception as error:  # transformers and CTranslate2 raise many kinds, RuntimeError and KeyError too
                detail = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
                raise CheckpointError(
                    tr(
                        en=f"the model could not be converted to CTranslate2: got {folder} ({detail}), accepted a "
                        "Hugging Face folder with a T5 model and its tokenizer. Check the path, or copy the folder "
                        "again.",
                        zh=f"无法把模型转换成 CTranslate2 格式：得到 {folder}（{detail}），"
                        "需要含有 T5 模型及其分词器的 Hugging Face 文件夹。请检查路径，或重新复制该文件夹。",
                    )
                ) from error
        return cls(
            engine_model,
            tokenizer,
            source_lang=source_lang,
            precision=compute_type,
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
        compute_type: ComputeType = "float32",
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Like `from_folder`, for a model in memory, which is left as it is."""
        with _no_progress_bars(), tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return cls.from_folder(
                Path(folder),
                source_lang=source_lang,
                compute_type=compute_type,
                threads=threads,
                max_new_tokens=max_new_tokens,
            )

    @property
    def threads(self) -> int:
        """Threads one call uses."""
        return self._threads

    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        results = self._engine_model.translate_batch(
            [self._tokenizer.convert_ids_to_tokens(ids) for ids in source_ids],
            beam_size=beam_size,
            max_batch_size=0,  # one batch, as it comes
            max_input_length=0,  # by default everything after 1024 tokens is dropped without a word
            max_decoding_length=max_new_tokens,
            return_end_token=True,
        )
        to_ids: Any = self._tokenizer.convert_tokens_to_ids  # of a list: a list
        return [to_ids(result.hypotheses[0]) for result in results]


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


def _through_end(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id) + 1] if end_id in ids else ids


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without the bars transformers shows for reading and writing; half a second of work needs none."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()
