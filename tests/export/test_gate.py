from collections.abc import Sequence
from dataclasses import replace

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from mtdistill.data.prepared import EvaluationSet
from mtdistill.decoding import Translation, Translator
from mtdistill.display import Display
from mtdistill.errors import ExportError
from mtdistill.export.gate import Parity, measure_parity, require

REFERENCES = [["the cat sat on the mat"], ["a dog barks at the moon", "the dog barks"], ["he likes green tea"]]
SENTENCES = EvaluationSet(["one", "two", "three"], REFERENCES)
GOOD = Parity(1000, 0.997, 20.0, 19.9, 40.0, 39.9, "nrefs:var", rounds_weights=False)


class Scripted(Translator):
    engine = "scripted"
    precision = "float32"
    threads = 1

    def __init__(self, *texts: str) -> None:
        self.texts = dict(zip(SENTENCES.sources, texts, strict=True))

    def translate(self, sources: Sequence[str], *, beam_size: int = 1, batch_size: int = 32) -> list[Translation]:
        assert beam_size == 1
        return [Translation(self.texts[source]) for source in sources]

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        raise NotImplementedError


def test_figures_are_those_of_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.export.gate._CHUNK", 2)
    before = ["the cat sat on the mat", "the dog barks", "he likes tea"]
    after = ["the cat sat on a mat", "the dog barks", "he likes a green tea"]
    parity = measure_parity(
        Scripted(*before), Scripted(*after), SENTENCES, "en", rounds_weights=False, display=Display()
    )
    streams: list[list[str | None]] = [[refs[0] for refs in REFERENCES], [None, REFERENCES[1][1], None]]
    assert parity.bleu_before == BLEU().corpus_score(before, streams).score  # type: ignore[arg-type]
    assert parity.bleu_after == BLEU().corpus_score(after, streams).score  # type: ignore[arg-type]
    assert parity.chrf_before == CHRF().corpus_score(before, streams).score  # type: ignore[arg-type]
    assert parity.chrf_after == CHRF().corpus_score(after, streams).score  # type: ignore[arg-type]
    assert (parity.sentences, parity.identical) == (3, 1 / 3)


@pytest.mark.parametrize(("identical", "holds"), [(1.0, True), (0.995, True), (0.994, False)])
def test_in_floating_point_translations_must_be_identical(identical: float, holds: bool) -> None:
    assert replace(GOOD, identical=identical, bleu_after=25.0).holds is holds


@pytest.mark.parametrize(("after", "holds"), [(21.0, True), (19.81, True), (19.79, False), (0.0, False)])
def test_in_eight_bits_bleu_may_fall_by_one_percent(after: float, holds: bool) -> None:
    assert replace(GOOD, identical=0.5, bleu_after=after, rounds_weights=True).holds is holds


def test_a_model_that_scores_nothing_loses_nothing() -> None:
    assert replace(GOOD, bleu_before=0.0, bleu_after=0.0, chrf_before=0.0, chrf_after=0.0).loss == 0


@pytest.mark.parametrize(("after", "holds"), [(41.0, True), (39.7, True), (39.5, False), (0.0, False)])
def test_sentences_too_short_for_bleu_are_held_against_chrf(after: float, holds: bool) -> None:
    short = replace(GOOD, identical=0.5, bleu_before=0.0, bleu_after=0.0, rounds_weights=True)
    assert replace(short, chrf_before=40.0, chrf_after=after).holds is holds


def test_what_holds_passes() -> None:
    require(GOOD, "hf float32", [])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_refusal_has_the_figures_and_a_way_out(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.messages._chosen", lang)
    bad = replace(GOOD, identical=0.62, bleu_after=19.0, rounds_weights=True)
    with pytest.raises(ExportError, match=r"62\.0%.*20\.00.*19\.00.*5\.0%.*1%.*--quantization.*float32.*--accept-loss"):
        require(bad, "ctranslate2 int8", ["float32", "float16"])
    with pytest.raises(ExportError, match=r"62\.0%.*99\.5%.*--accept-loss"):
        require(replace(bad, rounds_weights=False), "onnx float32", ["int8"])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_refusal_ends_with_what_else_may_help(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.messages._chosen", lang)
    bad = replace(GOOD, bleu_after=19.0, rounds_weights=True)
    for hint in ("", "Buy a computer."):
        with pytest.raises(ExportError) as refused:
            require(bad, "ctranslate2 int8", ["float32"], hint)
        assert str(refused.value).rstrip().endswith(hint)
        assert str(refused.value) == str(refused.value).strip()
