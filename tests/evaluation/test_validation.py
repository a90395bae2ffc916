"""The scores of a model in training."""

from typing import Any

import pytest

from mtdistill.decoding import CTranslate2Translator
from mtdistill.evaluation.validation import ValidationScorer


@pytest.fixture
def scorer(tiny_teacher: Any, tiny_corpus: list[tuple[str, str]]) -> ValidationScorer:
    sources, targets = zip(*tiny_corpus[:20], strict=True)
    return ValidationScorer(tiny_teacher[1], "zh", "en", sources, [[target] for target in targets])


def test_a_model_that_knows_everything_scores_everything(scorer: ValidationScorer, tiny_teacher: Any) -> None:
    assert scorer(tiny_teacher[0]) == pytest.approx({"bleu": 100.0, "chrf": 100.0, "success_rate": 1.0})
    assert scorer.samples.count("\n") == 4
    assert scorer.outputs is not None
    assert scorer.outputs.failures == {}


def test_loops_are_seen_as_they_come(
    scorer: ValidationScorer, tiny_teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second try would hide from the watch over a training that its model has begun to loop."""
    tried: list[bool] = []
    translate = CTranslate2Translator.translate

    def watched(self: CTranslate2Translator, sources: Any, *, second_try: bool = True) -> Any:
        tried.append(second_try)
        return translate(self, sources, second_try=second_try)

    monkeypatch.setattr(CTranslate2Translator, "translate", watched)
    scorer(tiny_teacher[0])
    assert tried == [False]
