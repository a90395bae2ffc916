"""Translating with a model in PyTorch, through transformers' own ``generate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mtdistill.decoding.translator import DEFAULT_MAX_NEW_TOKENS, Translator
from mtdistill.errors import CheckpointError
from mtdistill.messages import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration


class HuggingFaceTranslator(Translator):
    """Translates with a model in PyTorch, through ``model.generate``.

    Args:
        model: used as it is, on its device; its training mode is restored after each call.
        tokenizer: the model's.
        source_lang: language the sources are normalised for.
        threads: CPU threads of a call; None: as many as PyTorch uses anyway.
        max_new_tokens: highest cap of an output, end mark included.

    Raises:
        CheckpointError: the decoder has more layers than the encoder, which transformers cannot generate with.
    """

    engine = "PyTorch"

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        *,
        source_lang: str,
        threads: int | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> None:
        super().__init__(tokenizer, source_lang, max_new_tokens)
        layers = model.config.num_layers, model.config.num_decoder_layers
        if layers[1] > layers[0]:  # its cache has as many places as the encoder has layers, as of transformers 5.23
            raise CheckpointError(
                tr(
                    en=f"PyTorch cannot translate with this model: got {layers[0]} encoder and {layers[1]} decoder layers, "
                    "accepted no more decoder than encoder layers. Use a model of another shape.",
                    zh=f"PyTorch 无法用该模型翻译：编码器 {layers[0]} 层，解码器 {layers[1]} 层；解码器层数不能多于编码器。"
                    "请使用其他形状的模型。",
                )
            )
        self._model, self._threads = model, threads
        self.precision = str(model.dtype).removeprefix("torch.")

    @property
    def threads(self) -> int:
        """Threads one call uses."""
        return self._threads or torch.get_num_threads()

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        generate: Any = self._model.generate  # its annotations do not fit the models it belongs to
        inputs = self._tokenizer.pad({"input_ids": source_ids}, return_tensors="pt").to(self._model.device)
        was_training, threads = self._model.training, torch.get_num_threads()
        self._model.eval()
        torch.set_num_threads(self.threads)
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
                    no_repeat_ngram_size=no_repeat_ngram_size,
                    # What a model folder may ask for and CTranslate2 would not know of:
                    do_sample=False,
                    use_cache=True,  # the Trainer switches it off, and a model saved in training keeps that
                    length_penalty=1.0,
                    repetition_penalty=1.0,
                    min_length=0,
                )
        finally:
            self._model.train(was_training)
            torch.set_num_threads(threads)
        # The first id starts the decoder; what follows the end mark is padding.
        return [_through_end(ids[1:], self._tokenizer.eos_token_id) for ids in output_ids.tolist()]


def _through_end(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id) + 1] if end_id in ids else ids
