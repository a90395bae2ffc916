import json
from typing import Any

import pytest
from rich.cells import cell_len

from mtdistill.cli.listing import settings_line
from mtdistill.config import apply_overrides
from mtdistill.presets import PRESET_NAMES, load_preset

# Epochs, batch, accumulation, learning rate, longest, width, temperature, alpha, beta, decay, data: the contract.
CONTRACT = {
    "quick": (3, 64, 1, 0.002, 16, 0.60, 3.0, 0.7, 0.3, 0.01, 0.1),
    "conservative": (30, 16, 1, 0.0005, 28, 0.60, 4.0, 0.8, 0.2, 0.01, 1.0),
    "balanced": (50, 32, 2, 0.001, 24, 0.50, 3.5, 0.75, 0.25, 0.01, 1.0),
    "aggressive": (80, 24, 3, 0.0008, 24, 0.35, 5.0, 0.85, 0.15, 0.01, 1.0),
    "quality": (100, 16, 4, 0.0003, 32, 0.55, 4.5, 0.8, 0.2, 0.02, 1.0),
}
EXPECTED = {
    "quick": (2.5, 0.60, 2.0, 0.70, 15),
    "conservative": (1.7, 0.90, 1.5, 0.90, 120),
    "balanced": (2.0, 0.85, 2.0, 0.85, 180),
    "aggressive": (3.0, 0.75, 3.0, 0.75, 300),
    "quality": (1.8, 0.95, 1.8, 0.95, 480),
}


def test_the_json_holds_the_contract(run: Any) -> None:
    called = run("presets", "--json", "--no-forecast")
    assert called.code == 0
    presets = {preset["name"]: preset for preset in json.loads(called.out)}
    assert [(preset["number"], name) for name, preset in presets.items()] == list(enumerate(PRESET_NAMES, start=1))
    for name, preset in presets.items():
        training, kd, student = (preset["config"][section] for section in ("training", "kd", "student"))
        assert (
            training["epochs"], training["batch_size"], training["gradient_accumulation"], training["learning_rate"],
            training["max_sequence_length"], student["width_ratio"], kd["temperature"], kd["alpha"], kd["beta"],
            training["weight_decay"], training["data_ratio"],
        ) == CONTRACT[name]  # fmt: skip
        expected = preset["config"]["expected"]
        assert (
            expected["compression_ratio"], expected["success_rate"], expected["speed_up"],
            expected["quality_retention"], expected["time_budget_minutes"],
        ) == EXPECTED[name]  # fmt: skip
        assert preset["forecast"] is None
        for text in ("title", "purpose", "pros", "cons", "when_to_use"):
            assert preset[text].keys() == {"en", "zh"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_table_fits_a_terminal_and_says_everything(lang: str, run: Any) -> None:
    called = run("presets", "--no-forecast", "--lang", lang)
    assert called.code == 0
    assert max(map(cell_len, called.out.splitlines())) <= 80
    text = "".join(called.out.replace("│", " ").split())  # without the breaks of lines
    for name in PRESET_NAMES:
        preset = load_preset(name)
        for part in (preset.title, preset.purpose, preset.pros, preset.cons, preset.when_to_use):
            assert "".join(str(part).split()) in text
    assert text.count({"en": "(recommended)", "zh": "（推荐）"}[lang]) >= 1


def test_a_forecast_that_cannot_be_made_says_why_and_the_rest_is_shown(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtdistill.distillation import materials
    from mtdistill.errors import MissingExtraError

    def refuse(*_arguments: object) -> None:
        raise MissingExtraError("the corpus is not installed")

    monkeypatch.setattr(materials, "prepare_materials", refuse)
    called = run("presets")
    assert called.code == 0
    assert "no forecast: the corpus is not installed" in called.out
    assert "5 quality" in called.out
    listed = run("presets", "--json")
    assert [preset["forecast"] for preset in json.loads(listed.out)] == [None] * 5


def test_every_preset_gets_its_forecast(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtdistill.distillation import forecast, materials
    from mtdistill.distillation.forecast import Forecast

    monkeypatch.setattr(materials, "prepare_materials", lambda config, _display: config.output)
    monkeypatch.setattr(
        forecast, "forecast", lambda config, _materials: Forecast(config.training.epochs, 1.5, 80.0, 0.5, 300)
    )
    listed = run("presets", "--json", "--output", "elsewhere")
    assert [preset["forecast"]["minutes"] for preset in json.loads(listed.out)] == [3, 30, 50, 80, 100]
    assert "about 50 min, 1.5 GiB of memory" in run("presets").out


def test_the_width_is_the_one_that_counts() -> None:
    assert "width 60%, " in settings_line(load_preset("quick").config)
    assert "width 64, " in settings_line(apply_overrides(load_preset("quick").config, ["student.width=64"]))


@pytest.mark.parametrize(("last", "wanted"), [("none", "T 3, "), ("1", "T 3 to 1, ")])
def test_a_temperature_that_falls_is_seen(last: str, wanted: str) -> None:
    config = apply_overrides(load_preset("quick").config, [f"kd.final_temperature={last}"])
    assert wanted in settings_line(config)
