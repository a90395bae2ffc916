from typing import Any

import pytest
from rich.cells import cell_len


@pytest.mark.parametrize(
    ("arguments", "english", "chinese"),
    [
        ("frobnicate", "No such command 'frobnicate'.", "没有这个命令：'frobnicate'。"),
        ("tset", "No such command 'tset'. Did you mean 'test'?", "没有这个命令：'tset'。您要的是 'test' 吗？"),
        ("presets --qqq", "No such option: --qqq", "没有这个选项：--qqq。"),
        (
            "presets --jsn",
            "No such option: --jsn (Possible options: --json)",
            "没有这个选项：--jsn。相近的选项：--json。",
        ),
        ("distill", "Missing argument 'preset'.", "缺少参数 'preset'。"),
        ("export x", "Missing option '--format'.", "缺少选项 '--format'。"),
        ("distill quick slow", "Got unexpected extra argument(s) (slow)", "多余的参数：slow。"),
        ("distill quick --set", "Option '--set' requires an argument.", "选项 '--set' 需要一个值。"),
        ("distill quick --yes=3", "Option '--yes' does not take a value.", "选项 '--yes' 不带值。"),
        (
            "translate --beam two x",
            "Invalid value for '--beam': got 'two', accepted a whole number from 1 to 64",
            "'--beam' 的值无效：得到 'two'，应为：1 到 64 的整数",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_both_languages(arguments: str, english: str, chinese: str, run: Any) -> None:
    assert run(*arguments.split()).err.splitlines()[0] == f"Error: {english}"
    assert run(*arguments.split(), "--lang", "zh").err.splitlines()[0] == f"错误：{chinese}"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [("frobnicate", "mtdistill"), ("cache frobnicate", "mtdistill cache"), ("export x", "mtdistill export")],
)
def test_the_help_of_that_command_is_named(arguments: str, command: str, run: Any) -> None:
    assert run(*arguments.split()).err.splitlines()[1:] == [f"Help: {command} --help"]
    assert run(*arguments.split(), "--lang=zh").err.splitlines()[1:] == [f"帮助：{command} --help"]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    "command", ["", "distill", "test", "compare", "export", "pseudo-targets", "sweep", "translate", "teacher train"]
)
def test_no_help_is_cut_off(command: str, lang: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = run(*command.split(), "--help", "--lang", lang).out
    assert "\u2026" not in shown
    assert max(map(cell_len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", ["", "teacher", "teacher train", "cache", "sweep", "export"])
def test_the_frame_of_the_help_is_in_one_language(command: str, run: Any) -> None:
    frames = ("Usage: ", " Arguments ", " Options ", " Commands ", "[default: ", "[required]", "show this help")
    chinese_frames = ("用法：", " 参数 ", " 选项 ", " 命令 ", "[默认：", "[必需]", "显示帮助")
    for lang, own, other in (("zh", chinese_frames, frames), ("en", frames, chinese_frames)):
        shown = run(*command.split(), "--help", "--lang", lang).out
        assert own[0] in shown
        assert own[-1] in shown
        assert not [word for word in other if word in shown]
