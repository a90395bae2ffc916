"""Options that several commands have, declared once. Made anew for each call, because their help depends on the language.

What a value must be is said here, in both languages; a value that no command could use never gets further.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mtdistill.messages import tr

if TYPE_CHECKING:
    from mtdistill.config import RunConfig

_MAX_CONTROL = "\x1f"  # the last of the control characters, which no path is meant to hold


def output_option() -> typer.models.OptionInfo:
    """Where results are, or go."""
    return path_option("--output", en="folder of all results", zh="存放所有结果的文件夹", kind=str)


def teacher_option() -> typer.models.OptionInfo:
    """Which teacher."""
    return path_option(
        "--teacher", en="teacher: a T5 folder, or reference", zh="教师模型：T5 文件夹，或 reference", kind=str
    )


def resume_option() -> typer.models.OptionInfo:
    """Go on with an interrupted run."""
    return _option("--resume", en="go on with what was interrupted", zh="继续被中断的训练")


def set_option() -> typer.models.OptionInfo:
    """Settings other than the preset's."""
    return _option("--set", en="override: section.key=value (repeatable)", zh="覆盖设置：section.key=value（可重复）")


def settings_of(
    preset: str, overrides: Sequence[str] | None, *, teacher: str | None = None, output: str | None = None
) -> "RunConfig":
    """What a command runs with: a preset, changed by ``--set``, and by the options that are settings too.

    Raises:
        ConfigError: no such preset, or a setting that cannot be.
    """
    from mtdistill.config import apply_overrides
    from mtdistill.presets import load_preset

    given = {"teacher.path": teacher, "output": output}
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    return apply_overrides(load_preset(preset).config, [*(overrides or ()), *options])


def json_option() -> typer.models.OptionInfo:
    """Output for programs."""
    return _option("--json", en="machine-readable", zh="输出 JSON")


def path_option(*names: str, en: str, zh: str, kind: Callable[[str], Any] = Path) -> typer.models.OptionInfo:
    """An option that names a file or folder, there or not; ``kind`` is Path or str."""
    return _option(*names, en=en, zh=zh, parser=_path_parser(kind), metavar="<path>")


def path_argument(*, en: str, zh: str, kind: Callable[[str], Any] = Path) -> typer.models.ArgumentInfo:
    """Like `path_option`, for an argument."""
    made: typer.models.ArgumentInfo = typer.Argument(help=tr(en=en, zh=zh), parser=_path_parser(kind))
    return made


def one_of(argument: Path | None, option: Path | None, name: str, *, accepted: str) -> Path:
    """What was given as an argument or as the option of this name, which mean the same.

    Raises:
        typer.BadParameter: neither or both.
    """
    given = [path for path in (argument, option) if path is not None]
    if len(given) == 1:
        return given[0]
    got = tr(en=" and ", zh=" 和 ").join(map(str, given)) or tr(en="nothing", zh="（空）")
    raise typer.BadParameter(
        tr(en=f"got {got}, accepted one path: {accepted}", zh=f"得到 {got}，应为一个路径：{accepted}"),
        param_hint=f"'{name}'",
    )


def number_option(name: str, low: float, high: float, *, en: str, zh: str) -> typer.models.OptionInfo:
    """An option that is a number of these bounds, whole where the bounds are."""
    return _option(name, en=en, zh=zh, parser=_number_parser(low, high), metavar=f"<{low:g} - {high:.10g}>")


def _option(*names: str, en: str, zh: str, **how: Any) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(*names, help=tr(en=en, zh=zh), **how)
    return made


def _path_parser(kind: Callable[[str], Any]) -> Callable[[object], Any]:
    def path(value: object) -> Any:
        text = str(value)
        if not text.strip() or min(text) <= _MAX_CONTROL:
            raise _refusal(text, en="a path, not empty and without control characters", zh="非空且不含控制字符的路径")
        try:
            os.stat(text)  # noqa: PTH116 - Path.exists knows only some of the reasons
        except (FileNotFoundError, NotADirectoryError):
            pass  # the command says it better: it knows what should be there
        except OSError as error:
            raise _refusal(
                text,
                en=f"a path that the system can open ({error.strerror}). Check its name and permissions",
                zh=f"系统可以打开的路径（{error.strerror}）。请检查名称和权限",
            ) from error
        return kind(text)

    return path


def _number_parser(low: float, high: float) -> Callable[[object], float]:
    whole = isinstance(low, int) and isinstance(high, int)

    def number(value: object) -> float:
        try:
            given = int(str(value)) if whole else float(str(value))
        except ValueError:
            given = float("nan")
        if not low <= given <= high:  # NaN is not
            raise _refusal(
                str(value),
                en=f"a {'whole ' if whole else ''}number from {low} to {high}",
                zh=f"{low} 到 {high} 的{'整数' if whole else '数'}",
            )
        return given

    return number


def _refusal(value: str, *, en: str, zh: str) -> typer.BadParameter:
    from mtdistill.config.wording import shown

    return typer.BadParameter(tr(en=f"got {shown(value)}, accepted {en}", zh=f"得到 {shown(value)}，应为：{zh}"))
