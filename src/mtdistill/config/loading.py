"""From TOML, values and overrides to a `RunConfig`, and back; every problem of one attempt in one message.

Imported by config; imports config.run and config.wording.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mtdistill.config.run import RunConfig
from mtdistill.config.wording import accepted, shown, takes_a_list, takes_a_list_of_text, takes_none, takes_only_text
from mtdistill.errors import ConfigError
from mtdistill.messages import tr

# The presets lie in these ranges; outside them a run is possible, and what a preset expects says nothing about it.
_RECOMMENDED = {
    "kd.temperature": (3.0, 5.0),
    "kd.alpha": (0.7, 0.85),
    "kd.beta": (0.15, 0.3),
    "training.learning_rate": (0.0003, 0.002),
    "student.width_ratio": (0.35, 0.6),
}
_MIN_SIMILARITY = 0.6  # difflib's own cutoff for "close"
_MAX_NAME = 80  # characters of a name that is compared with the settings; far beyond the longest of them
_MAX_PROBLEMS = 50  # named in one message; more than that is no file of settings
_MAX_FILE_BYTES = 2**20  # ours have 2 KB


def build_config(values: Mapping[str, Any], origin: str | None = None) -> RunConfig:
    """A `RunConfig` from nested plain values, as TOML gives them.

    Args:
        values: settings by section and name.
        origin: where they come from, for the message.

    Raises:
        ConfigError: one message with every unknown, missing and unusable setting.
    """
    return _validated(values, [], origin)


def apply_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The configuration with ``section.key=value`` settings replaced; of two for one setting the later counts.

    Values are TOML (``4``, ``0.5``, ``["a", "b"]``, ``true``). Text needs no quotes, a list of one no brackets, and
    ``none`` (also ``all`` and ``auto``) leaves a setting open that can be left open. A new width ratio takes the
    preset's width for 256-wide teachers away, which belongs to the old ratio.

    Raises:
        ConfigError: one message with every override that cannot be read, is unknown, or has an unusable value.
    """
    values = config.model_dump()
    problems: list[str] = []
    given: set[str] = set()
    for override in overrides:
        path, equals, raw = (part.strip() for part in override.partition("="))
        field = option_fields().get(path)
        if not equals:
            problems.append(
                tr(
                    en=f"{shown(override)}: no value, accepted section.key=value such as kd.temperature=4",
                    zh=f"{shown(override)}：没有值，应写成 section.key=value，例如 kd.temperature=4",
                )
            )
        elif path == "preset":
            problems.append(
                tr(
                    en="preset: cannot be overridden. Start from the other preset",
                    zh="preset：不能用覆盖的方式修改。请直接选用另一个预设",
                )
            )
        elif field is None:
            problems.append(_unknown(path))
        else:
            *sections, key = path.split(".")
            target = values
            for section in sections:
                target = target[section]
            target[key] = _read_value(raw, field)
            given.add(path)
    if given & {"student.width_ratio", "student.width_multiple"} and "student.width_at_256" not in given:
        values["student"]["width_at_256"] = None
    return _validated(values, problems, None)


def recommendation_warnings(config: RunConfig) -> list[str]:
    """A sentence for every setting outside the range in which the presets were made; empty if there is none."""
    warnings = []
    for path, (low, high) in _RECOMMENDED.items():
        section, key = path.split(".")
        value = getattr(getattr(config, section), key)
        replaced = path == "student.width_ratio" and config.student.width is not None
        if not replaced and not low <= value <= high:
            warnings.append(
                tr(
                    en=f"{path} is {value:g}; recommended: {low:g} to {high:g}. Expect other results.",
                    zh=f"{path} 为 {value:g}，推荐范围为 {low:g} 到 {high:g}。结果可能与预期不同。",
                )
            )
    total = config.kd.alpha + config.kd.beta
    if abs(total - 1) > 1e-6:
        warnings.append(
            tr(
                en=f"kd.alpha + kd.beta is {total:g}; recommended: 1. Another sum scales the loss.",
                zh=f"kd.alpha + kd.beta 为 {total:g}，推荐为 1。两者之和不为 1 会改变损失的尺度。",
            )
        )
    return warnings


def dump_toml(config: RunConfig) -> str:
    """TOML that `read_toml` turns into an equal configuration; settings that are None are left out."""
    return tomli_w.dumps(config.model_dump(exclude_none=True))


def read_toml(path: Path) -> RunConfig:
    """The configuration in a TOML file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds settings that cannot be used.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ValueError(tr(en=f"more than {_MAX_FILE_BYTES} bytes", zh=f"超过 {_MAX_FILE_BYTES} 字节"))
        values = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            tr(
                en=f"the settings could not be read: got {path} ({error.strerror}), accepted a file. Check the path.",
                zh=f"无法读取设置：得到 {path}（{error.strerror}），应为文件。请检查路径。",
            )
        ) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or brackets nested thousands deep
        raise ConfigError(
            tr(
                en=f"the settings could not be read: got {path}, accepted UTF-8 TOML ({error}). Correct the file.",
                zh=f"无法读取设置：得到 {path}，应为 UTF-8 编码的 TOML 文件（{error}）。请改正该文件。",
            )
        ) from None
    return build_config(values, str(path))


@cache
def option_fields() -> Mapping[str, FieldInfo]:
    """Every setting by its dotted name, such as ``kd.temperature``, in the order of the sections."""
    return dict(_fields_of(RunConfig, ""))


def _fields_of(section: type[BaseModel], prefix: str) -> list[tuple[str, FieldInfo]]:
    found = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _fields_of(kind, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def _read_value(raw: str, field: FieldInfo) -> object:
    if takes_none(field) and (raw == "none" or (raw in ("all", "auto") and not takes_only_text(field))):
        return None
    try:
        value = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        value = {"value": raw}
    read = value["value"] if value.keys() == {"value"} else raw
    if takes_only_text(field) and not isinstance(read, str):
        return raw
    if takes_a_list(field) and not isinstance(read, list):
        return [raw if takes_a_list_of_text(field) and not isinstance(read, str | dict) else read]
    return read


def _validated(values: Mapping[str, Any], problems: list[str], origin: str | None) -> RunConfig:
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        # Of several faults of one setting the first says what to do; the others follow from it.
        found: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            if len(found) == _MAX_PROBLEMS:
                found[""] = "…"
                break
            if _path(detail) not in found:
                found[_path(detail)] = _problem(detail)
        problems = [*problems, *found.values()]
    if not problems:
        return config
    where = tr(en=f" ({origin})", zh=f"（{origin}）") if origin else ""
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ConfigError(
        tr(
            en=f"the settings cannot be used{where}:{lines}\nCorrect them and start again.",
            zh=f"这些设置无法使用{where}：{lines}\n请改正后重新开始。",
        )
    )


def _path(detail: ErrorDetails) -> str:
    return ".".join(part for part in detail["loc"] if isinstance(part, str))  # without positions in a list


def _problem(detail: ErrorDetails) -> str:
    path = _path(detail)
    if detail["type"] == "extra_forbidden":
        return _unknown(path)
    field = option_fields().get(path)
    wanted = accepted(field) if field else tr(en="a section with settings", zh="包含设置的小节")
    if detail["type"] == "missing":
        return tr(en=f"{path}: missing, accepted {wanted}", zh=f"{path}：缺少，应为：{wanted}")
    if detail["type"] == "value_error":
        return tr(en=f"{path}: ", zh=f"{path}：") + str(detail["ctx"]["error"])
    got = shown(detail["input"])
    return tr(en=f"{path}: got {got}, accepted {wanted}", zh=f"{path}：得到 {got}，应为：{wanted}")


def _unknown(path: str) -> str:
    """What is said about a name that is no setting; the nearest by name, for a wrong section is the usual slip."""
    if inside := [option for option in option_fields() if option.startswith(f"{path}.")]:
        return tr(
            en=f"{path}: a section, accepted one of its settings such as {inside[0]}",
            zh=f"{path}：这是一个小节，应写出其中的设置，例如 {inside[0]}",
        )

    if len(path) > _MAX_NAME:
        path = path[: _MAX_NAME - 1] + "…"

    def likeness(option: str) -> tuple[float, float]:
        last, whole = (path.rpartition(".")[2], option.rpartition(".")[2]), (path, option)
        return _similarity(*last), _similarity(*whole)

    best = max(option_fields(), key=likeness)
    if likeness(best)[0] >= _MIN_SIMILARITY:
        return tr(
            en=f"{path}: no such setting. Did you mean {best}?",
            zh=f"{path}：没有这项设置。是不是要写 {best}？",
        )
    name = path or repr(path)
    return tr(
        en=f"{name}: no such setting, accepted section.key=value such as kd.temperature=4",
        zh=f"{name}：没有这项设置，应写成 section.key=value，例如 kd.temperature=4",
    )


def _similarity(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()
