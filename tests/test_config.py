import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mtdistill.config import (
    CLEANING_RULES,
    RunConfig,
    StudentConfig,
    apply_overrides,
    build_config,
    dump_toml,
    option_fields,
    read_toml,
    recommendation_warnings,
)
from mtdistill.config.wording import takes_none
from mtdistill.data.cleaning import RULE_NAMES
from mtdistill.errors import ConfigError
from mtdistill.messages import set_language

# A complete configuration; what is left out has a default.
VALUES: dict[str, Any] = {
    "preset": "mine",
    "student": {"width_ratio": 0.5, "width_at_256": 128},
    "kd": {"temperature": 4.0, "alpha": 0.8, "beta": 0.2, "label_smoothing": 0.1},
    "training": {
        "epochs": 2,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "learning_rate": 0.001,
        "max_sequence_length": 16,
        "weight_decay": 0.01,
        "data_ratio": 1.0,
        "evaluations": 2,
    },
    "expected": {
        "compression_ratio": 2.0,
        "success_rate": 0.8,
        "speed_up": 2.0,
        "quality_retention": 0.8,
        "time_budget_minutes": 10,
    },
}
CONFIG = build_config(VALUES)

# One override for every setting: what is written after "=", and what the setting then is.
OVERRIDES: dict[str, tuple[str, object]] = {
    "name": ("small-1", "small-1"),
    "output": ("runs", "runs"),
    "data.train": ('["a.tsv", "b.tsv"]', ("a.tsv", "b.tsv")),
    "data.extra": ("cedict:zh-en", ("cedict:zh-en",)),
    "data.validation": ("my folder/dev.tsv", ("my folder/dev.tsv",)),
    "data.test": ('"test.tsv"', ("test.tsv",)),
    "data.source_lang": ("de", "de"),
    "data.target_lang": ("zh-CN", "zh-CN"),
    "data.validation_ratio": ("0.1", 0.1),
    "data.test_ratio": ("5e-2", 0.05),
    "data.cleaning": ('["copy", "duplicate"]', ("copy", "duplicate")),
    "data.vocabulary_size": ("4_000", 4000),
    "data.character_coverage": ("1", 1.0),
    "teacher.targets": ("live", "live"),
    "teacher.pseudo_targets": ("2", 2),
    "teacher.pseudo_targets_take_turns": ("true", True),
    "teacher.path": ("2024", "2024"),  # a folder may look like a number
    "teacher.min_bleu": ("0", 0.0),
    "student.width_ratio": ("0.4", 0.4),
    "student.width_multiple": ("1", 1),
    "student.width_at_256": ("130", 130),
    "student.width": ("100", 100),
    "student.encoder_layers": ("3", 3),
    "student.decoder_layers": ("2", 2),
    "student.kept_encoder_layers": ("[0, 2, 5]", (0, 2, 5)),
    "student.kept_decoder_layers": ("1", (1,)),
    "student.heads": ("4", 4),
    "student.d_ff": ("512", 512),
    "student.tie_inputs": ("true", True),
    "student.initialisation": ("random", "random"),
    "kd.temperature": ("3", 3.0),
    "kd.final_temperature": ("1.0", 1.0),
    "kd.alpha": ("0.7", 0.7),
    "kd.beta": ("0.3", 0.3),
    "kd.label_smoothing": ("0", 0.0),
    "kd.state_weight": ("100", 100.0),
    "kd.other_pieces_every": ("4", 4),
    "training.epochs": ("7", 7),
    "training.batch_size": ("64", 64),
    "training.gradient_accumulation": ("4", 4),
    "training.learning_rate": ("2e-3", 0.002),
    "training.optimizer": ("muon", "muon"),
    "training.embedding_learning_rate_ratio": ("10", 10.0),
    "training.max_sequence_length": ("32", 32),
    "training.weight_decay": ("0.0", 0.0),
    "training.warmup_ratio": ("0.2", 0.2),
    "training.max_gradient_norm": ("0.5", 0.5),
    "training.dropout": ("0.1", 0.1),
    "training.data_ratio": ("0.5", 0.5),
    "training.ema_decay": ("0.99", 0.99),
    "training.seed": ("0", 0),
    "training.precision": ("bfloat16", "bfloat16"),
    "training.threads": ("2", 2),
    "training.recovery": ("false", False),
    "training.evaluations": ("5", 5),
    "training.checkpoints_kept": ("1", 1),
    "training.validation_sentences": ("100", 100),
    "expected.compression_ratio": ("3", 3.0),
    "expected.success_rate": ("0.6", 0.6),
    "expected.speed_up": ("1.5", 1.5),
    "expected.quality_retention": ("0.7", 0.7),
    "expected.time_budget_minutes": ("15", 15.0),
}
NEEDS = {"data.source_lang": "data.target_lang=en", "data.target_lang": "data.source_lang=de"}
NUMBERS = [path for path, (_, value) in OVERRIDES.items() if type(value) in (int, float)]
LISTS = [path for path, (_, value) in OVERRIDES.items() if isinstance(value, tuple)]


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    set_language("en")
    yield
    set_language(None)


def flat(config: RunConfig) -> dict[str, object]:
    sections = config.model_dump()
    top = {name: value for name, value in sections.items() if not isinstance(value, dict)}
    return top | {
        f"{name}.{key}": each
        for name, section in sections.items()
        if isinstance(section, dict)
        for key, each in section.items()
    }


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(CONFIG, overrides)
    return str(caught.value)


# ---- overrides that are accepted ----


def test_every_setting_has_an_override_in_this_file() -> None:
    assert OVERRIDES.keys() == option_fields().keys() - {"preset"}


@pytest.mark.parametrize("path", OVERRIDES)
def test_an_override_changes_its_setting_and_no_other(path: str) -> None:
    raw, wanted = OVERRIDES[path]
    needed = [NEEDS[path]] if path in NEEDS else []
    before, after = flat(CONFIG), flat(apply_overrides(CONFIG, [f" {path} = {raw} ", *needed]))
    changed = {name for name in before if before[name] != after[name]}
    assert after[path] == wanted
    assert type(after[path]) is type(wanted)
    allowed = {path} | {need.partition("=")[0] for need in needed}
    if path in ("student.width_ratio", "student.width_multiple"):
        allowed.add("student.width_at_256")  # the table's width belongs to the old ratio
    assert changed == allowed


@pytest.mark.parametrize("path", OVERRIDES)
def test_settings_that_may_be_open_are_opened_by_none(path: str) -> None:
    field = option_fields()[path]
    if path in NEEDS:
        config = apply_overrides(CONFIG, [f"{name}={OVERRIDES[name][0]}" for name in NEEDS])
        config = apply_overrides(config, [f"{name}=none" for name in NEEDS])
    elif takes_none(field):
        config = apply_overrides(apply_overrides(CONFIG, [f"{path}={OVERRIDES[path][0]}"]), [f"{path}=none"])
        if not isinstance(OVERRIDES[path][1], str):  # of a text, "all" is a value like any other
            assert flat(apply_overrides(CONFIG, [f"{path}=all"]))[path] is None
    else:
        if not isinstance(OVERRIDES[path][1], str | tuple):
            assert path in refusal(f"{path}=none")
        return
    assert flat(config)[path] is None


def test_every_setting_that_may_be_open_is_open_by_default() -> None:
    opened = {path: field.default for path, field in option_fields().items() if takes_none(field)}
    assert opened
    assert set(opened.values()) == {None}


def test_the_later_of_two_overrides_counts() -> None:
    assert apply_overrides(CONFIG, ["kd.alpha=0.7", "kd.alpha=0.75"]).kd.alpha == 0.75


def test_a_folder_that_is_called_like_a_number() -> None:
    given = [f"data.train={raw}" for raw in ("2024", "true", "2024-05-01")]
    assert [apply_overrides(CONFIG, [each]).data.train for each in given] == [("2024",), ("true",), ("2024-05-01",)]


def test_a_yes_or_no_is_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match=r"training\.recovery: got 'yes', accepted true or false"):
        apply_overrides(CONFIG, ["training.recovery=yes"])


def test_no_override_leaves_the_configuration_as_it_is() -> None:
    assert apply_overrides(CONFIG, []) == CONFIG


def test_a_new_ratio_replaces_the_width_of_the_table() -> None:
    assert CONFIG.student.resolve_width(256) == 128
    assert apply_overrides(CONFIG, ["student.width_ratio=0.4"]).student.resolve_width(256) == 104
    kept = apply_overrides(CONFIG, ["student.width_ratio=0.4", "student.width_at_256=100"])
    assert kept.student.resolve_width(256) == 100


@pytest.mark.parametrize("raw", ["run#1", "a=b", "[half", "2024-11-23", "true", "运行", "nan"])
def test_text_needs_no_quotes(raw: str) -> None:
    assert apply_overrides(CONFIG, [f"output={raw}"]).output == raw


# ---- overrides that are refused ----


NO_NUMBERS = [
    *("nan", "inf", "-inf", "-1", "1e300", "1" + 30 * "0", "0x" + 5000 * "F"),
    *("abc", '"1"', "true", "[1]", "1979-05-27", "", "1\nx = 1", 5000 * "["),
]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("raw", NO_NUMBERS)
def test_numbers_out_of_range_or_of_another_type_are_refused(path: str, raw: str) -> None:
    message = refusal(f"{path}={raw}")
    assert f"\n  - {path}: got " in message
    assert ", accepted a" in message
    assert message.count("\n  - ") == 1


ZERO_IS_FINE = {
    "data.validation_ratio", "data.test_ratio", "teacher.min_bleu", "teacher.pseudo_targets", "kd.alpha", "kd.beta",
    "kd.label_smoothing", "kd.state_weight", "training.weight_decay", "training.warmup_ratio", "training.dropout",
    "training.seed",
}  # fmt: skip


@pytest.mark.parametrize("path", NUMBERS)
def test_zero_is_refused_where_it_has_no_meaning(path: str) -> None:
    own_files = ["data.validation=dev.tsv", "data.test=test.tsv"]
    if path in ZERO_IS_FINE:
        assert flat(apply_overrides(CONFIG, [*own_files, f"{path}=0"]))[path] == 0
    else:
        assert f"{path}: got 0, accepted a" in refusal(*own_files, f"{path}=0")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("raw", ["[true]", "[1.5]", "[[1]]", "{a = 1}"])
def test_lists_of_other_things_are_refused(path: str, raw: str) -> None:
    assert f"{path}: got " in refusal(f"{path}={raw}")


@pytest.mark.parametrize("path", ["data.train", "student.kept_encoder_layers", "student.kept_decoder_layers"])
def test_lists_that_may_not_be_empty(path: str) -> None:
    assert f"{path}: got [], accepted a list of " in refusal(f"{path}=[]")


@pytest.mark.parametrize("raw", ["", '" "', '"a\\u0000b"', '"a\\nb"', '"\\u007f"'])
def test_text_that_is_no_text_is_refused(raw: str) -> None:
    assert "output: got " in refusal(f"output={raw}")
    assert "data.train: got " in refusal(f"data.train={raw}")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("kd.temprature", "kd.temperature"),
        ("temperature", "kd.temperature"),
        ("training.temperature", "kd.temperature"),
        ("train.epochs", "training.epochs"),
        ("training.lerning_rate", "training.learning_rate"),
        ("student.with_ratio", "student.width_ratio"),
        ("outptu", "output"),
        ("kd.alpha.x", None),
        ("student.zzz", None),
        ("", None),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_one(wrong: str, right: str | None) -> None:
    message = refusal(f"{wrong}=1")
    assert f"\n  - {wrong or repr(wrong)}: no such setting" in message
    assert ("Did you mean" in message) == (right is not None)
    if right:
        assert f"Did you mean {right}?" in message


def test_a_section_is_not_a_setting() -> None:
    assert "kd: a section, accepted one of its settings such as kd.temperature" in refusal("kd=3")


def test_an_override_without_a_value_is_refused() -> None:
    assert "'kd.alpha': no value, accepted section.key=value" in refusal("kd.alpha")


def test_the_preset_is_not_an_override() -> None:
    assert "preset: cannot be overridden" in refusal("preset=quick")


def test_all_problems_are_reported_at_once() -> None:
    message = refusal(
        "kd.alpha=2", "epoch=3", "kd", "data.test=tatoeba:zh-en", "student.heads=x", "kd.beta=0.2", "kd.alpha=3"
    )
    assert message == (
        "the settings cannot be used:\n"
        "  - epoch: no such setting. Did you mean training.epochs?\n"
        "  - 'kd': no value, accepted section.key=value such as kd.temperature=4\n"
        "  - data.test: got 'tatoeba:zh-en', accepted a corpus or file not in data.train too\n"
        "  - student.heads: got 'x', accepted a whole number >= 1 and <= 1024, or none\n"
        "  - kd.alpha: got 3, accepted a number >= 0 and <= 1\n"
        "Correct them and start again."
    )


def test_problems_are_told_in_chinese_too() -> None:
    set_language("zh")
    message = refusal(
        "kd.alpha=2", "epoch=3", "kd", "data.test=tatoeba:zh-en", "training.precision=half", "kd.temperature=nan"
    )
    assert message == (
        "这些设置无法使用：\n"
        "  - epoch：没有这项设置。是不是要写 training.epochs？\n"
        "  - 'kd'：没有值，应写成 section.key=value，例如 kd.temperature=4\n"
        "  - data.test：得到 'tatoeba:zh-en'，应为：不同时出现在 data.train 中的语料\n"
        "  - kd.temperature：得到 nan，应为：数值 > 0 且 <= 100\n"
        "  - kd.alpha：得到 2，应为：数值 >= 0 且 <= 1\n"
        "  - training.precision：得到 'half'，应为：auto | float32 | bfloat16\n"
        "请改正后重新开始。"
    )


def test_a_long_value_is_shortened() -> None:
    line = refusal("kd.alpha=" + 1000 * "x").splitlines()[1]
    assert "…, accepted a number" in line
    assert len(line) < 120


# ---- settings that must fit each other ----


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["data.validation_ratio=0"], "data.validation_ratio: got 0.0, accepted more than 0, or files in data.valid"),
        (["data.test_ratio=0"], "data.test_ratio: got 0.0, accepted more than 0, or files in data.test"),
        (["data.validation_ratio=0.5", "data.test_ratio=0.5"], "data.test_ratio: got 0.5, accepted a number that"),
        (["data.extra=tatoeba:zh-en"], "data.extra: got 'tatoeba:zh-en', accepted a corpus or file not in data.train"),
        (["data.extra=a", "data.validation=a"], "data.validation: got 'a', accepted a corpus or file not in data"),
        (["data.validation=a", "data.test=a"], "data.test: got 'a', accepted a corpus or file not in data.validation"),
        (["data.source_lang=zh"], "data.target_lang: got none, accepted a language code, because"),
        (["data.target_lang=zh"], "data.target_lang: got 'zh', accepted none, because"),
        (["data.source_lang=zh", "data.target_lang=zh"], "data.target_lang: got 'zh', accepted a language other than"),
        (["data.source_lang=Chinese language", "data.target_lang=en"], "data.source_lang: got 'Chinese language'"),
        (['data.cleaning=["copy", "coppy"]'], "data.cleaning: got 'coppy', accepted names out of empty, too_long"),
        (["student.width_at_256=150"], "student.width_at_256: got 150, accepted about 128, which student.width_ratio"),
        (["student.kept_decoder_layers=[0, 0]"], "student.kept_decoder_layers: got [0, 0], accepted ascending"),
        (["student.kept_decoder_layers=[2, 1]"], "student.kept_decoder_layers: got [2, 1], accepted ascending"),
        (["student.kept_encoder_layers=[-1, 1]"], "student.kept_encoder_layers: got [-1, 1], accepted ascending"),
        (
            ["student.encoder_layers=2", "student.kept_encoder_layers=[1]"],
            "student.kept_encoder_layers: got [1], accepted 2 layers, as student.encoder_layers says",
        ),
        (["kd.alpha=0", "kd.beta=0"], "kd.beta: got 0.0, accepted more than 0, because kd.alpha is 0"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(overrides: list[str], problem: str) -> None:
    message = refusal(*overrides)
    assert f"\n  - {problem}" in message
    assert message.count("\n  - ") == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.validation_ratio=0", "data.validation=dev.tsv"],
        ["data.test_ratio=0", "data.test=test.tsv"],
        ["data.cleaning=[]"],
        ["student.encoder_layers=2", "student.kept_encoder_layers=[0, 3]"],
        ["student.width_at_256=130"],
        ["kd.alpha=0"],
        ["kd.beta=0"],
        ["kd.temperature=1", "kd.final_temperature=2"],
    ],
)
def test_unusual_settings_that_fit(overrides: list[str]) -> None:
    assert apply_overrides(CONFIG, overrides) != CONFIG


def test_a_contradiction_is_seen_beside_a_wrong_value_of_the_same_section() -> None:
    message = refusal("data.vocabulary_size=0", "data.extra=tatoeba:zh-en")
    assert "data.vocabulary_size: got 0" in message
    assert "data.extra: got " in message


def test_a_contradiction_with_a_default_is_seen() -> None:
    with pytest.raises(ConfigError, match=r"data\.target_lang: got none, accepted a language code"):
        build_config({**VALUES, "data": {"source_lang": "zh"}})


def test_the_cleaning_rules_are_those_that_exist() -> None:
    assert CLEANING_RULES == RULE_NAMES == CONFIG.data.cleaning


# ---- values from a file ----


def test_what_is_missing_and_what_is_unknown_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    kd = "[kd]\nalpha = 0.8\nbeta = 0.2\nlabel_smoothing = 0\ntemperatur = 3"
    file.write_text(f"student = 3\n{kd}\n[extra]\n[teacher]\nmin_bleu = '5'")
    with pytest.raises(ConfigError) as caught:
        read_toml(file)
    assert str(caught.value).splitlines() == [
        f"the settings cannot be used ({file}):",
        "  - preset: missing, accepted text",
        "  - teacher.min_bleu: got '5', accepted a number >= 0 and <= 100",
        "  - student: got 3, accepted a section with settings",
        "  - kd.temperature: missing, accepted a number > 0 and <= 100",
        "  - kd.temperatur: no such setting. Did you mean kd.temperature?",
        "  - training: missing, accepted a section with settings",
        "  - expected: missing, accepted a section with settings",
        "  - extra: no such setting. Did you mean data.extra?",
        "Correct them and start again.",
    ]


@pytest.mark.parametrize("preset", ["../up", "a/b", "", "a b", "x" * 65, "-x", "预设"])
def test_a_preset_name_is_part_of_a_folder_name(preset: str) -> None:
    with pytest.raises(ConfigError, match=r"\n  - preset: got "):
        build_config({**VALUES, "preset": preset})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[kd\nalpha=1", b"a = " + 5000 * b"[", b"kd.alpha = " + 5000 * b"9"])
def test_a_file_that_is_no_toml(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"could not be read: got .*mine\.toml, accepted UTF-8 TOML \(.*Correct"):
        read_toml(file)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_is_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not be read: got .*\(.+\), accepted a file\. Check the path\."):
        read_toml(tmp_path / name)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(dump_toml(CONFIG), encoding="utf-8-sig")
    assert read_toml(file) == CONFIG


def test_a_file_of_a_size_that_no_settings_have(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("# much said\n" * 100_000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"could not be read: got .*\(more than 1048576 bytes\)"):
        read_toml(file)


@pytest.mark.timeout(10)  # comparing each of these with every setting would take minutes
@pytest.mark.parametrize("content", ["k" * 1_000_000 + " = 1", "\n".join(f"k{i} = {i}" for i in range(60_000))])
def test_names_without_end_are_not_compared_and_listed_without_end(content: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="no such setting") as caught:
        read_toml(file)
    assert len(str(caught.value)) < 4_000
    assert len(str(caught.value).splitlines()) <= 2 + 50 + 1


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CONFIG.kd.alpha = 0.5  # type: ignore[misc]
    assert {CONFIG: 1}[build_config(VALUES)] == 1  # equal settings, equal hash


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(lambda text: text.strip())


def numbers(path: str) -> st.SearchStrategy[Any]:
    """Numbers in the range of a field, its bounds included."""
    bounds = {
        name: getattr(each, name)
        for each in option_fields()[path].metadata
        for name in ("gt", "ge", "lt", "le")
        if hasattr(each, name)
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if isinstance(OVERRIDES[path][1], int):
        return st.integers(low, high)
    return st.floats(float(low), float(high), exclude_min="gt" in bounds, exclude_max="lt" in bounds)


@st.composite
def configurations(draw: st.DrawFn) -> RunConfig:
    names = draw(st.lists(texts(), min_size=4, max_size=8, unique=True))
    ratios = draw(st.tuples(st.floats(1e-9, 0.499), st.floats(1e-9, 0.499)))
    languages = draw(st.sampled_from([(None, None), ("zh", "en"), ("pt-BR", "zh_Hans")]))
    values: dict[str, dict[str, Any]] = {
        name: {} for name in ("data", "teacher", "student", "kd", "training", "expected")
    }
    fitted = {"data.validation_ratio", "data.test_ratio", "student.width_at_256", "student.encoder_layers", "kd.beta"}
    for path in set(NUMBERS) - fitted:
        section, key = path.split(".")
        open_values = [st.none()] if takes_none(option_fields()[path]) else []
        values[section][key] = draw(st.one_of(*open_values, numbers(path)))
    values["data"] |= {
        "train": names[:1], "extra": names[1:2], "validation": names[2:3], "test": names[3:],
        "source_lang": languages[0], "target_lang": languages[1],
        "validation_ratio": ratios[0], "test_ratio": ratios[1],
        "cleaning": draw(st.lists(st.sampled_from(CLEANING_RULES), unique=True)),
    }  # fmt: skip
    values["teacher"]["path"] = draw(texts())
    layers = draw(st.none() | st.sets(st.integers(0, 99), min_size=1).map(sorted))
    values["student"] |= {
        "kept_encoder_layers": layers,
        "encoder_layers": draw(st.sampled_from([None, len(layers)])) if layers else None,
        "tie_inputs": draw(st.booleans()),
        "initialisation": draw(st.sampled_from(["slice", "select", "random"])),
    }
    values["kd"]["beta"] = draw(st.floats(0, 1, exclude_min=True))
    values["training"]["precision"] = draw(st.sampled_from(["auto", "float32", "bfloat16"]))
    return build_config({"preset": "p-1_x", "output": draw(texts()), **values})


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(configurations())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> None:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(dump_toml(config), encoding="utf-8")
    assert read_toml(file) == config


def test_what_is_written_holds_the_defaults_of_today() -> None:
    written = tomllib.loads(dump_toml(CONFIG))
    top = {name for name, value in written.items() if not isinstance(value, dict)}
    inner = {f"{name}.{key}" for name in written.keys() - top for key in written[name]}
    assert top | inner == {path for path, value in flat(CONFIG).items() if value is not None}


# ---- warnings ----


def test_no_warning_inside_the_recommended_ranges() -> None:
    assert recommendation_warnings(CONFIG) == []


@pytest.mark.parametrize(
    ("path", "inside", "outside"),
    [
        ("kd.temperature", ["3", "5"], ["2.99", "5.01"]),
        ("kd.alpha", ["0.7", "0.85"], ["0.69", "0.86"]),
        ("kd.beta", ["0.15", "0.3"], ["0.14", "0.31"]),
        ("training.learning_rate", ["0.0003", "0.002"], ["0.00029", "0.0021"]),
        ("student.width_ratio", ["0.35", "0.6"], ["0.34", "0.61"]),
    ],
)
def test_a_warning_outside_the_recommended_ranges(path: str, inside: list[str], outside: list[str]) -> None:
    for raw in inside + outside:
        found = recommendation_warnings(apply_overrides(CONFIG, [f"{path}={raw}"]))
        named = [warning for warning in found if warning.startswith(f"{path} is {float(raw):g}; recommended: ")]
        assert len(named) == (raw in outside)


def test_a_warning_when_the_weights_do_not_make_one() -> None:
    assert recommendation_warnings(apply_overrides(CONFIG, ["kd.alpha=0.7"])) == [
        "kd.alpha + kd.beta is 0.9; recommended: 1. Another sum scales the loss."
    ]
    assert recommendation_warnings(apply_overrides(CONFIG, ["kd.alpha=0.7", "kd.beta=0.3"])) == []


def test_the_ratio_is_not_judged_where_a_width_replaces_it() -> None:
    config = apply_overrides(CONFIG, ["student.width_ratio=0.9", "student.width=100"])
    assert recommendation_warnings(config) == []


# ---- width ----


@pytest.mark.parametrize(
    ("settings_of_width", "teacher_width", "width"),
    [
        ({"width_ratio": 0.6}, 256, 152),
        ({"width_ratio": 0.6, "width_multiple": 1}, 256, 154),
        ({"width_ratio": 0.6, "width_at_256": 150}, 256, 150),
        ({"width_ratio": 0.6, "width_at_256": 150}, 512, 304),
        ({"width_ratio": 0.6, "width_at_256": 150, "width": 100}, 256, 100),
        ({"width_ratio": 0.35}, 512, 176),
        ({"width_ratio": 0.55}, 300, 168),  # 165 is nearer to 168 than to 160
        ({"width_ratio": 0.5}, 24, 16),  # 12: halfway goes up
        ({"width_ratio": 0.1}, 16, 8),  # at least one multiple
        ({"width_ratio": 1.0}, 12, 12),  # never wider than the teacher
        ({"width_ratio": 0.5, "width": 64}, 64, 64),
    ],
)
def test_the_width_for_a_teacher(settings_of_width: dict[str, Any], teacher_width: int, width: int) -> None:
    assert StudentConfig(**settings_of_width).resolve_width(teacher_width) == width


@given(st.floats(0.01, 1), st.integers(1, 64), st.integers(1, 4096))
def test_the_width_is_the_nearest_that_is_allowed(ratio: float, multiple: int, teacher_width: int) -> None:
    width = StudentConfig(width_ratio=ratio, width_multiple=multiple).resolve_width(teacher_width)
    assert 1 <= width <= teacher_width
    if width != teacher_width:
        assert width % multiple == 0
        assert width == multiple or abs(width - ratio * teacher_width) <= multiple / 2 + 1e-6


def test_a_width_beyond_the_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"student\.width: got 300, accepted 1 to 256, the teacher's\. Lower it\."):
        StudentConfig(width_ratio=0.5, width=300).resolve_width(256)
