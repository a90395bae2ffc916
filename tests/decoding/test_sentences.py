"""Lines into sentences and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtdistill.decoding.sentences import line_of, sentences_of

PIECES = list("你好abA。！？!?.…”“\"'()「」 1,，;:\u200bé।؟")
texts = st.one_of(st.text(st.sampled_from(PIECES), max_size=60), st.text(st.characters(codec="utf-8"), max_size=40))


@pytest.mark.parametrize(
    ("text", "lang", "sentences"),
    [
        ("我很高兴认识你。", "zh", ["我很高兴认识你。"]),
        ("没有句号", "zh", ["没有句号"]),
        ("你好!你叫什么名字?我叫汤姆.", "zh", ["你好!", "你叫什么名字?", "我叫汤姆."]),
        ("“火车九点就开了。”“别担心。我们会准时到的。”", "zh-CN", ["“火车九点就开了。”", "“别担心。我们会准时到的。”"]),
        ("他说：“你好。”", "zh_Hans", ["他说：“你好。”"]),
        ("圆周率是3.14。", "zh", ["圆周率是3.14。"]),
        ("Mr. Smith came at 5 p.m. and left. Why?", "en", ["Mr. Smith came at 5 p.m. and left.", "Why?"]),
        ("Das kostet 3.50 Euro. Gut!", "de", ["Das kostet 3.50 Euro.", "Gut!"]),
        *(
            ("Das ist Prof. Dr. Müller, z.B. am 3. Mai.", code, ["Das ist Prof. Dr. Müller, z.B. am 3. Mai."])
            for code in ("de", "de-DE", "DE", "de_XX")
        ),
        ("Hello. Who?", "", ["Hello.", "Who?"]),
        ("1. 你好。", "zh", ["1. 你好。"]),
        ("你好。 ...", "zh", ["你好。 ..."]),
        ("?!", "zh", ["?!"]),
        ("3.5", "en", ["3.5"]),
        ("", "zh", [""]),
    ],
)
def test_lines_are_split_where_sentences_end(text: str, lang: str, sentences: list[str]) -> None:
    assert sentences_of(text, lang) == sentences


@given(texts, st.sampled_from(["zh", "en", "ar", "th", "xx", ""]))
def test_nothing_is_lost_and_nothing_has_no_letter(text: str, lang: str) -> None:
    sentences = sentences_of(text, lang)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert len(sentences) == 1 or all(any(c.isalpha() for c in sentence) for sentence in sentences)


@pytest.mark.parametrize(
    ("sentences", "line"),
    [
        ([], ""),
        (["Hello."], "Hello."),
        (["Hello.", "Who are you?"], "Hello. Who are you?"),
        (["你好。", "你是谁？", "OK.", "好。"], "你好。你是谁？OK. 好。"),
        (["Hello.", "", "Bye."], "Hello. Bye."),
        (["", ""], ""),
    ],
)
def test_sentences_stand_in_one_line(sentences: list[str], line: str) -> None:
    assert line_of(sentences) == line
