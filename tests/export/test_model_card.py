"""What the README of an export says about its text and its licence."""

import ast
from typing import Any

import pytest
import yaml

from mtdistill.export.gate import Parity
from mtdistill.export.model_card import _example, model_card
from mtdistill.student.loading import FoundModel

PARITY = Parity(500, 1.0, 20.0, 20.0, 40.0, 40.0, "signature", rounds_weights=False)
OWN = "text of the maker's own; its licence is not recorded"


def card_of(data: dict[str, Any], target_lang: str = "en") -> tuple[dict[str, Any], str]:
    """The header and the text."""
    info = {"source_lang": "zh", "target_lang": target_lang, "parameters": 7, "config": {"data": data}}
    model = FoundModel(path=None, form="PyTorch", info=info)  # type: ignore[arg-type]
    text = model_card(model, "hf", "float32", PARITY, None, "你好。")
    return yaml.safe_load(text.split("---")[1]), text


@pytest.mark.parametrize(
    ("data", "licence", "corpora"),
    [
        ({"train": ["tatoeba:zh-en"]}, "cc-by-2.0", {"Tatoeba"}),
        ({"train": ["tatoeba:zh-en"], "extra": ["cedict:zh-en"]}, "other", {"Tatoeba", "CC-CEDICT"}),
        ({"train": ["tatoeba:zh-en", "corpus.tsv"]}, "other", {"Tatoeba", OWN}),
        ({"train": ["tatoeba:zh-en"], "extra": ["more.jsonl"]}, "other", {"Tatoeba", OWN}),
        ({"train": ["tatoeba"]}, "other", {OWN}),  # a folder of this name
        ({"train": ["corpus.tsv"]}, "other", {OWN}),
        ({}, "other", {OWN}),
    ],
)
def test_the_licence_is_that_of_all_text(data: dict[str, Any], licence: str, corpora: set[str]) -> None:
    header, text = card_of(data)
    assert header["license"] == licence
    assert {name for name in ("Tatoeba", "CC-CEDICT", OWN) if name in text} == corpora


def test_a_language_that_yaml_takes_for_a_truth_value() -> None:
    header, _ = card_of({"train": ["corpus.tsv"]}, target_lang="no")
    assert header["language"] == ["zh", "no"]


@pytest.mark.parametrize("format_name", ["hf", "ctranslate2", "onnx"])
def test_a_sentence_that_names_a_placeholder_is_left_as_it_is(format_name: str) -> None:
    text = 'TOM SAGT: "LANG LEBE DER FOLDER", TEXT'
    tree = ast.parse(_example(format_name, text, "de"))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert strings.count(text) == 1
    assert "path/to/this/folder" in strings
