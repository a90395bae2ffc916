"""`mtdistill test` and `mtdistill translate`: using a finished student."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mtdistill.cli.checks import require_files, require_output, require_teacher
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.cli.stdin import is_terminal, read_line
from mtdistill.display import Display
from mtdistill.messages import tr

EXIT_PROMISE_BROKEN = 1


def run_test(display: Display, model_path: Path, **options: Any) -> int:
    """Measure a model (options: of `measure_student`) and show its report card.

    Returns 0 when no promise is broken, else 1.
    """
    if options.get("output") is not None:
        require_output(options["output"])
    if options.get("teacher"):
        require_teacher(options["teacher"])
    require_files([*options.get("data", ()), *filter(None, [options.get("comet_model")])])
    from mtdistill.distillation.measuring import measure_student
    from mtdistill.report import render

    quiet_libraries()
    card = measure_student(model_path, display, **options)
    display.say(render(card))
    return 0 if card.keeps_promises else EXIT_PROMISE_BROKEN


def run_translate(console: Console, texts: Sequence[str], model: Path | None, teacher: str | None, beam: int) -> int:
    """Translate lines; with a student and a teacher both are shown, side by side. Returns 1 if any line failed."""
    if teacher:
        require_teacher(teacher)
    import torch

    from mtdistill.decoding import HuggingFaceTranslator, Translator
    from mtdistill.decoding.overflow import overflow_hint
    from mtdistill.decoding.translator import is_visible
    from mtdistill.output_checks import check_translation, failure_marker
    from mtdistill.report.wording import check_name
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
        student = found.translator(torch.get_num_threads())
        translators[tr(en="student", zh="学生")] = (student, found.target_lang)
        if hint := overflow_hint(student):
            Display(Console(stderr=True)).say(hint)
    failed = False
    for line in _lines(console, texts):
        for name, (translator, target_lang) in translators.items():
            (translation,) = translator.translate([line], beam_size=beam)
            reason = check_translation(
                line, translation.text, target_lang=target_lang, hit_length_cap=translation.hit_length_cap
            ) if is_visible(line) else None  # fmt: skip
            shown = translation.text
            if reason is not None:
                shown = tr(
                    en=f"{failure_marker()} ({check_name(reason)})", zh=f"{failure_marker()}（{check_name(reason)}）"
                )
            failed |= reason is not None
            label = f"{name} " if len(translators) > 1 else ""
            console.print(Text.assemble((label, "bold"), shown), highlight=False)
        if console.quiet:  # nobody reads on
            break
    return int(failed)


def _lines(console: Console, texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield from texts
        return
    asked = is_terminal()
    if asked:
        console.print(tr(en="Type a sentence; empty line or Ctrl-D to leave.", zh="请输入句子；空行或 Ctrl-D 退出。"))
    mark = "\ufeff"  # before the first character of a file that Windows wrote
    while (line := read_line()) is not None:
        line, mark = line.removeprefix(mark), ""
        if asked and not line.strip():
            return
        yield line
