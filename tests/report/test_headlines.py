from collections.abc import Callable

import pytest

from mtdistill import messages
from mtdistill.report import ReportCard
from mtdistill.report.headlines import headlines

MakeCard = Callable[..., ReportCard]


def test_promises_are_written_as_in_presets(good_card: ReportCard) -> None:
    found = headlines(good_card)
    assert [each.title for each in found] == ["Compression", "Success rate", "Speed-up", "Quality retention"]
    assert [each.expected for each in found] == ["2.5x", "60 %", "2x", "70 %"]
    assert [each.measured for each in found] == ["2.51x", "87.3 %", "2.31x", "91.2 %"]


def test_each_has_its_state_in_either_language(full_card: ReportCard) -> None:
    found = headlines(full_card)
    assert [each.kind for each in found] == ["kept", "kept", "missed", "missed"]
    assert [each.state for each in found] == ["kept", "kept", "missed", "missed"]
    messages.set_language("zh")
    assert [each.state for each in found] == ["达标", "达标", "未达标", "未达标"]


def test_remarks_say_what_one_must_know(good_card: ReportCard) -> None:
    assert [each.remark for each in headlines(good_card)] == [
        "8.88 M → 3.54 M", "teacher's ceiling 96.1 %", "slowest of 2 conditions", "95 % interval 88.7–93.9",
    ]  # fmt: skip


class TestUnpromised:
    def test_numbers_are_shown_without_a_judgement(self, unpromised_card: ReportCard) -> None:
        found = headlines(unpromised_card)
        assert [each.measured for each in found] == ["2.51x", "87.3 %", "2.31x", "91.2 %"]
        assert {(each.expected, each.kept, each.state, each.kind) for each in found} == {("", None, "", "unpromised")}

    @pytest.mark.parametrize(("conditions", "slowest"), [(0, "2.31x"), (2, "2.31x"), (3, "0.50x")])
    def test_the_slowest_of_the_first_conditions_counts(
        self, conditions: int, slowest: str, unpromised_card: ReportCard
    ) -> None:
        speed_ups = list(unpromised_card.speed_ups)
        speed_ups[2] = type(speed_ups[2])(**{**speed_ups[2].__dict__, "ratio": 0.5})
        card = unpromised_card.model_copy(
            update={"promised_speed_ups": conditions, "speed_ups": tuple(speed_ups)},
        )
        assert headlines(card)[2].measured == slowest
