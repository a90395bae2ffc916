import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdistill.decoding import Translation
from mtdistill.evaluation import FailedExample, success_rate
from mtdistill.output_checks import CHECKS

few_examples = settings(max_examples=50)
SOURCES = ["他昨天看了一本书。", "她喜欢喝茶。", "今天天气很好。", "我们明天去北京。"]
REFERENCES = [
    ["He read a book yesterday."],
    ["She likes to drink tea.", "She likes tea."],
    ["The weather is nice today."],
    ["We are going to Beijing tomorrow."],
]
GOOD = [Translation(references[0]) for references in REFERENCES]


def rated(student: list[Translation], teacher: list[Translation]):  # type: ignore[no-untyped-def]
    return success_rate(SOURCES, student, teacher, REFERENCES, "en")


def test_good_translations_succeed() -> None:
    success = rated(GOOD, GOOD)
    assert (success.rate, success.teacher_rate, success.failures, success.examples) == (1.0, 1.0, {}, {})


def test_failures_are_counted_by_the_first_check_with_examples() -> None:
    student = [Translation(""), Translation("She likes", hit_length_cap=True), Translation(""), GOOD[3]]
    success = rated(student, GOOD)
    assert success.rate == 0.25
    assert success.failures == {"empty": 2, "length_cap": 1}
    assert success.examples == {
        "empty": (FailedExample(SOURCES[0], ""), FailedExample(SOURCES[2], "")),
        "length_cap": (FailedExample(SOURCES[1], "She likes"),),
    }


def test_the_ceiling_is_what_the_teacher_passes() -> None:
    teacher = [Translation("the the the the the"), GOOD[1], Translation(SOURCES[2]), GOOD[3]]
    success = rated(GOOD, teacher)
    assert (success.rate, success.teacher_rate) == (1.0, 0.5)


def test_second_tries_are_counted_for_both() -> None:
    tried = [Translation(each.text, second_try=True) for each in GOOD]
    success = rated([*tried[:3], GOOD[3]], [tried[0], *GOOD[1:]])
    assert (success.rate, success.second_tries, success.teacher_second_tries) == (1.0, 3, 1)
    assert rated(GOOD, GOOD).second_tries == 0


class TestOfTheTeacher:
    def test_failures_are_counted_like_those_of_the_student(self) -> None:
        bad = [Translation(""), Translation("She likes", hit_length_cap=True), Translation(""), GOOD[3]]
        success, swapped = rated(GOOD, bad), rated(bad, GOOD)
        assert success.teacher_failures == swapped.failures == {"empty": 2, "length_cap": 1}
        assert success.teacher_examples == swapped.examples
        assert success.teacher_examples["empty"] == (FailedExample(SOURCES[0], ""), FailedExample(SOURCES[2], ""))
        assert (success.failures, success.examples) == ({}, {})
        assert (swapped.teacher_failures, swapped.teacher_examples) == ({}, {})

    def test_both_may_fail_at_different_sentences(self) -> None:
        success = rated([Translation(""), *GOOD[1:]], [*GOOD[:3], Translation(SOURCES[3])])
        assert (success.failures, success.teacher_failures) == ({"empty": 1}, {"copy": 1})
        assert success.examples == {"empty": (FailedExample(SOURCES[0], ""),)}
        assert success.teacher_examples == {"copy": (FailedExample(SOURCES[3], SOURCES[3]),)}

    def test_a_teacher_is_not_held_against_itself(self) -> None:
        strange = Translation("Unknown words only.")
        success = rated([*GOOD[:3], strange], [*GOOD[:3], strange])
        assert (success.teacher_rate, success.teacher_failures) == (1.0, {})
        better = rated(GOOD, [*GOOD[:3], strange])  # nor against a student that is better
        assert (better.teacher_rate, better.teacher_failures) == (1.0, {})

    def test_three_examples_of_each_check_are_kept_in_the_order_of_the_sentences(self) -> None:
        sources = [f"{number} 号图书馆在哪里" for number in range(6)]
        references = [["Where is the library?"]] * 6
        same = [Translation("Where is the library?")] * 6
        success = success_rate(sources, same, same, references, "en")
        assert success.teacher_failures == {"same_output": 6}
        assert [example.source for example in success.teacher_examples["same_output"]] == sources[:3]

    def test_checks_are_listed_in_their_order(self) -> None:
        teacher = [Translation("她喜欢"), Translation(SOURCES[1]), Translation(""), GOOD[3]]
        success = rated(GOOD, teacher)
        assert list(success.teacher_failures) == list(success.teacher_examples) == ["empty", "copy", "wrong_script"]


@pytest.mark.parametrize(
    ("teacher_text", "student_text", "enough"),
    [
        (GOOD[3].text, "We are going to Be", True),
        (GOOD[3].text, "We are going to", False),
        ("We are going to Beij", "We are going", True),  # half of the teacher's, not of what is possible
        ("We are going to Beij", "Were you there?", False),
        ("Other sounds.", "Unknown words only.", True),
        ("Unknown words only.", "Unknown words only.", True),
    ],
)
def test_half_of_the_teachers_chrf_is_enough(teacher_text: str, student_text: str, enough: bool) -> None:
    scores = [sacrebleu.sentence_chrf(text, REFERENCES[3]).score for text in (student_text, teacher_text)]
    assert (scores[0] >= scores[1] / 2) is enough
    success = rated([*GOOD[:3], Translation(student_text)], [*GOOD[:3], Translation(teacher_text)])
    assert success.failures == ({} if enough else {"far_below_teacher": 1})


def test_every_reference_counts() -> None:
    references = [["She likes to drink tea.", "A cuppa is her favourite."]]
    student, teacher = [Translation("A cuppa is her favourite.")], [Translation("She likes to drink tea.")]
    assert success_rate(SOURCES[1:2], student, teacher, references, "en").rate == 1.0
    assert success_rate(SOURCES[1:2], student, teacher, [references[0][:1]], "en").rate == 0.0


def test_one_text_for_five_sources_is_found_in_the_set() -> None:
    sources = [f"{number} 号图书馆在哪里" for number in range(6)]
    references = [["Where is the library?"]] * 6
    same = [Translation("Where is the library?")] * 6
    success = success_rate(sources, same, same, references, "en")
    assert (success.rate, success.teacher_rate, success.failures) == (0.0, 0.0, {"same_output": 6})
    assert len(success.examples["same_output"]) == 3


def test_checks_are_listed_in_their_order() -> None:
    student = [Translation("Unknown words only."), Translation("她喜欢"), Translation(""), GOOD[3]]
    success = rated(student, GOOD)
    assert list(success.failures) == list(success.examples) == ["empty", "wrong_script", "far_below_teacher"]
    assert [name for name in CHECKS if name in success.failures] == ["empty", "wrong_script"]


@pytest.mark.parametrize("shortened", [0, 1, 2, 3])
def test_all_lists_have_the_same_length(shortened: int) -> None:
    lists = [SOURCES, GOOD, GOOD, REFERENCES]
    lists[shortened] = lists[shortened][:2]
    with pytest.raises(ValueError, match="zip"):
        success_rate(*lists, "en")  # type: ignore[arg-type]


@few_examples
@given(st.lists(st.tuples(*[st.sampled_from(["", "the the the the the", "good", "他看了书"])] * 2), min_size=1))
def test_rates_and_counts_are_about_the_same_sentences(pairs: list[tuple[str, str]]) -> None:
    sources = [f"{number} 号图书馆在哪里" for number in range(len(pairs))]
    student, teacher = ([Translation(text) for text in texts] for texts in zip(*pairs, strict=True))
    success = success_rate(sources, student, teacher, [["good"]] * len(pairs), "en")
    for rate, failures, examples in (
        (success.rate, success.failures, success.examples),
        (success.teacher_rate, success.teacher_failures, success.teacher_examples),
    ):
        assert rate == pytest.approx(1 - sum(failures.values()) / len(pairs))
        assert {name: len(found) for name, found in examples.items()} == {
            name: min(count, 3) for name, count in failures.items()
        }
    for texts, failures in ((student, success.failures), (teacher, success.teacher_failures)):
        assert failures.get("empty", 0) == [translation.text for translation in texts].count("")
