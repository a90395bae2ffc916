from collections.abc import Callable
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from mtdistill import messages
from mtdistill.evaluation import FailedExample, Success
from mtdistill.report import ReportCard, Sample, render

MakeCard = Callable[..., ReportCard]


def shown(card: ReportCard, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(render(card), highlight=False)
    return out.getvalue()


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", ["good_card", "missed_card", "failed_card"])
def test_fits_into_80_columns_with_every_number(
    lang: messages.Language, name: str, request: pytest.FixtureRequest
) -> None:
    messages.set_language(lang)
    card: ReportCard = request.getfixturevalue(name)
    text = shown(card)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    for number in ("2.5x", "60 %", "2.0x", "70 %", "96.1 %", "88.7–93.9", "8.88 M", "3.54 M", "33.9 / 8.5", "24.31",
                   "0.03", "22.40x", "2.21–2.51", "1491", "12.6", "Examplium 9000 [rev. 2]", "tok:13a"):  # fmt: skip
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
    assert first.endswith(f"quick · zh→en: {verdict}")


def test_promises_are_marked_one_by_one(good_card: ReportCard, make_card: MakeCard) -> None:
    promises = tuple(p.model_copy(update={"kept": p.name != "speed_up"}) for p in good_card.promises)
    rows = [
        line
        for line in shown(make_card(promises=promises, verdict="missed")).splitlines()
        if "  kept" in line or "missed" in line
    ][1:]
    assert [("missed" in row, row.split()[0]) for row in rows] == [
        (False, "Compression"), (False, "Success"), (True, "Speed-up"), (False, "Quality"),
    ]  # fmt: skip


def test_data_is_shown_as_it_is(good_card: ReportCard) -> None:
    text = shown(good_card)
    assert "[括号] 请把 [/bold] 打开" in text
    assert "open [bold]the[/bold] [red]door" in text


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
    success = Success(0.9, 1.0, {"loop": 1}, {"loop": (FailedExample("源", "word " * 200),)})
    text = shown(make_card(success=success, samples=()))
    assert text.count("word") == 16
    assert "…" in text


def test_what_is_not_known_is_left_out(make_card: MakeCard) -> None:
    text = shown(make_card(random_bleu=None, training_seconds=None, success=Success(1.0, 1.0, {}, {})))
    assert "random start" not in text
    assert "training:" not in text
    assert "Translations that failed" not in text
    assert "What to do" not in text


def test_advice_is_part_of_the_card(missed_card: ReportCard) -> None:
    text = shown(missed_card)
    assert "What to do" in text
    assert "Quality is too low" in text


def test_an_unknown_check_is_shown_by_its_name(make_card: MakeCard) -> None:
    success = Success(0.9, 1.0, {"new_check": 1}, {"new_check": (FailedExample("源", "x"),)})
    assert "new_check" in shown(make_card(success=success))


def test_ascii_terminals_do_not_break(good_card: ReportCard) -> None:
    out = StringIO()
    Console(file=out, width=80, color_system=None, legacy_windows=True).print(render(good_card), highlight=False)
    assert "Compression" in out.getvalue()
