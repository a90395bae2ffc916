"""Making CTranslate2 model folders.

Imported by decoding and decoding.ctranslate2; imports data, decoding.model_bin and decoding.target_pieces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding.model_bin import require_t5
from mtdistill.decoding.target_pieces import keep_target_pieces
from mtdistill.errors import CheckpointError
from mtdistill.files import refusal_of
from mtdistill.messages import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

Quantization = Literal["float32", "float16", "int8"]
# As the converter names them: one for source and target, or one for each.
SHARED_VOCABULARY, SOURCE_VOCABULARY, TARGET_VOCABULARY = (
    f"{name}_vocabulary.json" for name in ("shared", "source", "target")
)
VOCABULARY_MAP = "vmap.txt"  # what CTranslate2 can be told to leave out of a search, sentence by sentence; never ours


def convert_to_ctranslate2(
    model_folder: Path,
    destination: Path,
    quantization: Quantization = "float32",
    *,
    languages: tuple[str, str] | None = None,
) -> None:
    """Write a CTranslate2 model, with the tokenizer beside it.

    Args:
        model_folder: a Hugging Face folder with a T5 model and its tokenizer.
        destination: existing folder; files of the same names are replaced.
        quantization: number format of the stored weights. int8: the matrices, one scale per row; norms stay float32.
        languages: source and target: the model can write only pieces of the target, see `decoding.target_pieces`; None:
            all pieces.

    Raises:
        CheckpointError: CTranslate2 cannot convert this model.
    """
    import ctranslate2

    try:
        with _no_progress_bars():
            tokenizer = load_tokenizer(model_folder)

            class Converter(ctranslate2.converters.TransformersConverter):  # type: ignore[misc]
                # Private there, but what `convert` builds on; it has no hook between reading and writing.
                def _load(self) -> Any:
                    spec = super()._load()
                    if languages:
                        keep_target_pieces(spec, *languages)
                    return spec

            Converter(str(model_folder)).convert(str(destination), quantization=quantization, force=True)
            tokenizer.save_pretrained(str(destination))
            source_rows, target_rows = require_t5(destination / "model.bin")
            of_another = {SOURCE_VOCABULARY, TARGET_VOCABULARY} if source_rows == target_rows else {SHARED_VOCABULARY}
            for name in {*of_another, VOCABULARY_MAP}:  # a model that was there before
                (destination / name).unlink(missing_ok=True)
    except Exception as error:  # transformers and CTranslate2 raise many kinds, RuntimeError and KeyError too
        if getattr(error, "errno", None) is not None or refusal_of(error):
            raise  # no space, not writable: said better by whoever knows what was being written
        raise _not_convertible(model_folder, error) from error


def convert_model_to_ctranslate2(
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    destination: Path,
    quantization: Quantization = "float32",
    *,
    languages: tuple[str, str] | None = None,
) -> None:
    """Like `convert_to_ctranslate2`, for a model in memory, which is left as it is."""
    with _no_progress_bars(), tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        convert_to_ctranslate2(Path(folder), destination, quantization, languages=languages)


def _not_convertible(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        tr(
            en=f"the model could not be converted to CTranslate2: got {folder} ({detail_of(error)}), accepted a Hugging "
            "Face folder with a T5 model and its tokenizer. Check the path, or copy the folder again.",
            zh=f"无法把模型转换成 CTranslate2 格式：得到 {folder}（{detail_of(error)}），"
            "需要含有 T5 模型及其分词器的 Hugging Face 文件夹。请检查路径，或重新复制该文件夹。",
        )
    )


def detail_of(error: BaseException) -> str:
    """What a library's error says, in one line; of an error of ours, the one behind it."""
    error = error.__cause__ or error
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"


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
