"""Scores of a model in training: translations of validation sentences, judged like those of the final report.

Imported by distillation; imports decoding, health, evaluation.quality and evaluation.success.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.decoding import CTranslate2Translator, Translation
from mtdistill.evaluation.quality import corpus_quality
from mtdistill.evaluation.success import success_rate
from mtdistill.health.outputs import Outputs

SHOWN_SAMPLES = 5


@dataclass
class ValidationScorer:
    """Calls with a model give its scores; `samples` and `outputs` hold what it wrote last.

    Attributes:
        sources: distinct validation sentences.
        references: every reference of each.
        teacher: the teacher's translations of the same sentences, which the success rate compares with; without them
            the model is compared with itself, so that only the output checks count.
        threads: CPU threads of the decoder.
    """

    tokenizer: PreTrainedTokenizerFast
    source_lang: str
    target_lang: str
    sources: Sequence[str]
    references: Sequence[Sequence[str]]
    teacher: Sequence[Translation] | None = None
    threads: int = 1
    samples: str = field(default="", init=False)
    outputs: Outputs | None = field(default=None, init=False)

    def __call__(self, model: T5ForConditionalGeneration) -> dict[str, float]:
        """Greedy `bleu`, `chrf` and `success_rate` of the model."""
        translations = self.translate(model)
        texts = [translation.text for translation in translations]
        quality = corpus_quality(texts, self.references, self.target_lang)
        success = success_rate(
            self.sources, translations, self.teacher or translations, self.references, self.target_lang
        )
        shown = zip(self.sources, self.references, texts, strict=True)
        self.samples = "\n".join(f"- {s} → **{t}** ({r[0]})" for s, r, t in list(shown)[:SHOWN_SAMPLES])
        self.outputs = Outputs(self.sources, texts, success.rate, success.failures, success.teacher_failures)
        return {"bleu": quality.bleu, "chrf": quality.chrf, "success_rate": success.rate}

    def translate(self, model: T5ForConditionalGeneration) -> list[Translation]:
        """Greedy translations of the validation sentences, as they come: a second try would hide that a model loops."""
        translator = CTranslate2Translator.from_model(
            model, self.tokenizer, source_lang=self.source_lang, threads=self.threads
        )
        return translator.translate(self.sources, second_try=False)
