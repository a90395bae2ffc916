"""Sentences of the user's own: grouped by source, normalised, and never cleaned away."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtdistill.data.own_sentences import read_evaluation_set
from mtdistill.errors import DataError

WriteTsv = Callable[..., str]


def test_every_reference_of_a_source_is_kept_in_the_order_of_the_files(write_tsv: WriteTsv) -> None:
    first = write_tsv("a.tsv", [("他来了。", "He came."), ("她走了。", "She left."), ("他来了。", "He has come.")])
    second = write_tsv("b.tsv", [("谢谢。", "Thanks."), ("她走了。", "She went away.")])
    found = read_evaluation_set([first, second], "zh", "en")
    assert found.sources == ["他来了。", "她走了。", "谢谢。"]
    assert found.references == [["He came.", "He has come."], ["She left.", "She went away."], ["Thanks."]]
    assert len(found) == 3


def test_both_sides_are_normalised_like_training_data(write_tsv: WriteTsv) -> None:
    file = write_tsv("a.tsv", [("漢語  很難！", " Ｃhinese  is hard "), ("汉语 很难!", "It is 漢語.")])
    found = read_evaluation_set([file], "zh", "en")
    assert found.sources == ["汉语 很难!"]
    assert found.references == [["Chinese is hard", "It is 漢語."]]  # simplified in Chinese only


@pytest.mark.parametrize(("lang", "reference"), [("zh", "这是汉语。"), ("zh-TW", "這是漢語。")])
def test_the_target_language_decides_about_the_references(write_tsv: WriteTsv, lang: str, reference: str) -> None:
    file = write_tsv("a.tsv", [("It is 漢語.", "這是漢語。")])
    found = read_evaluation_set([file], "en", lang)
    assert (found.sources, found.references) == (["It is 漢語."], [[reference]])


def test_nothing_is_cleaned_away(write_tsv: WriteTsv) -> None:
    pairs = [("copy", "copy"), ("他", "a " * 300), ("dup", "dup"), ("dup", "dup"), ("cafÃ©", "?")]
    found = read_evaluation_set([write_tsv("a.tsv", pairs)], "zh", "en")
    assert found.sources == ["copy", "他", "dup", "cafÃ©"]
    assert found.references[2] == ["dup", "dup"]


def test_pairs_without_text_on_a_side_are_passed_over(write_tsv: WriteTsv) -> None:
    pairs = [("", "nothing"), ("无", " \u3000"), ("猫", "cat")]
    found = read_evaluation_set([write_tsv("a.tsv", pairs)], "zh", "en")
    assert (found.sources, found.references) == (["猫"], [["cat"]])


def test_languages_tell_the_columns_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"en": "cat", "zh": "猫"}) + "\n", encoding="utf-8")
    assert read_evaluation_set([str(file)], "zh", "en").sources == ["猫"]
    assert read_evaluation_set([str(file)], "en", "zh").sources == ["cat"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(*[st.text(st.sampled_from("ab cＡ漢汉 ")).filter(str.strip)] * 2), min_size=1, max_size=20)
)
def test_no_pair_is_lost_and_no_source_is_there_twice(pairs: list[tuple[str, str]], write_tsv: WriteTsv) -> None:
    # A first line, for a line of two language names would be taken for one.
    found = read_evaluation_set([write_tsv("a.tsv", [("source", "target"), *pairs])], "ja", "en")
    assert len(set(found.sources)) == len(found.sources) == len(found.references)
    assert sum(map(len, found.references)) == len(pairs)


@pytest.mark.parametrize(("source_lang", "target_lang"), [("", "en"), ("zh", ""), ("", "")])
def test_unknown_languages_are_refused_before_anything_is_read(source_lang: str, target_lang: str) -> None:
    with pytest.raises(DataError, match=f"got source '{source_lang}', target '{target_lang}'"):
        read_evaluation_set(["no such file.tsv"], source_lang, target_lang)


def test_files_without_a_single_pair_are_refused(write_tsv: WriteTsv) -> None:
    files = [write_tsv("a.tsv", [("", "x")]), write_tsv("b.tsv", [("x", " ")])]
    with pytest.raises(DataError, match=r"nothing to translate: .*a\.tsv, .*b\.tsv"):
        read_evaluation_set(files, "zh", "en")


@pytest.mark.parametrize("name", ["gone.tsv", "picture.png"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=name):
        read_evaluation_set([str(tmp_path / name)], "zh", "en")
