import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtdistill import messages
from mtdistill.decoding import Translation
from mtdistill.output_checks import CHECKS, check_translation, check_translations, failure_marker

ZH, EN = "他昨天在图书馆看了一本书。", "He read a book in the library yesterday."


@pytest.mark.parametrize(
    ("source", "hypothesis", "target_lang"),
    [
        (ZH, EN, "en"),
        (EN, ZH, "zh"),
        ("不，不，不！", "No, no, no!", "en"),
        ("哈哈哈。", "Ha ha ha.", "en"),
        ("Hahaha!", "哈哈哈!", "zh"),
        ("哈哈哈哈哈哈", "Hahahahaha", "en"),
        ("Hahahahaha!", "哈哈哈哈哈!", "zh"),
        ("他走啊走啊走啊走。", "He walked and walked and walked and walked.", "en"),
        ("What comes around goes around.", "一报还一报,冤冤相报。", "zh"),
        ("I have tried again and again.", "我试了一次又一次。", "zh"),
        ("很久很久以前", "Long, long, long ago", "en"),
        ("打给 555-5555-5555-5555。", "Call 555-5555-5555-5555.", "en"),
        ("好的。", "OK.", "en"),
        ("Tom.", "Tom.", "zh"),
        ("Ken.", "Ken", "de"),
        ("Berlin, Wien, Paris", "Berlin, Wien, Paris", "de"),  # names stay
        ("I like Python and TensorFlow.", "我喜欢 Python 和 TensorFlow。", "zh"),
        ("我喜欢四川。", "I like Sìchuān.", "en"),
        ("东京大学", "东京大学", "ja"),  # likewise; a character is half a word
        ("?!", "No, no, no!", "en"),
        ("1 + 1 = 2", "1 + 1 = 2", "en"),
        ("……", "...", "en"),
        ("?", "?", "zh"),
        (ZH, "whatever it is", "tlh"),  # a language whose script is not known
    ],
)
def test_good_translations_pass(source: str, hypothesis: str, target_lang: str) -> None:
    assert check_translation(source, hypothesis, target_lang=target_lang) is None


@pytest.mark.parametrize(
    ("check", "source", "hypothesis", "target_lang"),
    [
        ("empty", ZH, "", "en"),
        ("empty", ZH, " ", "en"),
        ("empty", ZH, ".", "en"),
        ("empty", "?", "", "en"),
        ("failure_marker", ZH, "[translation failed]", "en"),
        ("failure_marker", EN, "[翻译失败]", "zh"),
        ("failure_marker", ZH, "[翻译失败]", "en"),
        ("loop", ZH, "the the the the", "en"),
        ("loop", ZH, "He is a man who is a man who is a man who is a man", "en"),
        ("loop", ZH, "No, no, no, no, no", "en"),
        ("loop", ZH, "tototototo the library", "en"),
        ("loop", EN, "他他他他", "zh"),
        ("loop", EN, "我不知道我不知道我不知道我不知道", "zh"),
        ("loop", "不，不！", "No, no, no, no, no!", "en"),
        ("copy", ZH, ZH, "en"),
        ("copy", ZH, "他昨天在图书馆看了一本书", "en"),  # apart from punctuation
        ("copy", EN, EN.lower(), "zh"),
        ("copy", "你好", "你好", "en"),
        ("copy", "Das ist ein Haus", "Das ist ein Haus", "en"),
        ("wrong_script", ZH, "他看了书", "en"),
        ("wrong_script", ZH, "He 昨天在图书馆看书", "en"),
        ("wrong_script", EN, "He read a 书 in the library", "zh"),
        ("wrong_script", ZH, "He read 昨天的一本书", "en"),
        ("wrong_script", EN, "Mary", "zh"),
        ("wrong_script", ZH, "он читал", "en"),
    ],
)
def test_each_failure_is_called_by_its_name(check: str, source: str, hypothesis: str, target_lang: str) -> None:
    assert check_translation(source, hypothesis, target_lang=target_lang) == check


def test_a_translation_that_ran_into_the_cap_fails_however_good_it_looks() -> None:
    assert check_translation(ZH, EN, target_lang="en", hit_length_cap=True) == "length_cap"


def test_the_first_check_that_fails_gives_the_name() -> None:
    assert check_translation(ZH, "", target_lang="en", hit_length_cap=True) == "empty"
    assert check_translation(ZH, "[翻译失败]", target_lang="en", hit_length_cap=True) == "failure_marker"
    assert check_translation(ZH, "the the the the", target_lang="en", hit_length_cap=True) == "length_cap"
    assert check_translation("图书馆", "书" * 9, target_lang="en") == "loop"


@pytest.mark.parametrize(("times", "fails"), [(3, False), (4, True)])
def test_a_pair_of_words_may_come_three_times(times: int, fails: bool) -> None:
    hypothesis = " ".join(f"so he {filler}" for filler in ["went", "ate", "read", "slept"][:times])
    assert (check_translation(ZH, hypothesis, target_lang="en") == "loop") is fails


@pytest.mark.parametrize(("in_source", "fails"), [(1, True), (2, False)])
def test_repetition_is_measured_against_the_source(in_source: int, fails: bool) -> None:
    assert (check_translation("哈" * in_source, "ha ha ha ha", target_lang="en") == "loop") is fails


@pytest.mark.parametrize(("fillers", "fails"), [(30, True), (45, False)])
def test_in_long_text_a_phrase_may_come_back(fillers: int, fails: bool) -> None:
    words = [f"word{i}" for i in range(fillers)]
    for place in (0, 8, 16, 24):
        words.insert(place, "of the")
    assert (check_translation(ZH, " ".join(words), target_lang="en") == "loop") is fails


@given(st.text(), st.text(), st.sampled_from(["zh", "en", "ja", "xx"]), st.booleans())
def test_any_text_gets_an_answer(source: str, hypothesis: str, target_lang: str, hit: bool) -> None:
    assert check_translation(source, hypothesis, target_lang=target_lang, hit_length_cap=hit) in (None, *CHECKS)


def test_the_marker_is_in_the_language_of_the_user_and_fails_in_both() -> None:
    messages.set_language("zh")
    assert failure_marker() == "[翻译失败]"
    messages.set_language("en")
    assert failure_marker() == "[translation failed]"


class TestSets:
    @pytest.mark.parametrize(("count", "expected"), [(4, None), (5, "same_output")])
    def test_one_text_for_five_sources_fails(self, count: int, expected: str | None) -> None:
        sources = [f"{number} 号图书馆" for number in range(count)] + ["别的"]
        translations = [Translation("A library.")] * count + [Translation("Something else.")]
        assert check_translations(sources, translations, target_lang="en") == [expected] * count + [None]

    def test_the_same_source_again_is_no_other_source(self) -> None:
        sources = ["谢谢。", "谢谢!", "谢谢", "谢 谢", "“谢谢”"]
        assert check_translations(sources, [Translation("Thank you.")] * 5, target_lang="en") == [None] * 5

    def test_each_line_is_checked_by_itself_first(self) -> None:
        sources = [f"{number} 号图书馆" for number in range(5)]
        outputs = [Translation("the the the the")] * 4 + [Translation("the the the the", hit_length_cap=True)]
        assert check_translations(sources, outputs, target_lang="en") == ["loop"] * 4 + ["length_cap"]

    def test_both_sides_have_the_same_length(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            check_translations(["a", "b"], [Translation("c")], target_lang="en")
