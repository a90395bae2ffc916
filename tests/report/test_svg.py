import re
import warnings

import pytest

from mtdistill.report.svg import COLOURS, Plot, drawing, finished, new_figure


def plotted(label: str, title: str = "A title") -> Plot:
    with drawing(title):
        figure, axes = new_figure()
        axes.plot([0, 1], [2, 3], color=COLOURS["student"], marker="o")
        axes.set_xlabel(label)
        return finished(figure, title, "from 2 to 3")


def test_text_stays_text_in_the_fonts_of_the_page() -> None:
    svg = plotted("epoch 轮").svg
    assert re.search(r"<text [^>]*>epoch 轮</text>", svg)
    assert "font-size: 10px" in svg
    assert "DejaVu" not in svg


def test_colours_are_those_of_the_page() -> None:
    svg = plotted("x").svg
    assert "var(--plot-student)" in svg
    assert "var(--plot-ink)" in svg
    assert not [colour for colour in COLOURS.values() if colour in svg]
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_it_is_an_element_that_says_what_it_shows() -> None:
    svg = plotted("x").svg
    opening = svg.split(">")[0]
    assert opening.startswith('<svg viewBox="0 0 ')
    assert 'role="img" aria-label="A title. from 2 to 3"' in opening
    assert svg.endswith("</svg>")
    assert "http" not in svg
    assert "<style" not in svg  # would reach the whole page


def test_no_inner_name_is_used_twice_in_a_page() -> None:
    names = [re.findall(r' id="([^"]*)"', plotted("x", title).svg) for title in ("one", "two")]
    assert names[0]
    assert not set(names[0]) & set(names[1])
    assert plotted("x").svg == plotted("x").svg  # the same at every run


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "a & b", "$x^2$"])
def test_labels_are_shown_as_they_are(label: str) -> None:
    from html import escape

    assert f">{escape(label, quote=False)}</text>" in plotted(label).svg
    assert "<script" not in plotted(label, title=label).svg


def test_chinese_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotted("参考译文")


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    from matplotlib import rcParams

    before = rcParams["svg.fonttype"], rcParams["text.color"]
    plotted("x")
    assert (rcParams["svg.fonttype"], rcParams["text.color"]) == before
