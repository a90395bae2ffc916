"""Typer's own words in the user's language: the frame of its help, and what it says of a command line it cannot read.

Typer takes no translations; the headings of its help are constants, its messages are put together where they arise. A
message that is not known here stays English. Imported by cli, cli.app, cli.bench and cli.cache.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from mtdistill.messages import colon, tr

_CHINESE = {  # whole messages; the names in them stay
    r"No such command (.+)\.": r"没有这个命令：\1。",
    r"No such command (.+)\. Did you mean (.+)\?": r"没有这个命令：\1。您要的是 \2 吗？",
    r"No such option: (\S+)": r"没有这个选项：\1。",
    r"No such option: (\S+) \(Possible options: (.+)\)": r"没有这个选项：\1。相近的选项：\2。",
    r"Missing argument (.+)\.": r"缺少参数 \1。",
    r"Missing option (.+)\.": r"缺少选项 \1。",
    r"Got unexpected extra argument\(s\) \((.+)\)": r"多余的参数：\1。",
    r"Option (.+) requires an argument\.": r"选项 \1 需要一个值。",
    r"Option (.+) does not take a value\.": r"选项 \1 不带值。",
    r"Invalid value for (.+?): (.+)": r"\1 的值无效：\2",
}


def worded(error: typer.TyperException) -> str:
    """What was wrong with the command line, and which help to read; empty where the help of a group was shown instead."""
    message = error.format_message()
    if not message:
        return ""
    for english, chinese in _CHINESE.items():
        if found := re.fullmatch(english, message, re.DOTALL):
            message = tr(en=message, zh=found.expand(chinese))
            break
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "mtdistill"
    return f"{message}\n{tr(en='Help', zh='帮助')}{colon()}{command} --help"


class CommandGroup(typer.Typer):
    """Commands whose help is in the user's language, to be declared as in any `typer.Typer`."""

    def __init__(self, **how: Any) -> None:
        super().__init__(cls=_Group, **how)

    def command(self, name: str | None = None, **how: Any) -> Callable[[Any], Any]:
        """Declares one of them."""
        return super().command(name, cls=_Command, **how)


class _HelpInLanguage:
    """What Typer's commands and groups of commands, which have no base of their own in common, do otherwise."""

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option: TyperOption | None = super().get_help_option(ctx)  # type: ignore[misc]
        if option:
            option.help = tr(en="show this help", zh="显示帮助")
        return option

    def get_usage(self, ctx: Any) -> str:
        usage: str = super().get_usage(ctx)  # type: ignore[misc]
        return usage.replace("Usage: ", tr(en="Usage: ", zh="用法："), 1)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _word_headings()
        super().format_help(ctx, formatter)  # type: ignore[misc]


class _Command(_HelpInLanguage, TyperCommand):
    pass


class _Group(_HelpInLanguage, TyperGroup):
    pass


def _folding(make: Callable[..., Any]) -> Callable[..., Any]:
    """Help texts whose long lines go on in the next one: Chinese has no spaces to break at, and would be cut off."""

    @functools.wraps(make)
    def folding(**how: Any) -> Any:
        text = make(**how)
        text.overflow = "fold"
        return text

    return folding


def _word_headings() -> None:
    from typer import rich_utils  # slow to import, and only help needs it

    if not hasattr(rich_utils._make_rich_text, "__wrapped__"):
        rich_utils._make_rich_text = _folding(rich_utils._make_rich_text)
    rich_utils.ARGUMENTS_PANEL_TITLE = tr(en="Arguments", zh="参数")
    rich_utils.OPTIONS_PANEL_TITLE = tr(en="Options", zh="选项")
    rich_utils.COMMANDS_PANEL_TITLE = tr(en="Commands", zh="命令")
    rich_utils.REQUIRED_LONG_STRING = tr(en="[required]", zh="[必需]")
    rich_utils.DEFAULT_STRING = tr(en="[default: {}]", zh="[默认：{}]")
