import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from mtdistill import messages
from mtdistill.evaluation import SpeedUp
from mtdistill.report import ModelCard, ReportCard, render_comparison, write_comparison_html
from mtdistill.report.comparison import PARETO

MakeCard = Callable[..., ReportCard]
Cards = dict[str, ReportCard]


@pytest.fixture
def cards(
    make_card: MakeCard, make_model_card: Callable[..., ModelCard], make_quality: Callable[..., Any],
    make_speed_up: Callable[..., SpeedUp], missed_card: ReportCard,
) -> Cards:  # fmt: skip
    """A small and fast one, a good one, one that the good one beats, and one that missed its promises."""

    def card(parameters: int, bleu: float, ms: float) -> ReportCard:
        return make_card(
            student=make_model_card(parameters),
            qualities=(make_quality(1, 24.31, bleu),),
            speed_ups=(make_speed_up(2.3, 32, student_ms=ms),),
            promised_speed_ups=1,
        )

    return {
        "distillation-aggressive": card(2_800_000, 19.0, 3.0),
        "distillation-balanced": card(4_400_000, 23.4, 4.0),
        "distillation-conservative": card(5_200_000, 23.1, 4.1),
        "distillation-quick": missed_card,
    }


def shown(cards: Cards) -> str:
    out = StringIO()
    Console(file=out, width=80, color_system=None).print(render_comparison(cards), highlight=False)
    return out.getvalue()


def written(cards: Cards, folder: Path) -> str:
    write_comparison_html(cards, folder / "compare.html")
    return (folder / "compare.html").read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_fits_into_80_columns(lang: messages.Language, cards: Cards, make_card: MakeCard) -> None:
    messages.set_language(lang)
    long = {
        **cards,
        "a/rather-long/path/of-folders/distillation-quality": make_card(sentences=9),
        "模型蒸馏": make_card(),
    }
    text = shown(long)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert "23.40" in text
    assert "words" not in text or lang == "en"


def test_a_chinese_name_is_broken_where_its_column_ends(make_card: MakeCard) -> None:
    rows = shown({"中译英第二次试验": make_card()}).splitlines()
    assert any(row.startswith(f"{PARETO} 中译英第二次") for row in rows)
    assert any(row.startswith("  试验") for row in rows)


def test_each_student_has_its_numbers(cards: Cards) -> None:
    lines = shown(cards).splitlines()
    row = next(number for number, line in enumerate(lines) if "balanced" in line) - 1
    assert lines[row].split() == [
        "★", "distillation-", "4.40", "M", "4.20", "23.40", "96.3", "%", "87.3", "%", "2.31x", "2000", "kept",
    ]  # fmt: skip
    assert lines[row + 1].split() == ["balanced", "93.8–99.0"]
    assert "4 missed" in shown(cards)


def test_those_that_no_one_beats_have_a_star(cards: Cards) -> None:
    names = [line.split()[0] for line in shown(cards).splitlines() if "distillation-" in line]
    assert names == ["★", "★", "distillation-", "★"]


@pytest.mark.parametrize("change", [{"sentences": 12}, {"test_set": "news.tsv"}, {"source_lang": "de"}])
def test_another_test_set_is_pointed_out(
    change: dict[str, Any], cards: Cards, make_card: MakeCard, tmp_path: Path
) -> None:
    warning = "foreign was tested on something else"
    assert warning not in words(shown(cards))
    assert warning not in written(cards, tmp_path)
    mixed = {"foreign": make_card(**change), **cards}
    assert warning in words(shown(mixed))
    assert warning in written(mixed, tmp_path)
    for value in change.values():
        assert str(value) in words(shown(mixed)).split(warning)[1]


def test_on_another_test_set_no_one_is_beaten(cards: Cards, make_card: MakeCard, make_quality: Any) -> None:
    poor = {"qualities": (make_quality(1, 24.31, 0.5),), "student": cards["distillation-conservative"].student}
    poor["speed_ups"] = cards["distillation-conservative"].speed_ups
    assert "★ poor" not in shown({**cards, "poor": make_card(**poor, promised_speed_ups=1)})
    assert "★ poor" in shown({**cards, "poor": make_card(**poor, promised_speed_ups=1, sentences=12)})


def test_other_conditions_of_speed_are_pointed_out(
    cards: Cards, make_card: MakeCard, make_speed_up: Callable[..., SpeedUp], tmp_path: Path
) -> None:
    assert "Words/s were measured" not in words(shown(cards))
    mixed = {**cards, "threaded": make_card(speed_ups=(make_speed_up(2.0, 32, threads=2),), promised_speed_ups=1)}
    assert "Words/s were measured under different conditions" in words(shown(mixed))
    assert "2 thread(s), batch 32, beam 1" in written(mixed, tmp_path)


def test_other_teachers_are_pointed_out(cards: Cards, make_card: MakeCard, make_quality: Any, tmp_path: Path) -> None:
    assert "teachers differ" not in words(shown(cards))
    mixed = {**cards, "other": make_card(qualities=(make_quality(1, 30.0, 22.0),))}
    assert "The teachers differ" in words(shown(mixed))
    assert "The teachers differ" in written(mixed, tmp_path)


def test_the_page_has_the_table_the_plots_and_every_promise(cards: Cards, tmp_path: Path) -> None:
    text = written(cards, tmp_path)
    assert re.findall("<h2>(.*?)</h2>", text) == ["Overview", "Size, quality and speed", "Promises"]
    assert len(re.findall("<svg ", text)) == 2
    assert ">★ distillation-balanced</text>" in text
    assert ">distillation-conservative</text>" in text
    assert text.count('<strong class="kept">') == 12
    assert text.count('<strong class="missed">') == 4
    assert "stroke-dasharray" in text
    assert "http://" not in text
    assert "https://" not in text


def test_the_teacher_is_on_the_plots_but_is_no_student(cards: Cards, tmp_path: Path) -> None:
    text = written(cards, tmp_path)
    assert text.count(">teacher</text>") == 2
    assert "teacher" not in [cell for line in shown(cards).splitlines() for cell in line.split()]


def test_a_model_of_no_preset_has_a_row(cards: Cards, unpromised_card: ReportCard, tmp_path: Path) -> None:
    mixed = {"teacher": unpromised_card, **cards}
    (row,) = [line for line in shown(mixed).splitlines() if "teacher" in line and "%" in line]
    assert row.split()[-3:] == ["2.31x", "2000", "none"]
    assert written(mixed, tmp_path).count('<strong class="unpromised">') == 4


def test_the_page_speaks_chinese(cards: Cards, tmp_path: Path) -> None:
    messages.set_language("zh")
    text = written(cards, tmp_path)
    assert '<html lang="zh-CN">' in text
    assert "学生模型比较" in text


def test_hostile_names_stay_names(cards: Cards, hostile: str, tmp_path: Path) -> None:
    named = {hostile: cards["distillation-balanced"], "\x1b[31mred": cards["distillation-quick"]}
    text = written(named, tmp_path)
    assert "<script" not in text
    assert "<img" not in text
    terminal = shown(named)
    assert "\x1b" not in terminal
    assert all(cell_len(line) <= 80 for line in terminal.splitlines())


def test_one_student_is_enough(good_card: ReportCard, tmp_path: Path) -> None:
    assert "★ only" in shown({"only": good_card})
    assert ">★ only</text>" in written({"only": good_card}, tmp_path)


def test_a_browser_reads_it(cards: Cards, tmp_path: Path, dump_dom: Callable[[Path], str]) -> None:
    written(cards, tmp_path)
    dom = dump_dom(tmp_path / "compare.html")
    assert "<h1>Students compared</h1>" in dom
    assert len(re.findall("<svg ", dom)) == 2
