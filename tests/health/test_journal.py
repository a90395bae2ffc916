"""Where findings go, and that every check has words in both languages."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from mtdistill import messages
from mtdistill.display import Display
from mtdistill.health.finding import Finding
from mtdistill.health.journal import HEALTH_FILE, Journal, read_findings
from mtdistill.health.wording import ACTIONS, EXPLANATIONS, explain


class Figures(dict[str, float]):
    """Has every figure; remembers nothing, so that a sentence about a figure that no check gives still fails elsewhere."""

    def __missing__(self, name: str) -> float:
        return 0.25


@pytest.mark.parametrize("check", EXPLANATIONS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_check_is_explained(check: str, language: messages.Language, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_chosen", language)
    text = explain(Finding(check, "warning", 7, Figures(), "“例子”"))
    assert "“例子”" in text
    assert bool(re.search(r"[\u4e00-\u9fff]{6}", text)) == (language == "zh")
    assert len(text) > 40


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_the_place_of_advice(action: str) -> None:
    advice = explain(Finding("loss_spike", "warning", 7, Figures()))
    told = explain(Finding("loss_spike", "warning", 7, Figures(), action=action))
    assert (told == advice) == (action == "none")
    assert ("mtdistill" in told) == (action != "none")


def test_findings_are_written_at_once_and_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / HEALTH_FILE)
    findings = [
        Finding("loss_spike", "warning", 3, {"loss": 2.0, "usual": 1.0, "limit": 1.5}),
        Finding("damaged_cache", "failure", 4),
    ]
    for finding in findings:
        journal.record(finding)
    assert read_findings(tmp_path / "deep" / HEALTH_FILE) == findings
    assert journal.counts == {"loss_spike": 1, "damaged_cache": 1}


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / HEALTH_FILE
    Journal(path).record(Finding("damaged_cache", "failure", 4))
    path.write_text(path.read_text(encoding="utf-8") + '{"check": "loss_sp', encoding="utf-8")
    assert [finding.check for finding in read_findings(path)] == ["damaged_cache"]
    assert read_findings(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    "line",
    [
        '{"check": "of_a_newer_version", "severity": "warning"}',
        '{"check": "loss_spike", "severity": "warning", "figures": {}}',
        '{"check": "loss_spike", "severity": "warning", "figures": 3}',
        '{"check": ["loss_spike"], "severity": "warning"}',
        '{"check": "damaged_cache", "severity": "warning", "action": "deleted"}',
        '{"check": "loss_spike", "severity": "warning", "figures": {"loss": 1%s, "usual": 1, "limit": 1}}'
        % ("0" * 400),
        "[]",
        "[" * 100_000,
    ],
    ids=lambda line: line[:70],
)
def test_a_line_that_cannot_be_explained_is_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / HEALTH_FILE
    path.write_text(line + "\n", encoding="utf-8")
    assert read_findings(path) == []


def test_a_line_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / HEALTH_FILE
    Journal(path).record(Finding("damaged_cache", "failure", 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + b"\xb4" + whole[20:] + whole)
    assert [finding.check for finding in read_findings(path)] == ["damaged_cache"]
    Journal(path).begin(2)
    assert len(read_findings(path)) == 1


def test_a_run_begins_with_an_empty_file(tmp_path: Path) -> None:
    Journal(tmp_path / HEALTH_FILE).begin(0)
    assert (tmp_path / HEALTH_FILE).read_text(encoding="utf-8") == ""


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path / HEALTH_FILE)
    for update in range(5):
        journal.record(Finding("damaged_cache", "failure", update))
    again = Journal(tmp_path / HEALTH_FILE)
    again.begin(2)
    again.record(Finding("damaged_cache", "failure", 9))
    assert [finding.update for finding in read_findings(tmp_path / HEALTH_FILE)] == [0, 1, 9]
    assert again.lines == 3


def test_what_comes_again_after_a_return_is_shown_again(tmp_path: Path) -> None:
    said = io.StringIO()
    journal = Journal(tmp_path / HEALTH_FILE, Display(Console(file=said)))
    for update in (5000, 4990):
        journal.record(Finding("damaged_cache", "failure", update))
        journal.begin(1)
    assert said.getvalue().count("teacher states has changed") == 2


def test_what_repeats_is_written_every_time_and_shown_now_and_then() -> None:
    class Writer:
        def __init__(self) -> None:
            self.tags: list[tuple[str, int]] = []

        def add_text(self, tag: str, text_string: str, global_step: int) -> None:
            self.tags.append((tag, global_step))

    shown, writer = io.StringIO(), Writer()
    journal = Journal(None, Display(Console(file=shown, width=200)), writer)
    for update in range(1, 302, 10):
        journal.record(Finding("damaged_cache", "failure", update))
    assert writer.tags == [("health/damaged_cache", 1), ("health/damaged_cache", 201)]
    assert shown.getvalue().count("teacher states has changed") == 2
    assert journal.counts["damaged_cache"] == 31
