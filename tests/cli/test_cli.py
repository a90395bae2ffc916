import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mtdistill.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TRAINING_FAILED
from mtdistill.cli.app import build_app
from mtdistill.errors import DataError, TrainingFailedError

ROOT = Path(__file__).parents[2]
COMMANDS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in build_app().registered_commands
    if command.callback
]
COMMANDS += [group.name for group in build_app().registered_groups if group.name]


def test_the_version(run: Any) -> None:
    called = run("--version")
    assert (called.code, called.out.strip()) == (0, f"mtdistill {version('mtdistill')}")


def test_the_help_names_every_command(run: Any) -> None:
    called = run("--help")
    assert called.code == 0
    assert "Distil a translation model" in called.out
    assert all(command in called.out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [("--lang", "zh", "--help"), ("--help", "--lang", "zh"), ("--lang=zh", "--help")])
def test_the_help_in_chinese_wherever_the_language_stands(arguments: tuple[str, ...], run: Any) -> None:
    called = run(*arguments)
    assert called.code == 0
    assert "把翻译模型蒸馏成又小又快的学生模型" in called.out


@pytest.mark.parametrize("command", [*COMMANDS, "teacher train"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_command_has_help_in_both_languages(command: str, lang: str, run: Any) -> None:
    called = run(*command.split(), "--help", "--lang", lang)
    assert called.code == 0
    assert any("\u4e00" <= character <= "\u9fff" for character in called.out) == (lang == "zh")
    assert max(map(len, called.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("--frobnicate",), "No such option"),
        (("presets", "--frobnicate"), "No such option"),
        (("distill",), "Missing"),
        (("test",), "got nothing, accepted one path"),
        (("distill", "qick"), "no such preset: got 'qick'"),
        (("distill", "6"), "no such preset: got '6'"),
        (("translate", "--beam", "0", "x"), "Invalid value for '--beam'"),
        (("translate", "--beam", "many", "x"), "Invalid value for '--beam'"),
        (("teacher", "train", "--epochs", "0"), "Invalid value for '--epochs'"),
        (("--lang", "fr"), "got 'fr', accepted en or zh"),
        (("--lang",), "got '', accepted en or zh"),
        (("teacher", "train", "--source-lang", "de"), "data.target_lang"),
    ],
)
def test_bad_input_is_one_plain_message(arguments: tuple[str, ...], message: str, run: Any) -> None:
    called = run(*arguments)
    assert called.code == EXIT_BAD_INPUT == 2
    assert called.err.startswith("Error: ")
    assert message in called.err
    assert called.out == ""


def test_a_group_without_a_command_shows_its_help(run: Any) -> None:
    called = run("teacher")
    assert called.code == 2
    assert "train" in called.out + called.err
    assert "Error" not in called.err


def test_every_bad_setting_is_listed(run: Any) -> None:
    given = ("kd.temprature=3", "training.epochs=0", "nonsense", "kd.alpha=two")
    called = run("distill", "quick", *(part for value in given for part in ("--set", value)))
    assert called.code == 2
    for name in ("Did you mean kd.temperature?", "training.epochs: got 0", "'nonsense': no value", "kd.alpha"):
        assert name in called.err


def test_brackets_and_colons_in_a_message_are_shown_as_they_are(run: Any) -> None:
    assert "got [red]a:cat:[/] (" in run("test", "--model_path", "[red]a:cat:[/]").err.replace(",", " (")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no text [in] it"), EXIT_BAD_INPUT),
        (TrainingFailedError("it diverged"), EXIT_TRAINING_FAILED),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
    ],
)
def test_errors_become_exit_codes(error: BaseException, code: int, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("mtdistill.cli.menu.run_preset", fail)
    called = run("distill", "quick")
    assert (EXIT_TRAINING_FAILED, EXIT_INTERRUPTED) == (3, 130)
    assert called.code == code
    assert (str(error) or "Interrupted. What was saved is kept") in called.err


def test_a_fault_of_ours_is_not_hidden(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mtdistill.cli.menu.run_preset", fail)
    with pytest.raises(ZeroDivisionError):
        run("distill", "quick")


def run_script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_the_menu_script_at_the_root() -> None:
    ended = run_script("improved_distillation_trainer.py")
    assert ended.returncode == 2, ended.stderr
    assert "choose a preset" in ended.stdout
    assert "nothing was changed" in ended.stdout
    assert ended.stderr == ""


def test_the_test_script_at_the_root() -> None:
    ended = run_script("test_trained_student.py", "--model_path", "no/such/student_best.pt")
    assert ended.returncode == 2
    assert "there is no student: got no/such/student_best.pt" in ended.stderr
    assert "Traceback" not in ended.stderr
