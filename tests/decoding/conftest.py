"""The tiny teacher in every engine, and sources it has never seen."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.decoding import (
    CTranslate2Translator,
    HuggingFaceTranslator,
    OnnxTranslator,
    Translation,
    Translator,
    convert_to_ctranslate2,
)
from mtdistill.export.onnx import convert_to_onnx

ENGINES = ("PyTorch", "CTranslate2", "ONNX Runtime")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Name of each engine in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def ctranslate2_folder(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher, float32."""
    folder = tmp_path_factory.mktemp("ctranslate2")
    convert_to_ctranslate2(tiny_teacher_folder, folder)
    return folder


@pytest.fixture(scope="session")
def onnx_folder(
    trained_tiny_teacher: T5ForConditionalGeneration,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny teacher in both precisions."""
    folder = tmp_path_factory.mktemp("onnx")
    convert_to_onnx(trained_tiny_teacher, tiny_tokenizer, folder)
    convert_to_onnx(trained_tiny_teacher, tiny_tokenizer, folder, "int8")
    return folder


@pytest.fixture
def build(tiny_teacher: Any, ctranslate2_folder: Path, onnx_folder: Path) -> Callable[..., Translator]:
    """A translator of the tiny teacher, of the engine and with the options asked for."""

    def built(engine: str, **options: Any) -> Translator:
        model, tokenizer = tiny_teacher
        if engine == "PyTorch":
            return HuggingFaceTranslator(model, tokenizer, source_lang="zh", **options)
        if engine == "CTranslate2":
            return CTranslate2Translator.open(ctranslate2_folder, source_lang="zh", **options)
        return OnnxTranslator.open(onnx_folder, source_lang="zh", **options)

    return built


@pytest.fixture(params=ENGINES)
def endless(
    request: pytest.FixtureRequest, trained_tiny_teacher: T5ForConditionalGeneration,
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
) -> Translator:  # fmt: skip
    """The tiny teacher without an end mark, in each engine: it goes on and on, in circles."""
    model = copy.deepcopy(trained_tiny_teacher)
    with torch.no_grad():
        model.shared.weight[tiny_tokenizer.eos_token_id] = 0.0
    if request.param == "PyTorch":
        return HuggingFaceTranslator(model, tiny_tokenizer, source_lang="zh")
    if request.param == "CTranslate2":
        return CTranslate2Translator.from_model(model, tiny_tokenizer, source_lang="zh")
    convert_to_onnx(model, tiny_tokenizer, tmp_path)
    return OnnxTranslator.open(tmp_path, source_lang="zh")


@pytest.fixture
def learnt(tiny_corpus: list[tuple[str, str]], tiny_tokenizer: PreTrainedTokenizerFast) -> dict[str, Translation]:
    """What the tiny teacher says to each source of its corpus."""
    return {
        source: Translation(target, tokens=len(tiny_tokenizer(target)["input_ids"])) for source, target in tiny_corpus
    }


@pytest.fixture
def odd_sources() -> list[str]:
    """Nothing the tiny teacher has seen: it stutters, stops early or runs into the cap."""
    return [
        "hello", "1", "???", "猫猫猫猫猫猫", "他他狗", "书 书 书 门", "Tom likes", "需要需要需要", "𠮷野家", "\u200b猫",
        "a" * 30, "我妈妈我妈妈我妈妈", "。", "鱼，鱼，鱼", "<pad> </s>", "Ünïcödé", "茶\n水", "0.5 %", "他 喜欢",
        "老师老师看见看见",
    ]  # fmt: skip
