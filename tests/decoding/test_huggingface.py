import logging
from typing import Any

import pytest
import torch

from mtdistill.decoding import HuggingFaceTranslator
from mtdistill.errors import CheckpointError

Corpus = list[tuple[str, str]]


def translating(teacher: Any) -> HuggingFaceTranslator:
    model, tokenizer = teacher
    return HuggingFaceTranslator(model, tokenizer, source_lang="zh")


def test_names_its_conditions(tiny_teacher: Any) -> None:
    translator = translating(tiny_teacher)
    assert (translator.engine, translator.precision, translator.threads) == (
        "PyTorch",
        "float32",
        torch.get_num_threads(),
    )


def test_the_training_mode_is_off_while_it_translates_and_comes_back(tiny_teacher: Any, tiny_corpus: Corpus) -> None:
    model, _ = tiny_teacher
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    translator = translating(tiny_teacher)
    for training in (True, False):
        model.train(training)
        outputs = translator.translate([source for source, _ in tiny_corpus])
        assert [output.text for output in outputs] == [target for _, target in tiny_corpus]
        assert model.training is training


def test_the_training_mode_comes_back_after_an_error(tiny_teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny_teacher
    model.train()
    monkeypatch.setattr(model, "generate", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        translating(tiny_teacher).translate(["猫"])
    assert model.training


def test_what_the_folder_says_about_generation_is_not_followed(
    tiny_teacher: Any, tiny_corpus: Corpus, odd_sources: list[str]
) -> None:
    model, _ = tiny_teacher
    sources = [source for source, _ in tiny_corpus[:20]] + odd_sources
    expected = {beam_size: translating(tiny_teacher).translate(sources, beam_size=beam_size) for beam_size in (1, 3)}
    for name, value in {
        "num_beams": 2, "do_sample": True, "min_length": 12, "max_length": 3, "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1, "length_penalty": -5.0, "early_stopping": False,
    }.items():  # fmt: skip
        setattr(model.generation_config, name, value)
    for beam_size, translations in expected.items():
        assert translating(tiny_teacher).translate(sources, beam_size=beam_size) == translations


def test_no_call_warns(tiny_teacher: Any, caplog: pytest.LogCaptureFixture) -> None:
    tiny_teacher[0].generation_config.max_length = 20  # as the folders of older models say
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        for beam_size in (1, 2):
            translating(tiny_teacher).translate(["猫", "他喜欢狗。"], beam_size=beam_size)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_a_decoder_deeper_than_the_encoder_is_refused(tiny_teacher: Any) -> None:
    model, tokenizer = tiny_teacher
    model.config.num_layers = 1
    with pytest.raises(CheckpointError, match="got 1 encoder and 2 decoder layers, accepted no more decoder"):
        HuggingFaceTranslator(model, tokenizer, source_lang="zh")
