import json
import math
from typing import Any

import pytest

from mtdistill.errors import DataError
from mtdistill.report import ReportCard


def test_json_gives_the_same_card_back(good_card: ReportCard, failed_card: ReportCard) -> None:
    for card in (good_card, failed_card):
        assert ReportCard.from_json(card.to_json()) == card


def test_json_has_its_version_its_numbers_and_readable_text(good_card: ReportCard) -> None:
    text = good_card.to_json()
    assert "你在干什么啊" in text
    assert text.endswith("}\n")
    values = json.loads(text)
    assert values["schema_version"] == 2
    assert values["promises"][0] == {"name": "compression_ratio", "expected": 2.5, "measured": 2.51, "kept": True}
    assert values["qualities"][0]["student"]["bleu"] == 22.17
    assert values["success"]["failures"] == {"loop": 12, "wrong_script": 1, "far_below_teacher": 176}
    assert values["speed_ups"][0]["cpu"] == "Examplium 9000 [rev. 2]"


def test_keys_are_those_that_are_documented(good_card: ReportCard) -> None:
    from mtdistill.report import card as module

    documented = module.__doc__ or ""
    missing = [key for key in json.loads(good_card.to_json()) if key not in documented]
    assert missing == []


@pytest.mark.parametrize(
    ("change", "named"),
    [({"schema_version": 1}, "schema_version"), ({"invented": 1}, "invented"), ({"verdict": "great"}, "verdict"),
     ({"teacher": {}}, r"teacher\.parameters"), ({"speed_ups": [{}]}, r"speed_ups\.0\."),
     ({"speed_ups": []}, "speed_ups"), ({"qualities": []}, "qualities"), ({"sentences": 0}, "sentences"),
     ({"compression_ratio": math.nan}, ".*compression_ratio is no number between"),
     ({"teacher": {"parameters": 10**4000}}, r".*teacher\.parameters is no number between"),
     ({"samples": [{"references": []}]}, r"samples\.0\.")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(good_card: ReportCard, change: dict[str, object], named: str) -> None:
    values = json.loads(good_card.to_json()) | change
    with pytest.raises(DataError, match=rf"report card could not be read: got {named}.*mtdistill test"):
        ReportCard.from_json(json.dumps(values))


@pytest.mark.parametrize(("name", "value"), [("sentences", 0), ("teacher", {"seconds": 0.0})])
def test_a_speed_without_time_or_sentences_is_refused(good_card: ReportCard, name: str, value: Any) -> None:
    values = json.loads(good_card.to_json())
    speed = values["speed_ups"][1]
    speed[name] = speed[name] | value if isinstance(value, dict) else value
    with pytest.raises(DataError, match=r"speed_ups\.1: sentences or seconds"):
        ReportCard.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="could not be read"):
        ReportCard.from_json(text)


def test_only_a_card_without_a_miss_keeps_its_promises(
    good_card: ReportCard, missed_card: ReportCard, failed_card: ReportCard
) -> None:
    assert [card.keeps_promises for card in (good_card, missed_card, failed_card)] == [True, False, False]


def test_promises_are_found_by_name(missed_card: ReportCard) -> None:
    assert (missed_card.promise("speed_up").measured, missed_card.promise("speed_up").kept) == (1.32, False)
