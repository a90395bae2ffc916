"""The command line: parse, call, show. Nothing heavy is imported until a command needs it.

`main` turns every error of ours into one plain message: exit code 2 for bad input, 3 for a training that failed,
130 for Ctrl-C; 1 is kept for what was measured and is not good: a broken promise, a line that could not be translated.
"""

import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from mtdistill import messages
from mtdistill.cli.typer_words import worded
from mtdistill.errors import MtdistillError, TrainingFailedError
from mtdistill.files import refusal_of
from mtdistill.messages import tr

EXIT_BAD_INPUT, EXIT_TRAINING_FAILED, EXIT_INTERRUPTED = 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code instead of leaving the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = _take_language(given)
        from mtdistill.cli.app import build_app

        result = typer.main.get_command(build_app())(given, prog_name="mtdistill", standalone_mode=False)
        code = int(result or 0)
    except TrainingFailedError as error:
        _show_error(str(error))
        return EXIT_TRAINING_FAILED
    except MtdistillError as error:
        _show_error(str(error))
        return EXIT_BAD_INPUT
    except typer.TyperException as error:
        if message := worded(error):
            _show_error(message)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as error:
        if (refusal := refusal_of(error)) is None:
            raise
        place = getattr(error, "filename", None) or "-"
        _show_error(
            tr(
                en=f"the system refused: got {refusal} ({place}), accepted a place with enough "
                "space and the permission to use it. Make room, or choose another folder.",
                zh=f"系统拒绝了操作：{refusal}（{place}），需要空间足够且有权限的位置。请腾出空间，或换一个文件夹。",
            )
        )
        return EXIT_BAD_INPUT
    if code == EXIT_INTERRUPTED:  # typer makes this code out of Ctrl-C
        interrupted = tr(en="\nInterrupted. What was saved is kept.", zh="\n已中断。已保存的内容都在。")
        if given[:1] == ["distill"] or given[:2] == ["teacher", "train"]:
            interrupted += tr(en=" Add --resume to go on.", zh="加上 --resume 可以继续。")
        _errors().print(Text(interrupted))
    return code


def script(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the installed command, and of the scripts beside the package."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe that knows no Chinese is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(arguments))


def _errors() -> Console:
    return Console(stderr=True, soft_wrap=True)


def _show_error(message: str) -> None:
    # As `Text`, for a path or a sentence in it may hold brackets, which are no markup.
    _errors().print(Text.assemble((tr(en="Error: ", zh="错误："), "bold red"), message))


def _take_language(given: list[str]) -> list[str]:
    """Apply `--lang` wherever it stands, since the help texts need it before parsing."""
    rest: list[str] = []
    wanted: str | None = None
    position = 0
    while position < len(given):
        if given[position] == "--lang":
            wanted = given[position + 1] if position + 1 < len(given) else ""
            position += 2
        elif given[position].startswith("--lang="):
            wanted = given[position].removeprefix("--lang=")
            position += 1
        else:
            rest.append(given[position])
            position += 1
    if wanted is not None:
        if wanted not in ("en", "zh"):
            raise typer.BadParameter(
                tr(en=f"got {wanted!r}, accepted en or zh", zh=f"得到 {wanted!r}，可用 en 或 zh"), param_hint="--lang"
            )
        messages.set_language("zh" if wanted == "zh" else "en")
    return rest
