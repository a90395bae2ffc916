"""Which engine, number format, threads, batch and beam a student is timed in against its teacher.

Imported by distillation.measuring; imports decoding, export, report and student.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.decoding import (
    ComputeType,
    CTranslate2Translator,
    HuggingFaceTranslator,
    OnnxTranslator,
    Translator,
    convert_model_to_ctranslate2,
)
from mtdistill.export.onnx import convert_to_onnx
from mtdistill.report import Duel
from mtdistill.student.loading import FoundModel


class Engines:
    """What translates with one model in PyTorch, in every engine and number format; converted when first asked for."""

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        languages: tuple[str, str],
        scratch: Path,
    ) -> None:
        self._model, self._tokenizer, self._languages, self._scratch = model, tokenizer, languages, scratch
        self._source_lang, _ = languages

    def ctranslate2_folder(self) -> Path:
        """The model in float32; other formats are made of it when it is loaded."""
        folder = self._scratch / "ctranslate2"
        if not folder.exists():
            convert_model_to_ctranslate2(self._model, self._tokenizer, folder, languages=self._languages)
        return folder

    def ctranslate2(self, compute_type: ComputeType, threads: int) -> Translator:
        """In CTranslate2."""
        return CTranslate2Translator.open(
            self.ctranslate2_folder(), source_lang=self._source_lang, compute_type=compute_type, threads=threads
        )

    def pytorch(self, threads: int) -> Translator:
        """In PyTorch, float32."""
        return HuggingFaceTranslator(self._model, self._tokenizer, source_lang=self._source_lang, threads=threads)

    def onnx(self, precision: ComputeType, threads: int) -> Translator:
        """In ONNX Runtime."""
        folder = self._scratch / f"onnx-{precision}"
        if not folder.exists():
            convert_to_onnx(self._model, self._tokenizer, folder, precision)
        return OnnxTranslator.open(folder, source_lang=self._source_lang, threads=threads)


def duels_of_a_student(ours: Engines, theirs: Engines, threads: int, *, thorough: bool) -> Iterator[Duel]:
    """What is timed of a student in PyTorch: the promised conditions first."""
    precisions: tuple[ComputeType, ...] = ("float32", "int8")
    for precision in precisions:
        yield from _grid(
            partial(ours.ctranslate2, precision), partial(theirs.ctranslate2, precision), threads, thorough=thorough
        )
    if thorough:
        for count in sorted({1, threads}):
            for batch_size in (32, 1):
                yield Duel(ours.pytorch(count), theirs.pytorch(count), batch_size)
    yield Duel(ours.ctranslate2("int8", threads), theirs.pytorch(threads))


def duels_of_an_export(
    model: FoundModel, theirs: Engines, judged: Translator, threads: int, *, thorough: bool
) -> Iterator[Duel]:
    """What is timed of an export: itself against the teacher in the same form."""
    precision: ComputeType = "int8" if judged.precision == "int8" else "float32"
    same_form = theirs.onnx if model.form == "ONNX Runtime" else theirs.ctranslate2
    yield from _grid(model.translator, partial(same_form, precision), threads, thorough=thorough)
    yield Duel(model.translator(threads), theirs.pytorch(threads))


def _grid(
    ours: Callable[[int], Translator], theirs: Callable[[int], Translator], threads: int, *, thorough: bool
) -> Iterator[Duel]:
    """One engine and number format: one thread and all, batch 32 and 1, beam 1 and 4; promised: one thread, beam 1."""
    for count in sorted({1, threads}) if thorough else (1,):
        student, teacher = ours(count), theirs(count)
        for beam_size in (1, 4) if thorough else (1,):
            for batch_size in (32, 1):
                promised = count == beam_size == 1
                yield Duel(student, teacher, batch_size, beam_size, promised)
