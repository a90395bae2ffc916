"""Which commands there are, their options and help texts in the user's language.

Built anew for each call, because the help texts depend on the language. Imported by cli; imports its neighbours.
"""

from pathlib import Path
from typing import Annotated

import typer

from mtdistill.cli.bench import add_bench
from mtdistill.cli.cache import add_cache
from mtdistill.cli.deliver import add_compare, add_export
from mtdistill.cli.options import (
    json_option,
    number_option,
    one_of,
    output_option,
    path_argument,
    path_option,
    resume_option,
    set_option,
    teacher_option,
)
from mtdistill.cli.pseudo_targets import add_pseudo_targets
from mtdistill.cli.sweep import add_sweep
from mtdistill.cli.typer_words import CommandGroup
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr


def build_app() -> typer.Typer:
    """The command line of `mtdistill`."""
    app = CommandGroup(
        no_args_is_help=False,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=tr(
            en="Distil a translation model into a small, fast student. Without a command: the menu of presets. "
            "--lang en|zh chooses the language.",
            zh="把翻译模型蒸馏成又小又快的学生模型。不带子命令时显示预设菜单。--lang en|zh 选择语言。",
        ),
    )

    @app.callback(invoke_without_command=True)
    def menu(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help=tr(en="show the version", zh="显示版本"))] = False,
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            Terminal().print(f"mtdistill {installed('mtdistill')}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            from mtdistill.cli.menu import run_menu

            raise typer.Exit(run_menu(Display(Terminal())))

    _add_presets(app)
    _add_distill(app)
    _add_test(app)
    add_compare(app)
    add_export(app)
    add_pseudo_targets(app)
    add_sweep(app)
    _add_translate(app)
    teachers = CommandGroup(help=tr(en="Train a teacher.", zh="训练教师模型。"), no_args_is_help=True)
    app.add_typer(teachers, name="teacher")
    _add_teacher_train(teachers)
    add_cache(app)
    add_bench(app)
    return app


def _add_presets(app: typer.Typer) -> None:
    skip_option = typer.Option("--no-forecast", help=tr(en="skip the calibration", zh="跳过校准"))

    @app.command(
        help=tr(
            en="List the presets, with what they promise and what they cost here.",
            zh="列出各预设、它们的承诺以及在本机上的开销。",
        )
    )
    def presets(
        as_json: Annotated[bool, json_option()] = False,
        no_forecast: Annotated[bool, skip_option] = False,
        output: Annotated[str, output_option()] = "train_process",
    ) -> None:
        from mtdistill.cli.listing import show_presets

        show_presets(Terminal(), as_json=as_json, calibrate=not no_forecast, output=output)


def _add_distill(app: typer.Typer) -> None:
    preset_argument = typer.Argument(help=tr(en="name or number 1-5", zh="名称或编号 1-5"))
    yes_option = typer.Option("--yes", "-y", help=tr(en="do not ask", zh="不再询问"))
    random_option = typer.Option(
        "--compare-random",
        help=tr(
            en="also train the same student from random weights, for comparison",
            zh="另外从随机权重训练同样的学生模型作为对照",
        ),
    )

    recovery_option = typer.Option(
        "--no-recovery",
        help=tr(
            en="only watch: skip no update, never go back, stop at a loss that is no number",
            zh="只监视：不跳过更新，也不退回，遇到非有限的损失则停止",
        ),
    )

    @app.command(help=tr(en="Distil a student with a preset.", zh="用一个预设蒸馏学生模型。"))
    def distill(
        preset: Annotated[str, preset_argument],
        yes: Annotated[bool, yes_option] = False,
        overrides: Annotated[list[str] | None, set_option()] = None,
        teacher: Annotated[str | None, teacher_option()] = None,
        output: Annotated[str | None, output_option()] = None,
        resume: Annotated[bool, resume_option()] = False,
        compare_random: Annotated[bool, random_option] = False,
        no_recovery: Annotated[bool, recovery_option] = False,
    ) -> None:
        from mtdistill.cli.menu import run_preset

        code = run_preset(
            Display(Terminal()),
            preset,
            [*(overrides or []), *(["training.recovery=false"] if no_recovery else [])],
            teacher=teacher,
            output=output,
            ask=not (yes or resume),  # a run that goes on was agreed to when it began
            resume=resume,
            compare_random=compare_random,
        )
        raise typer.Exit(code)


def _add_test(app: typer.Typer) -> None:
    accepted = tr(
        en="student_best.pt, a run folder, an export, or a model folder",
        zh="student_best.pt、训练文件夹、导出文件夹或模型文件夹",
    )
    model_argument = path_argument(en=accepted, zh=accepted)
    model_option = path_option("--model_path", "--model-path", en="the same, as an option", zh="同上，以选项给出")
    data_option = path_option(
        "--data", en="your own sentence pairs instead (repeatable)", zh="改用自己的句对（可重复）", kind=str
    )
    quick_option = typer.Option(
        "--quick",
        help=tr(
            en="time only the promised and the deployed speed-up; no memory", zh="只测承诺的和部署时的加速比，不测内存"
        ),
    )
    comet_option = path_option("--comet", en="checkpoint of a COMET model", zh="COMET 模型的检查点文件")

    @app.command(
        help=tr(
            en="Report card of a student: size, quality and speed against the preset's promises.",
            zh="学生模型的成绩单：大小、质量、速度，并与预设的承诺对照。",
        )
    )
    def test(
        path: Annotated[Path | None, model_argument] = None,
        model_path: Annotated[Path | None, model_option] = None,
        teacher: Annotated[str | None, teacher_option()] = None,
        output: Annotated[str | None, output_option()] = None,
        data: Annotated[list[str] | None, data_option] = None,
        quick: Annotated[bool, quick_option] = False,
        comet: Annotated[Path | None, comet_option] = None,
    ) -> None:
        model = one_of(path, model_path, "--model_path", accepted=accepted)
        from mtdistill.cli.use import run_test

        display = Display(Terminal())
        code = run_test(
            display, model, teacher=teacher, output=output, data=data or (), thorough=not quick, comet_model=comet
        )
        raise typer.Exit(code)


def _add_translate(app: typer.Typer) -> None:
    text_argument = typer.Argument(
        help=tr(en="text; none: read standard input, or ask", zh="文本；不给则读取标准输入或交互输入")
    )
    model_option = path_option(
        "--model", en="student or export; none: only the teacher", zh="学生模型或其导出；不给则只用教师模型"
    )
    beam_option = number_option("--beam", 1, 64, en="beam size", zh="束宽")

    @app.command(
        help=tr(
            en="Translate arguments, standard input, or interactively.",
            zh="翻译参数、标准输入或交互输入的文本。",
        )
    )
    def translate(
        text: Annotated[list[str] | None, text_argument] = None,
        model: Annotated[Path | None, model_option] = None,
        teacher: Annotated[str | None, teacher_option()] = None,
        beam: Annotated[int, beam_option] = 1,
    ) -> None:
        from mtdistill.cli.use import run_translate

        raise typer.Exit(run_translate(Terminal(soft_wrap=True), text or [], model, teacher, beam))


def _add_teacher_train(app: typer.Typer) -> None:
    def text_option(name: str, en: str, zh: str) -> typer.models.OptionInfo:
        made: typer.models.OptionInfo = typer.Option(name, help=tr(en=en, zh=zh))
        return made

    def data_option(name: str, en: str, zh: str) -> typer.models.OptionInfo:
        return path_option(name, en=en, zh=zh, kind=str)

    @app.callback()
    def teacher() -> None:
        """Keep `train` a subcommand although it is the only one."""

    @app.command(
        help=tr(
            en="Train a T5 teacher on the built-in or your own text; resumable at any moment.",
            zh="用内置语料或自己的文本训练 T5 教师模型，随时可以续训。",
        )
    )
    def train(
        data: Annotated[
            list[str] | None, data_option("--data", "built-in corpus, file or folder", "内置语料、文件或文件夹")
        ] = None,
        extra: Annotated[list[str] | None, data_option("--extra", "more training pairs", "额外的训练句对")] = None,
        validation: Annotated[
            list[str] | None, data_option("--validation", "your validation pairs", "自己的验证句对")
        ] = None,
        test: Annotated[list[str] | None, data_option("--test", "your test pairs", "自己的测试句对")] = None,
        source_lang: Annotated[str | None, text_option("--source-lang", "such as zh", "例如 zh")] = None,
        target_lang: Annotated[str | None, text_option("--target-lang", "such as en", "例如 en")] = None,
        vocabulary_size: Annotated[
            int | None, number_option("--vocabulary-size", 400, 1_000_000, en="pieces", zh="词表大小")
        ] = None,
        encoder_layers: Annotated[
            int | None, number_option("--encoder-layers", 1, 100, en="layers", zh="编码器层数")
        ] = None,
        decoder_layers: Annotated[
            int | None, number_option("--decoder-layers", 1, 100, en="layers", zh="解码器层数")
        ] = None,
        epochs: Annotated[
            int | None, number_option("--epochs", 1, 100_000, en="passes over the data", zh="训练轮数")
        ] = None,
        batch_size: Annotated[
            int | None, number_option("--batch-size", 1, 65_536, en="sentences", zh="每批句数")
        ] = None,
        dropout: Annotated[float | None, number_option("--dropout", 0.0, 0.9, en="rate", zh="丢弃率")] = None,
        threads: Annotated[int | None, number_option("--threads", 1, 1024, en="CPU threads", zh="CPU 线程数")] = None,
        output: Annotated[str, output_option()] = "train_process",
        resume: Annotated[bool, resume_option()] = False,
    ) -> None:
        from mtdistill.cli.teacher import run_teacher

        given = {
            "train": data,
            "extra": extra,
            "validation": validation,
            "test": test,
            "source_lang": source_lang,
            "target_lang": target_lang,
            "vocabulary_size": vocabulary_size,
        }
        run_teacher(
            Display(Terminal()),
            {name: value for name, value in given.items() if value is not None},
            {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers, "dropout": dropout},
            {"epochs": epochs, "batch_size": batch_size},
            output=Path(output),
            resume=resume,
            threads=threads,
        )
