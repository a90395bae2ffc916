import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtdistill.text import (
    LOOP_EXCESS,
    MIN_LOOP,
    UNITS_PER_REPETITION,
    UNSPACED,
    _repetitions,
    base_language,
    loops,
    match_key,
    normalise,
    normalise_target,
    script_share,
    shows_encoding_damage,
    units,
    word_count,
)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("  a\tb\u3000 c\n", "en", "a b c"),
        ("ＡＢＣ１２３", "en", "ABC123"),
        ("ﬁne", "en", "fine"),
        ("漢語繁體字", "zh", "汉语繁体字"),
        ("漢語", "zh-TW", "汉语"),  # as a source
        ("漢語", "zh_Hant", "汉语"),
        ("漢語", "ja", "漢語"),
        ("你好！", "zh", "你好!"),
        ("", "zh", ""),
    ],
)
def test_normalise(text: str, lang: str, expected: str) -> None:
    assert normalise(text, lang) == expected


@pytest.mark.parametrize(
    ("lang", "expected"),
    [
        ("zh", "汉语!"),
        ("zh-CN", "汉语!"),
        ("zh_Hans", "汉语!"),
        ("zh-SG", "汉语!"),
        ("en", "漢語!"),
        ("zh-Hans-HK", "汉语!"),
    ]
    + [(lang, "漢語!") for lang in ("zh-TW", "zh_TW", "zh-Hant", "zh-Hant-HK", "zh_hk", "zh-MO")],
)
def test_a_target_keeps_the_characters_of_its_language(lang: str, expected: str) -> None:
    assert normalise_target(" 漢語！", lang) == expected


@given(st.text(), st.sampled_from(["zh", "en"]))
def test_normalising_leaves_single_spaces_and_no_margin(text: str, lang: str) -> None:
    assert normalise(text, lang) == " ".join(normalise(text, lang).split())


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text, "en")
    assert normalise(once, "en") == once


@pytest.mark.parametrize(
    ("lang", "expected"), [("zh", "zh"), ("zh-CN", "zh"), ("zh_Hans_CN", "zh"), ("EN-us", "en"), ("", "")]
)
def test_base_language(lang: str, expected: str) -> None:
    assert base_language(lang) == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Hello, world!", "hello world"),
        ("ＨＥＬＬＯ", "hello"),
        ("你好。", "你好"),
        ("Straße", "STRASSE"),
        ("שָׁלוֹם", "שלום"),
        ("كِتَاب", "كتاب"),
        ("İYİ", "iyi"),
    ],
)
def test_sentences_that_differ_in_case_width_or_punctuation_match(first: str, second: str) -> None:
    assert match_key(first) == match_key(second)


@pytest.mark.parametrize(
    ("first", "second"), [("?", "!"), ("a", "b"), ("1", "2"), ("…", ""), ("เขาซื้อม้า", "เขาซื้อมา"), ("मेरा", "मेरी")]
)
def test_other_sentences_do_not_match(first: str, second: str) -> None:
    assert match_key(first) != match_key(second)


@given(st.text())
def test_the_key_does_not_depend_on_margins(text: str) -> None:
    assert match_key(f" {text} ") == match_key(text)


@pytest.mark.parametrize(
    ("text", "lang", "share"),
    [
        ("hello", "en", 1.0),
        ("你好", "en", 0.0),
        ("你好ab", "zh", 0.5),
        ("你好ab", "en-GB", 0.5),
        ("ひらカタ漢字", "ja", 1.0),
        ("привет", "ru", 1.0),
        ("привет", "uk-UA", 1.0),
        ("123 !?", "zh", 1.0),  # no letters: nothing to object to
        ("hello", "tlh", 1.0),  # a language without an entry is not checked
    ],
)
def test_script_share(text: str, lang: str, share: float) -> None:
    assert script_share(text, lang) == share


@given(st.text(), st.sampled_from(["zh", "en", "ru", "xx"]))
def test_script_share_is_a_share(text: str, lang: str) -> None:
    assert 0.0 <= script_share(text, lang) <= 1.0


@pytest.mark.parametrize(
    "text",
    ["caf\ufffd", "a\x00b", "\ue000", "\ud800", "cafÃ©", "itâ€™s", "Ã¤", "a\tb", "æä½\xa0å¥½", "â\x80\x99"],
)
def test_damage_is_seen(text: str) -> None:
    assert shows_encoding_damage(text)


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "it's",
        "naïve â part",
        "Ärger",
        "São Paulo",
        "»Hyvää päivä», hän sanoi.",
        "tässä\xa010 %",
        "Über „Mä“",
        "hyvä\xad",
        "你好，世界！",
        "",
        "👍🏽",
    ],
)
def test_sound_text_is_not_damage(text: str) -> None:
    assert not shows_encoding_damage(text)


@given(st.text(alphabet=st.characters(min_codepoint=0xC0, max_codepoint=0xFF), min_size=1))
@example("é")
def test_latin_letters_read_twice_are_seen(text: str) -> None:
    assert shows_encoding_damage(text.encode("utf-8").decode("latin-1"))


def test_a_lone_surrogate_becomes_the_replacement_character_in_every_language() -> None:
    assert normalise("a\ud800b", "en") == "a\ufffdb"
    assert normalise("我\udfff爱", "zh") == "我\ufffd爱"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tom 说: OK!", ["tom", "说", "ok"]),
        ("He didn't, and she doesn’t.", ["he", "didn't", "and", "she", "doesn’t"]),
        ("rock 'n' roll", ["rock", "n", "roll"]),
        ("'quoted'", ["quoted"]),
        ("well-known snake_case", ["well", "known", "snake", "case"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("我爱iPhone15手机", ["我", "爱", "iphone15", "手", "机"]),
        ("ひらカタ漢字", [*"ひらカタ漢字"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("สวัสดี", [*"สวัสดี"]),
        ("मैं हिन्दी बोलता हूँ।", ["मैं", "हिन्दी", "बोलता", "हूँ"]),
        ("ຂ້ອຍ", [*"ຂ້ອຍ"]),
        ("x² ❤️ 1st", ["x²", "1st"]),
        ("한국어 문장", ["한국어", "문장"]),  # has spaces
        ("Привет, мир", ["привет", "мир"]),
        ("3.14 + 15%", ["3", "14", "15"]),
        ("…?! 。", []),
        ("", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert units(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tom 说: OK!", 2.5),
        ("他喜欢猫。", 2.0),
        ("He doesn't know.", 3.0),
        ("ひらカタ漢字", 3.0),
        ("𠮷", 0.5),
        ("한국어 문장", 2.0),
        ("!", 0.0),
        ("", 0.0),
    ],
)
def test_word_count(text: str, words: float) -> None:
    assert word_count(text) == words


# One letter case, no apostrophes: what is left is to tell three kinds of characters apart.
PLAIN = st.text(st.sampled_from("abcxyz059éжд한국 .,!?_-。，…（他喜欢猫ぁんァンกาㄱ𠮷豈"))


@given(PLAIN)
def test_units_are_found_by_walking_through_the_characters_too(text: str) -> None:
    found: list[str] = []
    inside = False
    for character in text:
        if re.match(f"[{UNSPACED}]", character):
            found.append(character)
            inside = False
        elif character.isalnum() or (inside and unicodedata.category(character) in ("Mn", "Mc")):
            if inside:
                found[-1] += character
            else:
                found.append(character)
            inside = True
        else:
            inside = False
    assert units(text) == found
    alone = sum(len(unit) == 1 and bool(re.match(f"[{UNSPACED}]", unit)) for unit in found)
    assert word_count(text) == len(found) - alone / 2


@given(st.text(), st.text())
def test_words_of_two_texts_add_up(first: str, second: str) -> None:
    assert word_count(f"{first} {second}") == word_count(first) + word_count(second)


@given(st.text())
def test_units_are_the_text_in_its_order_without_what_is_between(text: str) -> None:
    folded, place = text.casefold(), 0
    for unit in units(text):
        start = folded.index(unit, place)
        assert not any(c.isalnum() for c in folded[place:start])  # nor leave a letter or digit out
        assert unit
        place = start + len(unit)
    assert not any(c.isalnum() for c in folded[place:])


# Words that repeat, in a row or in pairs or within themselves.
LOOPING = st.lists(st.sampled_from(["no", "yes", "我", "hahaha", "hahahaha", "absolutely"]), max_size=14).map(" ".join)


@given(LOOPING, LOOPING)
@example("no", "no no no no")
@example("no", "no yes no yes no yes no yes")
@example("no", "hahahaha")
def test_loops_are_found_whatever_is_looked_at_first(source: str, hypothesis: str) -> None:
    repetitions, count = _repetitions(units(hypothesis)), len(units(hypothesis))
    expected = (
        repetitions >= MIN_LOOP
        and repetitions >= count / UNITS_PER_REPETITION
        and repetitions > _repetitions(units(source)) + LOOP_EXCESS
    )
    assert loops(source, hypothesis) == expected
