import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtdistill import messages
from mtdistill.evaluation import FailedExample, Success
from mtdistill.health.finding import Finding
from mtdistill.health.wording import explain
from mtdistill.report import CometScores, ReportCard, Sample, WorstSample, write_html

MakeCard = Callable[..., ReportCard]
VOID = {"meta", "img", "br", "use", "path", "rect", "circle"}
METRICS: list[dict[str, Any]] = [
    {"epoch": 0.5, "loss": 0.8, "learning_rate": 0.002},
    {"epoch": 1.0, "loss": 0.6, "learning_rate": 0.001},
    {"epoch": 1.0, "eval_bleu": 19.2, "eval_success_rate": 0.892},
]
HEADINGS = {
    "What to do", "Quality and size", "Training", "Where the student is good, and where not", "Translations that failed",
    "Size, quality and speed", "Speed", "Furthest behind the teacher", "Samples", "Conditions", "Settings",
}  # fmt: skip


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, and texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(card: ReportCard, folder: Path, **options: Any) -> str:
    write_html(card, folder / "report.html", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def attacked(make_card: MakeCard, hostile: str) -> ReportCard:
    """A card of which every text is hostile."""
    sample = {"source": hostile, "references": (hostile,), "teacher": hostile, "student": hostile, "failure": hostile}
    failed = {"loop": (FailedExample(hostile, hostile),)}
    return make_card(
        preset=hostile,
        settings={hostile: hostile},
        form=hostile,
        test_set=hostile,
        source_lang=hostile,
        target_lang=hostile,
        engine=hostile,
        mtdistill_version=hostile,
        comet=CometScores(model=hostile, teacher=80, student=79),
        success=Success(0.9, 1.0, {"loop": 1, hostile: 2}, failed, {hostile: 3}, failed),
        samples=(Sample(**sample),),
        worst=(WorstSample(**sample, teacher_chrf=80, student_chrf=1),),
    )


def test_every_part_is_there(full_card: ReportCard, tmp_path: Path) -> None:
    page = Page(written(full_card, tmp_path, metrics=METRICS, others={"balanced": full_card}))
    assert set(page.texts["h2"]) == HEADINGS
    assert page.texts["h1"] == ["Report card · quick · zh→en"]
    assert page.texts["title"] == ["Report card · quick · zh→en"]
    assert page.open == []
    assert [plot["aria-label"].split(".")[0] for plot in page.attributes("svg") if plot["aria-label"]] == [
        "Training loss", "Validation scores", "Validation success rate, %", "Learning rate", "Quality by length",
        "Quality by rarity", "Failed translations, % of all", "Quality against size", "Quality against speed",
    ]  # fmt: skip


@pytest.mark.parametrize(("lang", "attribute"), [("en", "en"), ("zh", "zh-CN")])
def test_it_speaks_the_language_of_the_messages(
    lang: messages.Language, attribute: str, full_card: ReportCard, tmp_path: Path
) -> None:
    messages.set_language(lang)
    page = Page(written(full_card, tmp_path))
    assert page.attributes("html") == [{"lang": attribute}]
    assert ("建议" in page.texts["h2"]) == (lang == "zh")
    assert ("What to do" in page.texts["h2"]) == (lang == "en")


def test_numbers_are_those_of_the_card(full_card: ReportCard, tmp_path: Path) -> None:
    text = written(full_card, tmp_path)
    for number in ("2.51x", "87.3 %", "1.87x", "69.4 %", "66.9–72.1", "24.31", "16.88", "25.02", "8.88 M", "33.9",
                   "135.9/272.8", "14118", "22.4x", "tok:13a", "Examplium 9000 [rev. 2]", "0.002", "12.6 minutes"):  # fmt: skip
        assert number in text


def test_speed_is_shown_in_full_with_what_is_promised_marked(full_card: ReportCard, tmp_path: Path) -> None:
    section = re.search(r"<h2>Speed</h2>.*?</section>", written(full_card, tmp_path), re.DOTALL)
    assert section is not None
    page = Page(section[0].removesuffix("</section>"))
    assert len(page.attributes("tr")) == 1 + len(full_card.speed_ups)
    assert [row.get("class") for row in page.attributes("tr")[1:6]] == ["marked"] * 4 + [None]


def test_promises_stand_on_top_with_their_state(full_card: ReportCard, tmp_path: Path) -> None:
    page = Page(written(full_card, tmp_path))
    cards = [item["class"] for item in page.attributes("li") if (item.get("class") or "").startswith("promise ")]
    assert cards == ["promise kept", "promise kept", "promise missed", "promise missed"]
    assert "verdict missed" in [span.get("class") for span in page.attributes("span")]


def test_every_worst_sentence_is_shown_and_failures_stand_out(good_card: ReportCard, tmp_path: Path) -> None:
    text = written(good_card, tmp_path)
    assert text.count('<dl class="sample">') == 20 + 3
    assert "Hard sentence number 19" in text
    assert len(re.findall(r'<dd lang="en" class="failed">', text)) == 2
    assert '<span class="check" lang="en">wrong script</span>' in text


class TestHealth:
    SPIKES = tuple(Finding("damaged_cache", "failure", update, action="rebuilt") for update in (7, 8, 40))

    def section(self, text: str) -> Page:
        found = re.search(r"<h2>Health of the training</h2>.*?</section>", text, re.DOTALL)
        assert found is not None
        return Page(found[0].removesuffix("</section>"))

    def test_findings_of_a_kind_are_one_with_their_explanation(self, full_card: ReportCard, tmp_path: Path) -> None:
        early = Finding("damaged_cache", "warning", 0, example="<b>shard-0</b>")
        page = self.section(written(full_card, tmp_path, findings=[early, *self.SPIKES]))
        assert [item["class"] for item in page.attributes("li")] == ["warning", "failure"]
        assert page.texts["span"] == ["before training", "3 times, updates 7 to 40"]
        assert [explain(early), explain(self.SPIKES[0])] == [text.strip() for text in page.texts["li"]]

    def test_silence_is_said(self, full_card: ReportCard, tmp_path: Path) -> None:
        assert "were silent" in self.section(written(full_card, tmp_path, findings=[])).texts["p"][0]

    def test_a_run_that_nobody_watched_says_nothing(self, full_card: ReportCard, tmp_path: Path) -> None:
        assert "Health" not in written(full_card, tmp_path)


def test_what_is_not_known_is_left_out(make_card: MakeCard, tmp_path: Path) -> None:
    card = make_card(by_length=(), by_rarity=(), worst=(), success=Success(1.0, 1.0, {}, {}, {}, {}))
    page = Page(written(card, tmp_path))
    assert set(page.texts["h2"]) == {
        "Quality and size", "Size, quality and speed", "Speed", "Samples", "Conditions", "Settings",
    }  # fmt: skip
    assert len(page.attributes("svg")) == 2


def test_a_model_of_no_preset_is_shown_without_promises(unpromised_card: ReportCard, tmp_path: Path) -> None:
    text = written(unpromised_card, tmp_path)
    page = Page(text)
    assert [item["class"] for item in page.attributes("li")[:4]] == ["promise unpromised"] * 4
    assert "2.51x" in text
    assert "Settings" not in page.texts["h2"]
    for word in ("expected", "None", "held against", 'class="marked"'):
        assert word not in text


def test_other_students_are_points_beside_this_one(good_card: ReportCard, make_card: MakeCard, tmp_path: Path) -> None:
    text = written(good_card, tmp_path, others={"distillation-balanced": make_card(sentences=12)})
    assert text.count(">distillation-balanced</text>") == 2
    assert text.count(">this student</text>") == 2
    assert text.count(">teacher</text>") >= 2


def test_it_needs_nothing_else(full_card: ReportCard, tmp_path: Path) -> None:
    text = written(full_card, tmp_path, metrics=METRICS, others={"balanced": full_card})
    assert "http://" not in text
    assert "https://" not in text
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {name for name, _ in page.elements}
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("href", "src")]
    assert links == []
    inner = [value for _, attributes in page.elements for name, value in attributes.items() if name == "xlink:href"]
    assert inner
    assert all(value and value.startswith("#") for value in inner)
    assert {"default-src 'none'; style-src 'unsafe-inline'"} <= {
        meta.get("content") for meta in page.attributes("meta")
    }


def test_those_who_do_not_see_it_can_use_it(full_card: ReportCard, tmp_path: Path) -> None:
    page = Page(written(full_card, tmp_path, metrics=METRICS))
    assert all(th.get("scope") in ("col", "row") for th in page.attributes("th"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.attributes("svg"))
    assert "width=device-width, initial-scale=1" in [meta.get("content") for meta in page.attributes("meta")]
    ids = [value for _, attributes in page.elements for name, value in attributes.items() if name == "id"]
    assert ids
    assert len(set(ids)) == len(ids)


def test_hostile_texts_stay_texts(attacked: ReportCard, hostile: str, tmp_path: Path) -> None:
    text = written(attacked, tmp_path, others={hostile: attacked})
    page = Page(text)
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert hostile in page.texts["dd"]
    assert "5929" not in text
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_name_that_utf8_cannot_say_does_not_stop_it(good_card: ReportCard, tmp_path: Path) -> None:
    assert ">run\N{REPLACEMENT CHARACTER}</text>" in written(good_card, tmp_path, others={"run\udcff": good_card})


def test_the_file_is_whole_or_not_there(good_card: ReportCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_html(good_card, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


class TestBrowser:
    def test_the_page_is_read_as_it_is_meant(
        self, full_card: ReportCard, tmp_path: Path, dump_dom: Callable[[Path], str]
    ) -> None:
        write_html(full_card, tmp_path / "report.html", metrics=METRICS)
        dom = dump_dom(tmp_path / "report.html")
        assert set(re.findall(r"<h2>([^<]*)</h2>", dom)) == HEADINGS
        assert len(re.findall(r"<svg ", dom)) == 9
        assert "<title>Report card · quick · zh→en</title>" in dom
        assert "&lt;b&gt;城市&lt;/b&gt;" in dom

    def test_hostile_texts_do_nothing(
        self, attacked: ReportCard, tmp_path: Path, dump_dom: Callable[[Path], str], hostile: str
    ) -> None:
        write_html(attacked, tmp_path / "report.html", others={hostile: attacked})
        dom = dump_dom(tmp_path / "report.html")
        assert "<script" not in dom
        assert "<img" not in dom
        title = re.search("<title>(.*?)</title>", dom)
        assert title is not None
        assert title[1].startswith("Report card · &lt;script&gt;")

    @pytest.mark.parametrize("lang", ["en", "zh"])
    def test_it_fits_a_phone(
        self, lang: messages.Language, full_card: ReportCard, tmp_path: Path, dump_dom: Callable[[Path], str]
    ) -> None:
        messages.set_language(lang)
        write_html(full_card, tmp_path / "report.html", metrics=METRICS)
        frame = tmp_path / "frame.html"
        frame.write_text(
            '<iframe src="report.html" width="390" height="800" onload="document.body.append(`width is ` + '
            'this.contentDocument.documentElement.scrollWidth + `.`)"></iframe>'
        )
        width = re.search(r"width is (\d+)\.", dump_dom(frame))
        assert width is not None
        assert int(width[1]) <= 390
