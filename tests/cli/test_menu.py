import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtdistill.cli.menu import MAX_ATTEMPTS, _ask
from mtdistill.config import RunConfig

COST = {"minutes": 12.0, "memory_gib": 1.5, "disk_mib": 80.0, "updates": 300, "seconds_per_update": 0.5}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, dict[str, Any]]]:
    """Runs that would have been started; nothing is loaded or trained."""
    started: list[tuple[RunConfig, dict[str, Any]]] = []

    def distill(config: RunConfig, _display: object, **options: Any) -> Any:
        started.append((config, options))
        return SimpleNamespace(report="the card", student_path=Path("runs/student_best.pt"), seconds=65.0)

    for name, fake in (
        ("materials", SimpleNamespace(prepare_materials=lambda _config, _display: "materials")),
        ("pipeline", SimpleNamespace(distill=distill)),
        ("run_folder", SimpleNamespace(resume_run=lambda _config: None)),
        ("forecast", SimpleNamespace(forecast=lambda _config, _materials: SimpleNamespace(as_dict=lambda: COST))),
    ):
        monkeypatch.setitem(sys.modules, f"mtdistill.distillation.{name}", fake)  # type: ignore[arg-type]
    monkeypatch.setattr("mtdistill.report.render", str)
    monkeypatch.setattr("mtdistill.cli.menu.quiet_libraries", lambda: None)
    return started


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_is_cut_off_at_eighty_columns(run: Any, lang: str) -> None:
    for called in (run("--lang", lang, stdin="q\n"), run("presets", "--no-forecast", "--lang", lang)):
        assert "…" not in called.out
        assert "适合大多数用途。" in called.out or lang == "en"


def test_all_presets_are_offered(run: Any) -> None:
    out = run(stdin="q\n").out
    for number, name in enumerate(("quick", "conservative", "balanced *", "aggressive", "quality"), start=1):
        assert f"\n{number}  {name}" in out


@pytest.mark.parametrize("answers", ["", "q\n", "Q\n", "quit", "7\nq\n", "0\nx\n\n"])
def test_leaving_the_menu_changes_nothing(answers: str, run: Any, calls: list[Any]) -> None:
    called = run(stdin=answers)
    assert called.code == 2
    assert called.out.endswith("No preset was chosen; nothing was changed.\n")
    assert calls == []


def test_a_wrong_answer_is_asked_again(run: Any, calls: list[Any]) -> None:
    called = run(stdin="seven\n" * (MAX_ATTEMPTS - 1) + "2\ny\n")
    assert called.code == 0
    assert called.out.count("Got 'seven', accepted 1 to 5, or q.") == MAX_ATTEMPTS - 1
    assert [config.preset for config, _ in calls] == ["conservative"]


def test_a_closed_output_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.cli.menu.read_line", lambda: " 3 ")
    monkeypatch.setattr(sys, "stdout", None)
    assert _ask("which? ") == "3"


def test_there_is_an_end_to_asking(run: Any, calls: list[Any]) -> None:
    called = run(stdin="9\n" * 20)
    assert called.code == 2
    assert called.out.count("Got '9'") == MAX_ATTEMPTS


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "no\n", "maybe\n"])
def test_only_a_yes_starts(answer: str, run: Any, calls: list[Any]) -> None:
    called = run(stdin="1\n" + answer)
    assert called.code == 2
    assert "forecast: about 12 min, 1.5 GiB of memory" in called.out
    assert called.out.rstrip().endswith("Not started.")
    assert calls == []


@pytest.mark.parametrize(
    ("minutes", "settings"),
    [
        (15.0, None),  # what quick promises
        (16.0, "--set training.epochs=2"),  # of three
        (45.0, "--set training.epochs=1"),
        (450.0, "--set training.epochs=1 --set training.data_ratio=0.01"),  # of a tenth of the data
    ],
)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_forecast_beyond_the_promise_says_how_to_end_in_time(
    minutes: float, settings: str | None, lang: str, run: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COST, "minutes", minutes)
    out = " ".join(run("--lang", lang, stdin="1\nn\n").out.split())
    assert ("mtdistill distill quick" in out) == (settings is not None)
    if settings:
        assert {"en": f"with {settings} added", "zh": f"加上 {settings}，"}[lang] in out


@pytest.mark.parametrize("answer", ["y\n", "YES\n", "是\n"])
def test_a_yes_starts_and_ends_with_the_card(answer: str, run: Any, calls: list[Any]) -> None:
    called = run(stdin="1\n" + answer)
    assert called.code == 0
    ((config, options),) = calls
    assert config.preset == "quick"
    assert options == {"materials": "materials", "resume": False, "compare_random": False}
    assert "the card" in called.out
    assert "python test_trained_student.py --model_path runs/student_best.pt" in called.out


def test_the_options_of_distill_arrive(
    run: Any, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my [t]eacher").mkdir()
    arguments = ("3", "--yes", "--set", "kd.temperature=4", "--teacher", "my [t]eacher", "--output", "1.5", "--resume")
    called = run("distill", *arguments, "--compare-random")
    assert called.code == 0
    assert "forecast" not in called.out
    ((config, options),) = calls
    assert (config.preset, config.kd.temperature, config.teacher.path, config.output) == (
        "balanced", 4.0, "my [t]eacher", "1.5",
    )  # fmt: skip
    assert options["resume"] is options["compare_random"] is True


def test_what_goes_on_is_not_asked_about_again(run: Any, calls: list[Any]) -> None:
    called = run("distill", "quick", "--resume")
    assert called.code == 0
    assert "forecast" not in called.out
    assert [options["resume"] for _, options in calls] == [True]


def test_recovery_can_be_switched_off(run: Any, calls: list[Any]) -> None:
    run("distill", "quick", "-y", "--no-recovery")
    run("distill", "quick", "-y")
    assert [config.training.recovery for config, _ in calls] == [False, True]


def test_settings_outside_the_recommended_ranges_are_warned_about(run: Any, calls: list[Any]) -> None:
    called = run("distill", "quick", "-y", "--set", "kd.temperature=9")
    assert "kd.temperature is 9; recommended: 3 to 5" in called.out
    assert len(calls) == 1


def test_the_menu_in_chinese(run: Any, calls: list[Any]) -> None:
    called = run("--lang", "zh", stdin="8\n1\nn\n")
    assert called.code == 2
    for text in ("请选择预设", "请输入 1 到 5", "预测：约 12 分钟", "没有开始训练"):
        assert text in called.out
