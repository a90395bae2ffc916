"""Does an export still translate like the model it was made from?

Imported by export.exporting and export.model_card; imports data, decoding and evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import Translation, Translator
from mtdistill.display import Display
from mtdistill.errors import ExportError
from mtdistill.evaluation import corpus_quality
from mtdistill.messages import listed, tr

SENTENCES = 1000
FEWEST_SENTENCES = 500  # below, a figure of 99.5 % would hang on two sentences; said, not refused
MIN_IDENTICAL = 0.995  # of translations, where only the order of floating-point sums differs
MAX_LOSS = 0.01  # of the BLEU before (of chrF2 where there is none), where weights are rounded to 8 bits
_CHUNK = 128


@dataclass(frozen=True)
class Parity:
    """Greedy translations of the same sentences by a model and by its export.

    Attributes:
        sentences: how many were translated.
        identical: share in [0, 1] whose text is the same.
        bleu_before: of the model in PyTorch, float32.
        bleu_after: of the export.
        chrf_before: chrF2, likewise.
        chrf_after: likewise.
        signature: sacreBLEU's, of BLEU.
        rounds_weights: the export holds weights in 8 bits, and other translations are to be expected.
    """

    sentences: int
    identical: float
    bleu_before: float
    bleu_after: float
    chrf_before: float
    chrf_after: float
    signature: str
    rounds_weights: bool

    @property
    def metric(self) -> str:
        """What `loss` is of: BLEU, or chrF2 where no output is long enough for BLEU."""
        return "BLEU" if self.bleu_before else "chrF2"

    @property
    def loss(self) -> float:
        """Share of the metric before that is gone; negative where the export is better."""
        before, after = self.bleu_before, self.bleu_after
        if self.metric == "chrF2":
            before, after = self.chrf_before, self.chrf_after
        return 1 - after / before if before else 0.0

    @property
    def holds(self) -> bool:
        """Within the tolerance: 99.5 % identical in floating point, at most 1 % of the metric lost in 8 bits."""
        return self.loss <= MAX_LOSS if self.rounds_weights else self.identical >= MIN_IDENTICAL

    def __str__(self) -> str:
        """One line with all figures."""
        return tr(
            en=f"{self.identical:.1%} of {self.sentences} translations identical, BLEU {self.bleu_before:.2f} -> "
            f"{self.bleu_after:.2f}, chrF2 {self.chrf_before:.1f} -> {self.chrf_after:.1f}",
            zh=f"{self.sentences} 句译文中 {self.identical:.1%} 完全相同，BLEU {self.bleu_before:.2f} -> "
            f"{self.bleu_after:.2f}，chrF2 {self.chrf_before:.1f} -> {self.chrf_after:.1f}",
        )


def measure_parity(
    before: Translator,
    after: Translator,
    sentences: EvaluationSet,
    target_lang: str,
    *,
    rounds_weights: bool,
    display: Display,
) -> Parity:
    """Translate the same sentences with both and compare."""
    with display.bar(tr(en="comparing translations", zh="比较译文"), 2 * len(sentences)) as bar:
        texts: list[list[str]] = []
        for translator in (before, after):
            done: list[Translation] = []
            for first in range(0, len(sentences), _CHUNK):
                done += translator.translate(sentences.sources[first : first + _CHUNK])
                bar.advance_to(len(texts) * len(sentences) + len(done), translator.engine)
            texts.append([translation.text for translation in done])
    scores = [corpus_quality(each, sentences.references, target_lang) for each in texts]
    same = sum(ours == theirs for ours, theirs in zip(*texts, strict=True))
    return Parity(
        sentences=len(sentences),
        identical=same / len(sentences),
        bleu_before=scores[0].bleu,
        bleu_after=scores[1].bleu,
        chrf_before=scores[0].chrf,
        chrf_after=scores[1].chrf,
        signature=scores[0].bleu_signature,
        rounds_weights=rounds_weights,
    )


def require(parity: Parity, name: str, alternatives: Sequence[str], hint: str = "") -> None:
    """Refuse an export that translates worse than its tolerance allows.

    Args:
        parity: what was measured.
        name: of the export, such as "ctranslate2 int8".
        alternatives: the other number formats of the same kind of export.
        hint: what else may help.

    Raises:
        ExportError: the figures, and what to do.
    """
    if parity.holds:
        return
    other = listed(alternatives)
    if parity.rounds_weights:
        raise ExportError(
            tr(
                en=f"the export {name} translates worse than the model: got {parity} ({parity.loss:.1%} of "
                f"{parity.metric} lost), accepted a loss of at most {MAX_LOSS:.0%}. Nothing was written. Take another "
                f"--quantization ({other}), or accept the loss with --accept-loss. {hint}".rstrip(),
                zh=f"导出 {name} 的译文质量低于原模型：{parity}（{parity.metric} 损失 {parity.loss:.1%}），"
                f"最多允许损失 {MAX_LOSS:.0%}。没有写入任何文件。请换用其他 --quantization（{other}），"
                f"或用 --accept-loss 接受损失。{hint}",
            )
        )
    raise ExportError(
        tr(
            en=f"the export {name} does not translate like the model: got {parity}, accepted {MIN_IDENTICAL:.1%} "
            f"identical or more. Nothing was written. Take another --quantization ({other}), or accept the difference "
            "with --accept-loss.",
            zh=f"导出 {name} 的译文与原模型不同：{parity}，至少应有 {MIN_IDENTICAL:.1%} 相同。没有写入任何文件。"
            f"请换用其他 --quantization（{other}），或用 --accept-loss 接受差异。",
        )
    )
