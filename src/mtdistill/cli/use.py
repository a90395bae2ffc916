"""`mtdistill test` and `mtdistill translate`: using a finished student."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.display import Display
from mtdistill.errors import DataError
from mtdistill.messages import tr

EXIT_PROMISE_BROKEN = 1


def run_test(display: Display, model_path: Path, **options: Any) -> int:
    """Measure a model (options: of `measure_student`) and show its report card.

    Returns 0 when no promise is broken, else 1.
    """
    from mtdistill.distillation.measuring import measure_student
    from mtdistill.report import render

    quiet_libraries()
    card = measure_student(model_path, display, **options)
    display.say(render(card))
    return 0 if card.keeps_promises else EXIT_PROMISE_BROKEN


def run_translate(console: Console, texts: Sequence[str], model: Path | None, teacher: str | None, beam: int) -> int:
    """Translate lines; with a student and a teacher both are shown, side by side. Returns 1 if any line failed."""
    import torch

    from mtdistill.decoding import HuggingFaceTranslator, Translator
    from mtdistill.output_checks import check_translation, failure_marker
    from mtdistill.student.loading import find_model
    from mtdistill.teacher.loading import load_teacher

    quiet_libraries()
    translators: dict[str, tuple[Translator, str]] = {}
    if teacher or not model:
        loaded = load_teacher(teacher or "reference")
        languages = loaded.source_lang or "", loaded.target_lang or ""
        translators[tr(en="teacher", zh="教师")] = (
            HuggingFaceTranslator(loaded.model, loaded.tokenizer, source_lang=languages[0]), languages[1],
        )  # fmt: skip
    if model:
        found = find_model(model)
        translators[tr(en="student", zh="学生")] = (found.translator(torch.get_num_threads()), found.target_lang)
    failed = False
    for line in _lines(console, texts):
        for name, (translator, target_lang) in translators.items():
            (translation,) = translator.translate([line], beam_size=beam)
            reason = check_translation(
                line, translation.text, target_lang=target_lang, hit_length_cap=translation.hit_length_cap
            ) if line.strip() else None  # fmt: skip
            shown = translation.text if reason is None else f"{failure_marker()} ({reason})"
            failed |= reason is not None
            label = f"{name} " if len(translators) > 1 else ""
            console.print(Text.assemble((label, "bold"), shown), highlight=False)
    return int(failed)


def _lines(console: Console, texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield from texts
        return
    if sys.stdin.isatty():
        console.print(tr(en="Type a sentence; empty line or Ctrl-D to leave.", zh="请输入句子；空行或 Ctrl-D 退出。"))
        while line := sys.stdin.readline().strip():
            yield line
        return
    try:
        for line in sys.stdin:
            yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            tr(
                en=f"standard input could not be read: got bytes that are no {error.encoding}, accepted text. "
                "Convert it to UTF-8 first.",
                zh=f"无法读取标准输入：其中有不是 {error.encoding} 的字节，需要文本。请先转换为 UTF-8。",
            )
        ) from error
