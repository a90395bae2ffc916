"""From a figure to inline SVG that takes its colours and fonts from the page around it.

Small enough to be read at its own size on a phone. Text stays text, which the browser draws in its own fonts, and every
colour is a custom property of the page, so that one plot serves a light and a dark page. Imported by report.html,
report.plots and report.trade_off.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 340.0, 224.0  # points; a phone shows about as many
FONT_SIZE = 10.0  # points
_TOP, _RIGHT, _BOTTOM, _LEFT = 26.0, 8.0, 38.0, 52.0  # points around the axes, for legend, ticks and labels
_CELL = 0.58  # width of half a Han character, or of a wide letter, in font sizes

# What matplotlib draws with; the custom property ``--plot-<name>`` of the page takes its place. No two may be equal.
COLOURS = {
    "ink": "#010101",
    "grid": "#020202",
    "teacher": "#030303",
    "student": "#040404",
    "accent": "#050505",
    "other": "#060606",
    "paper": "#070707",
}
_STYLE: dict[Any, Any] = {  # what matplotlib accepts as a key depends on its version
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in the name of a run is a dollar sign
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, which measures with it
    "font.size": FONT_SIZE,
    "text.color": COLOURS["ink"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Plot:
    """A plot, ready to be put into a page.

    Attributes:
        title: what it shows.
        description: its numbers in words, for those who do not see it.
        svg: the element, without a document around it.
    """

    title: str
    description: str
    svg: str


@contextmanager
def drawing(title: str) -> Iterator[None]:
    """Figures that are made and finished in this block look like the page; their inner names are made from `title`."""
    from matplotlib import rc_context

    with rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # Chinese, which is measured and not drawn
        yield


def new_figure(*, height: float = HEIGHT, left: float = _LEFT, top: float = _TOP) -> tuple[Figure, Axes]:
    """A figure with one pair of axes.

    Args:
        height: of the figure in points; its width is always the same.
        left: points left of the axes, for the labels of their ticks.
        top: points above the axes; what is given by default holds a legend.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72))
    size = (WIDTH - left - _RIGHT) / WIDTH, (height - top - _BOTTOM) / height
    return figure, figure.add_axes((left / WIDTH, _BOTTOM / height, *size))


def add_legend(axes: Axes) -> None:
    """A legend in one row above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=4, columnspacing=2.2, handlelength=1.4)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """About how wide a text is, in points; a little more than it is."""
    return cell_len(text) * _CELL * size


def finished(figure: Figure, title: str, description: str) -> Plot:
    """The figure as an element of a page."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    label = escape(f"{title}. {description}")
    opening = f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">'
    svg = re.sub(r"^<svg[^>]*>", lambda _: opening, svg)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure, and nothing refers to them
    svg = re.sub(r"font: (?:\d+ )?([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # as some versions write it
    svg = re.sub(r"font-family: [^;\"]*;? *", "", svg)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--plot-{name})")
    return Plot(title, description, svg)
