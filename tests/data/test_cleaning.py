import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtdistill.data.cleaning import (
    FREE_CHARACTERS,
    MAX_CHARACTERS,
    MAX_LENGTH_RATIO,
    RULE_NAMES,
    CleaningReport,
    Pair,
    clean,
)

GOOD = Pair("你好吗", "how are you")
# For each rule, a pair that it drops and no other rule does.
BAD = {
    "empty": Pair(" \u3000 ", "hello"),
    "too_long": Pair("好" * (MAX_CHARACTERS + 1), "a" * MAX_CHARACTERS),
    "encoding_damage": Pair("你好", "caf\ufffd"),
    "length_ratio": Pair("好", "a" * (FREE_CHARACTERS + int(MAX_LENGTH_RATIO) + 1)),
    "copy": Pair("2024。", "２０２４！"),
    "wrong_script": Pair("bonjour", "hello"),
    "duplicate": Pair("你好吗", " how  are\u3000you "),
}


def cleaned(pairs: Iterable[Pair], rules: Iterable[str] = RULE_NAMES) -> tuple[list[Pair], CleaningReport]:
    kept, report = clean(pairs, "zh", "en", rules)
    return list(kept), report


def test_every_rule_has_an_example() -> None:
    assert tuple(BAD) == RULE_NAMES


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_a_rule_drops_its_example_and_counts_it(rule: str) -> None:
    assert cleaned([GOOD, BAD[rule]]) == ([GOOD], CleaningReport(read=2, kept=1, dropped=Counter([rule])))


@pytest.mark.parametrize("rule", [rule for rule in RULE_NAMES if rule != "empty"])
def test_a_rule_that_is_switched_off_drops_nothing(rule: str) -> None:
    kept, report = cleaned([GOOD, BAD[rule]], [name for name in RULE_NAMES if name != rule])
    assert (len(kept), report.dropped) == (2, {})


def test_the_longer_side_may_be_either() -> None:
    pair = Pair("好" * (FREE_CHARACTERS + int(MAX_LENGTH_RATIO) + 1), "a")
    assert cleaned([pair])[1].dropped == {"length_ratio": 1}


def test_an_empty_side_is_dropped_whatever_the_rules() -> None:
    assert cleaned([BAD["empty"], GOOD, GOOD], ()) == ([GOOD, GOOD], CleaningReport(3, 2, Counter(["empty"])))


def test_the_rules_may_be_any_iterable() -> None:
    assert cleaned(BAD.values(), iter(RULE_NAMES)) == cleaned(BAD.values())


def test_a_pair_is_counted_under_the_first_rule_that_drops_it() -> None:
    everything_wrong = Pair("caf\ufffd" * MAX_CHARACTERS, "caf\ufffd" * MAX_CHARACTERS)
    assert cleaned([everything_wrong])[1].dropped == {"too_long": 1}
    assert cleaned([everything_wrong], RULE_NAMES[2:])[1].dropped == {"encoding_damage": 1}
    assert cleaned([everything_wrong], ["wrong_script", "copy"])[1].dropped == {"copy": 1}


@pytest.mark.parametrize(
    "pair",
    [
        Pair("好" * MAX_CHARACTERS, "a" * MAX_CHARACTERS),
        Pair("好", "a" * (FREE_CHARACTERS + int(MAX_LENGTH_RATIO))),
        Pair("好" * (FREE_CHARACTERS + int(MAX_LENGTH_RATIO)), "a"),
        Pair("2024", "2025"),
        Pair("汤姆爱Tom", "Tom likes 汤姆"),
    ],
    ids=["length", "ratio", "ratio the other way", "not quite a copy", "half the script"],
)
def test_what_just_passes_the_rules(pair: Pair) -> None:
    assert cleaned([pair])[0] == [pair]


def test_what_is_kept_is_normalised() -> None:
    assert cleaned([Pair(" 漢字　ＡＢ ", "a\u00a0 b")])[0] == [Pair("汉字 AB", "a b")]


def test_damage_is_seen_before_normalising_hides_it() -> None:
    assert cleaned([Pair("你\x85好", "hello")])[1].dropped == {"encoding_damage": 1}


def test_other_translations_of_a_sentence_are_no_duplicates() -> None:
    pairs = [GOOD, Pair(GOOD.source, "how do you do"), Pair("您好吗", GOOD.target), Pair("你好吗?", GOOD.target)]
    assert cleaned(pairs)[0] == pairs


def test_the_stream_is_read_no_further_than_asked_for() -> None:
    numbers = itertools.count(1)
    kept, report = clean((Pair(f"第{number}个", f"number {number}") for number in numbers), "zh", "en")
    assert [next(kept).target for _ in range(3)] == ["number 1", "number 2", "number 3"]
    assert report.read == 3
    assert next(numbers) == 4


@given(st.lists(st.builds(Pair, st.text("你好a é\ufffd1"), st.text("hi 你!2")), max_size=8))
def test_every_pair_is_either_kept_or_counted_and_cleaning_twice_is_cleaning_once(pairs: list[Pair]) -> None:
    kept, report = cleaned(pairs)
    assert report.read == len(pairs) == report.kept + sum(report.dropped.values())
    assert report.kept == len(kept) == len(set(kept))
    assert cleaned(kept)[0] == kept
