from collections.abc import Callable
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from mtdistill import messages
from mtdistill.evaluation import FailedExample, Success
from mtdistill.report import CometScores, ModelCard, ReportCard, Sample, render

MakeCard = Callable[..., ReportCard]


def shown(card: ReportCard, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(render(card), highlight=False)
    return out.getvalue()


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", ["good_card", "missed_card", "failed_card", "full_card", "unpromised_card"])
def test_fits_into_80_columns(lang: messages.Language, name: str, request: pytest.FixtureRequest) -> None:
    messages.set_language(lang)
    text = shown(request.getfixturevalue(name))
    assert all(cell_len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_number_is_there(lang: messages.Language, good_card: ReportCard) -> None:
    messages.set_language(lang)
    text = shown(good_card)
    for number in ("2.5x", "60 %", "2x", "70 %", "96.1 %", "88.7–93.9", "8.88 M", "3.54 M", "33.9", "16.9", "8.5", "98",
                   "24.31", "22.17", "25.02", "22.74", "43.2", "0.03", "22.4x", "2.21–2.51", "3.5/8.0", "1491", "12.6",
                   "Examplium 9000 [rev. 2]", "tok:13a"):  # fmt: skip
        assert number in text


@pytest.mark.parametrize(
    ("name", "lang", "verdict"),
    [
        ("good_card", "en", "every promise is kept"), ("good_card", "zh", "全部达标"),
        ("missed_card", "en", "4 of 4 promises missed"), ("missed_card", "zh", "4 项中 4 项未达标"),
        ("failed_card", "en", "training failed"), ("failed_card", "zh", "训练失败"),
    ],
)  # fmt: skip
def test_the_first_line_is_the_verdict(
    name: str, lang: messages.Language, verdict: str, request: pytest.FixtureRequest
) -> None:
    messages.set_language(lang)
    first = shown(request.getfixturevalue(name)).splitlines()[0]
    assert first.endswith(f"quick · zh→en{messages.colon()}{verdict}")


def test_promises_are_marked_one_by_one(good_card: ReportCard, make_card: MakeCard) -> None:
    promises = tuple(p.model_copy(update={"kept": p.name != "speed_up"}) for p in good_card.promises)
    rows = [
        line
        for line in shown(make_card(promises=promises, verdict="missed")).splitlines()
        if "x  kept" in line or "%  kept" in line or "  missed" in line
    ]
    assert [("missed" in row, row.split()[0]) for row in rows] == [
        (False, "Compression"), (False, "Success"), (True, "Speed-up"), (False, "Quality"),
    ]  # fmt: skip


def test_data_is_shown_as_it_is(good_card: ReportCard) -> None:
    text = shown(good_card)
    assert "[括号] 请把 [/bold] 打开" in text
    assert "open [bold]the[/bold]" in text
    assert "[red]door" in text


def test_a_failed_sample_says_why(good_card: ReportCard) -> None:
    lines = shown(good_card).splitlines()
    assert any("他看了书 (wrong script)" in line for line in lines)
    assert not any("What are you doing? (" in line for line in lines)


def test_five_samples_are_shown(make_card: MakeCard) -> None:
    samples = tuple(
        Sample(source=f"源{n}", references=(f"reference {n}",), teacher="t", student="s", failure=None)
        for n in range(8)
    )
    text = shown(make_card(samples=samples))
    assert "源4" in text
    assert "源5" not in text


def test_a_long_example_is_cut(make_card: MakeCard) -> None:
    success = Success(0.9, 1.0, {"loop": 1}, {"loop": (FailedExample("源", "never " * 200),)}, {}, {})
    text = shown(make_card(success=success))
    assert text.count("never") == 10
    assert "…" in text


def words(text: str) -> str:
    return " ".join(text.split())


def row_of(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(name)).split()


def test_failures_stand_beside_the_teachers(good_card: ReportCard) -> None:
    text = shown(good_card)
    assert row_of(text, "repeats itself")[2:8] == ["12", "(0.8", "%)", "55", "(3.7", "%)"]
    assert row_of(text, "far below the teacher")[4:8] == ["176", "(11.8", "%)", "–"]
    assert row_of(text, "copies the source")[3:] == ["0", "3", "(0.2", "%)", "汤姆"]


def test_lengths_and_rarities_stand_side_by_side(good_card: ReportCard) -> None:
    text = shown(good_card)
    assert row_of(text, "≥ 20") == [
        "≥",
        "20",
        "200",
        "25.0",
        "14.0",
        "56",
        "%",
        "≥",
        "1000",
        "200",
        "25.0",
        "14.0",
        "56",
        "%",
    ]


def test_without_rarities_lengths_stand_alone(make_card: MakeCard) -> None:
    text = shown(make_card(by_rarity=()))
    assert row_of(text, "≥ 20") == ["≥", "20", "200", "25.0", "14.0", "56", "%"]
    assert "rarest" not in text


class TestSpeed:
    def test_conditions_stand_under_their_engine(self, full_card: ReportCard) -> None:
        lines = shown(full_card).splitlines()
        engines = [line for line in lines if line.startswith(("CTranslate2", "PyTorch"))]
        assert engines == [
            "CTranslate2 float32", "CTranslate2 int8", "PyTorch float32", "PyTorch float32 → CTranslate2 int8",
        ]  # fmt: skip
        start = lines.index("CTranslate2 int8")
        assert lines[start + 2].split() == ["1", "32", "4", "8.85", "3.69", "2.40x", "2.30–2.60", "2169", "3253"]
        assert lines[start + 3].split() == [
            "1", "1", "1", "6.75", "2.80", "2.41x", "2.31–2.61", "2.3/5.6", "2857", "4286",
        ]  # fmt: skip

    def test_digits_end_where_noise_begins(self, full_card: ReportCard) -> None:
        assert "89.6 4.00 22.4x 22.3–22.6 " in words(shown(full_card))

    def test_what_was_promised_is_marked(self, full_card: ReportCard) -> None:
        lines = shown(full_card).splitlines()
        start = lines.index("CTranslate2 float32") + 1
        assert [line.startswith("●") for line in lines[start : start + 8]] == [True] * 4 + [False] * 4
        assert sum(line.startswith("●") for line in lines) == 4

    def test_an_engine_stands_once_wherever_its_rows_are(self, good_card: ReportCard, make_card: MakeCard) -> None:
        first, second, deployed = good_card.speed_ups
        lines = shown(make_card(speed_ups=(first, deployed, second), promised_speed_ups=1)).splitlines()
        assert lines.count("CTranslate2 float32") == 1
        start = lines.index("CTranslate2 float32")
        assert [line[:1] for line in lines[start + 1 : start + 3]] == ["●", " "]


def test_the_worst_five_are_shown_with_their_scores(good_card: ReportCard) -> None:
    text = shown(good_card)
    assert "Hard sentence 0, about the city. (82)" in text
    assert "He said he said he said he said (12) (repeats itself)" in text
    assert "Hard sentence number 4" in text
    assert "Hard sentence number 5" not in text


def test_comet_is_shown_where_it_was_measured(good_card: ReportCard, make_card: MakeCard) -> None:
    assert "COMET" not in shown(good_card)
    card = make_card(comet=CometScores(model="wmt[22].ckpt", teacher=81.26, student=79.04))
    assert "COMET: teacher 81.3, student 79.0 (wmt[22].ckpt)" in shown(card)


def test_memory_is_shown_where_it_was_measured(
    good_card: ReportCard, make_card: MakeCard, make_model_card: Callable[..., ModelCard]
) -> None:
    assert "peak memory" in shown(good_card)
    card = make_card(teacher=make_model_card(8_882_176), student=make_model_card(3_538_000))
    assert "peak memory" not in shown(card)


def test_texts_do_not_steer_the_terminal(make_card: MakeCard) -> None:
    hostile = "\x1b[31mred\x1b]0;title\x07 \u202eback\nline"
    sample = Sample(source=hostile, references=(hostile,), teacher=hostile, student=hostile, failure=None)
    success = Success(0.9, 1.0, {"loop": 1}, {"loop": (FailedExample(hostile, hostile),)}, {}, {})
    text = shown(make_card(samples=(sample,), success=success, test_set=hostile, form=hostile))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "[31mred" in text


def test_what_is_not_known_is_left_out(make_card: MakeCard) -> None:
    text = shown(make_card(random_bleu=None, training_seconds=None, success=Success(1.0, 1.0, {}, {}, {}, {})))
    assert "random start" not in text
    assert "training:" not in text
    assert "Translations that failed" not in text
    assert "What to do" not in text


def test_advice_is_part_of_the_card(missed_card: ReportCard) -> None:
    text = shown(missed_card)
    assert "What to do" in text
    assert "Quality is too low" in text


def test_an_unknown_check_is_shown_by_its_name(make_card: MakeCard) -> None:
    success = Success(0.9, 1.0, {"new_check": 1}, {"new_check": (FailedExample("源", "x"),)}, {}, {})
    assert "new_check" in shown(make_card(success=success))


def test_a_model_of_no_preset_is_shown_without_promises(unpromised_card: ReportCard) -> None:
    text = shown(unpromised_card)
    assert text.splitlines()[0] == "Report card · zh→en: measured, nothing was promised"
    for number in ("2.51x", "87.3 %", "2.31x", "91.2 %"):
        assert number in text
    for word in ("expected", "●", "promise is", "kept  ", "None"):
        assert word not in text.replace("student  kept", "")


def test_ascii_terminals_do_not_break(good_card: ReportCard) -> None:
    out = StringIO()
    Console(file=out, width=80, color_system=None, legacy_windows=True).print(render(good_card), highlight=False)
    assert "Compression" in out.getvalue()
