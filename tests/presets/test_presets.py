import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

import mtdistill.presets
from mtdistill.config import recommendation_warnings
from mtdistill.errors import ConfigError
from mtdistill.messages import set_language
from mtdistill.presets import PRESET_NAMES, RECOMMENDED, Preset, load_preset, load_presets

# The contract, copied by hand: a change of a preset file must be a change of this table as well.
CONTRACT = {
    #                            quick conservative balanced aggressive quality
    "training.epochs":              (3, 30, 50, 80, 100),
    "training.batch_size":          (64, 16, 32, 24, 16),
    "training.gradient_accumulation": (1, 1, 2, 3, 4),
    "training.learning_rate":       (0.002, 0.0005, 0.001, 0.0008, 0.0003),
    "training.max_sequence_length": (16, 28, 24, 24, 32),
    "student.width_ratio":          (0.60, 0.60, 0.50, 0.35, 0.55),
    "kd.temperature":               (3.0, 4.0, 3.5, 5.0, 4.5),
    "kd.alpha":                     (0.7, 0.8, 0.75, 0.85, 0.8),
    "kd.beta":                      (0.3, 0.2, 0.25, 0.15, 0.2),
    "training.weight_decay":        (0.01, 0.01, 0.01, 0.01, 0.02),
    "training.data_ratio":          (0.1, 1.0, 1.0, 1.0, 1.0),
    "expected.time_budget_minutes": (15, 120, 180, 300, 480),
    "expected.compression_ratio":   (2.5, 1.7, 2.0, 3.0, 1.8),
    "expected.success_rate":        (0.60, 0.90, 0.85, 0.75, 0.95),
    "expected.speed_up":            (2.0, 1.5, 2.0, 3.0, 1.8),
    "expected.quality_retention":   (0.70, 0.90, 0.85, 0.75, 0.95),
}  # fmt: skip
WIDTHS_AT_256 = (154, 152, 128, 88, 144)
WIDTHS_AT_512 = (307, 304, 256, 176, 280)  # quick: nearest integer of 307.2; else nearest multiple of 8
MENU = ("quick", "conservative", "balanced", "aggressive", "quality")


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    set_language("en")
    yield
    set_language(None)


def presets() -> list[Preset]:
    return [load_preset(name) for name in MENU]


def test_there_are_five_files_and_each_is_in_the_menu() -> None:
    files = [file.name for file in resources.files(mtdistill.presets).iterdir() if file.name.endswith(".toml")]
    found = list(Path(mtdistill.presets.__file__).parent.rglob("*.toml"))
    assert len(files) == len(found) == 5
    assert {name.removesuffix(".toml") for name in files} == set(PRESET_NAMES)


def test_the_menu() -> None:
    assert PRESET_NAMES == MENU
    assert [(preset.number, preset.name) for preset in load_presets()] == list(enumerate(MENU, start=1))
    assert RECOMMENDED == "balanced"


@pytest.mark.parametrize("path", CONTRACT)
def test_the_contract_to_the_digit(path: str) -> None:
    section, key = path.split(".")
    assert tuple(getattr(getattr(preset.config, section), key) for preset in presets()) == CONTRACT[path]


@pytest.mark.parametrize("name", MENU)
def test_the_temperature_falls_to_1(name: str) -> None:
    assert load_preset(name).config.kd.final_temperature == 1.0


@pytest.mark.parametrize(("teacher_width", "widths"), [(256, WIDTHS_AT_256), (512, WIDTHS_AT_512)])
def test_the_widths(teacher_width: int, widths: tuple[int, ...]) -> None:
    assert tuple(preset.config.student.resolve_width(teacher_width) for preset in presets()) == widths


@pytest.mark.parametrize("name", MENU)
def test_a_preset_is_inside_its_own_recommendations(name: str) -> None:
    assert recommendation_warnings(load_preset(name).config) == []


@pytest.mark.parametrize("name", MENU)
def test_a_preset_carries_its_own_name(name: str) -> None:
    assert load_preset(name).name == load_preset(name).config.preset == name


@pytest.mark.parametrize("name", MENU)
@pytest.mark.parametrize("key", ["title", "purpose", "pros", "cons", "when_to_use"])
def test_every_text_stands_in_both_languages(name: str, key: str) -> None:
    text = getattr(load_preset(name), key)
    assert text.en.isascii()
    assert any("\u4e00" <= character <= "\u9fff" for character in text.zh)
    assert str(text) == text.en
    set_language("zh")
    assert str(text) == text.zh


def test_no_text_is_used_twice() -> None:
    texts = [
        getattr(preset, key) for preset in presets() for key in ("title", "purpose", "pros", "cons", "when_to_use")
    ]
    assert len(set(texts)) == len(texts) == 25


@pytest.mark.parametrize(("written", "name"), [("1", "quick"), ("5", "quality"), (" Balanced ", "balanced")])
def test_a_preset_by_number_or_in_capitals(written: str, name: str) -> None:
    assert load_preset(written).name == name


@pytest.mark.parametrize("name", ["0", "6", "", "-1", "٣", "fast", "../quick"])
def test_an_unknown_preset_lists_all(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(name)
    assert str(caught.value).startswith(f"no such preset: got {name!r}, accepted 1 quick, 2 conservative, 3 balanced, ")


def test_a_misspelt_preset_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean balanced\?"):
        load_preset("balancd")
    set_language("zh")
    with pytest.raises(ConfigError, match=r"没有这个预设：得到 'balancd'，.*是不是要选 balanced？"):
        load_preset("balancd")


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_table_of_presets_in_the_readme(readme: str) -> None:
    text = (Path(__file__).parents[2] / readme).read_text(encoding="utf-8")
    rows = re.findall(r"^\| [1-5] .*$", text, re.MULTILINE)
    assert len(rows) == 5
    for row, preset in zip(rows, presets(), strict=True):
        found = [float(number) for number in re.findall(r"\d*\.?\d+", row)]
        config = preset.config
        training, kd, expected = config.training, config.kd, config.expected
        share = [] if training.data_ratio == 1 else [100 * training.data_ratio]
        wanted = [preset.number, training.epochs, training.batch_size, training.gradient_accumulation]
        wanted += [training.learning_rate, training.max_sequence_length, 100 * config.student.width_ratio]
        wanted += [kd.temperature, kd.final_temperature or 0, kd.alpha, kd.beta, *share]
        wanted += [expected.compression_ratio, expected.speed_up]
        wanted += [100 * expected.quality_retention, 100 * expected.success_rate]
        assert found == pytest.approx(wanted), row
        assert preset.name in row
