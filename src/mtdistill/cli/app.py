"""Which commands there are, their options and help texts in the user's language.

Built anew for each call, because the help texts depend on the language. Imported by `mtdistill.cli.main` only.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mtdistill.display import Display
from mtdistill.messages import tr


def build_app() -> typer.Typer:  # noqa: C901 -- one flat list of commands reads better than a scattered one
    """The command line of `mtdistill`."""
    app = typer.Typer(
        no_args_is_help=False,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=tr(
            en="Distil a translation model into a small, fast student. Without a command: the menu of presets. "
            "--lang en|zh chooses the language.",
            zh="把翻译模型蒸馏成又小又快的学生模型。不带子命令时显示预设菜单。--lang en|zh 选择语言。",
        ),
    )
    output = typer.Option("--output", help=tr(en="folder of all results", zh="存放所有结果的文件夹"))
    settings = typer.Option("--set", help=tr(en="override: section.key=value (repeatable)", zh="覆盖设置：section.key=value（可重复）"))
    teacher_option = typer.Option("--teacher", help=tr(en="teacher: a T5 folder, or reference", zh="教师模型：T5 文件夹，或 reference"))

    @app.callback(invoke_without_command=True)
    def menu(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help=tr(en="show the version", zh="显示版本"))] = False,
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            Console().print(f"mtdistill {installed('mtdistill')}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            from mtdistill.cli.menu import run_menu

            raise typer.Exit(run_menu(Display(Console())))

    @app.command(help=tr(en="List the presets, with what they promise and what they cost here.", zh="列出各预设、它们的承诺以及在本机上的开销。"))
    def presets(
        as_json: Annotated[bool, typer.Option("--json", help=tr(en="machine-readable", zh="输出 JSON"))] = False,
        no_forecast: Annotated[bool, typer.Option("--no-forecast", help=tr(en="skip the calibration", zh="跳过校准"))] = False,
        output: Annotated[str, output] = "train_process",
    ) -> None:
        from mtdistill.cli.listing import show_presets

        show_presets(Console(), as_json=as_json, calibrate=not no_forecast, output=output)

    @app.command(help=tr(en="Distil a student with a preset.", zh="用一个预设蒸馏学生模型。"))
    def distill(
        preset: Annotated[str, typer.Argument(help=tr(en="name or number 1-5", zh="名称或编号 1-5"))],
        yes: Annotated[bool, typer.Option("--yes", "-y", help=tr(en="do not ask", zh="不再询问"))] = False,
        overrides: Annotated[list[str] | None, settings] = None,
        teacher: Annotated[str | None, teacher_option] = None,
        output: Annotated[str | None, output] = None,
        resume: Annotated[bool, typer.Option("--resume", help=tr(en="go on with an interrupted run", zh="继续被中断的训练"))] = False,
        compare_random: Annotated[bool, typer.Option("--compare-random", help=tr(
            en="also train the same student from random weights, for comparison",
            zh="另外从随机权重训练同样的学生模型作为对照",
        ))] = False,
    ) -> None:
        from mtdistill.cli.menu import run_preset

        raise typer.Exit(run_preset(
            Display(Console()), preset, overrides or [], teacher=teacher, output=output, ask=not yes, resume=resume,
            compare_random=compare_random,
        ))  # fmt: skip

    @app.command(help=tr(en="Report card of a student: size, quality, speed, against the preset's promises.", zh="学生模型的成绩单：大小、质量、速度，并与预设的承诺对照。"))
    def test(
        model_path: Annotated[Path, typer.Option("--model_path", "--model-path", help=tr(en="student_best.pt, a model folder or a run folder", zh="student_best.pt、模型文件夹或训练文件夹"))],
        teacher: Annotated[str | None, teacher_option] = None,
        output: Annotated[str | None, output] = None,
    ) -> None:
        from mtdistill.cli.use import run_test

        raise typer.Exit(run_test(Display(Console()), model_path, teacher, output))

    @app.command(help=tr(en="Translate arguments, standard input, or interactively.", zh="翻译参数、标准输入或交互输入的文本。"))
    def translate(
        text: Annotated[list[str] | None, typer.Argument(help=tr(en="text; none: read standard input", zh="文本；不给则读取标准输入"))] = None,
        model: Annotated[Path | None, typer.Option("--model", help=tr(en="student; none: only the teacher", zh="学生模型；不给则只用教师模型"))] = None,
        teacher: Annotated[str | None, teacher_option] = None,
        beam: Annotated[int, typer.Option("--beam", min=1, max=64, help=tr(en="beam size", zh="束宽"))] = 1,
    ) -> None:
        from mtdistill.cli.use import run_translate

        raise typer.Exit(run_translate(Console(soft_wrap=True), text or [], model, teacher, beam))

    teachers = typer.Typer(help=tr(en="Train a teacher.", zh="训练教师模型。"), no_args_is_help=True)
    app.add_typer(teachers, name="teacher")

    @teachers.callback()
    def _teacher() -> None:
        """Keep `train` a subcommand although it is the only one."""

    @teachers.command(help=tr(en="Train a T5 teacher on any prepared or own data; resumable.", zh="用内置或自己的数据训练 T5 教师模型，可随时续训。"))
    def train(
        data: Annotated[list[str] | None, typer.Option("--data", help=tr(en="built-in corpus, file or folder (repeatable)", zh="内置语料、文件或文件夹（可重复）"))] = None,
        extra: Annotated[list[str] | None, typer.Option("--extra", help=tr(en="more training pairs", zh="额外的训练句对"))] = None,
        validation: Annotated[list[str] | None, typer.Option("--validation", help=tr(en="your validation pairs", zh="自己的验证句对"))] = None,
        test: Annotated[list[str] | None, typer.Option("--test", help=tr(en="your test pairs", zh="自己的测试句对"))] = None,
        source_lang: Annotated[str | None, typer.Option("--source-lang", help=tr(en="such as zh", zh="例如 zh"))] = None,
        target_lang: Annotated[str | None, typer.Option("--target-lang", help=tr(en="such as en", zh="例如 en"))] = None,
        vocabulary_size: Annotated[int | None, typer.Option("--vocabulary-size", help=tr(en="pieces of the joint vocabulary", zh="共享词表大小"))] = None,
        encoder_layers: Annotated[int | None, typer.Option("--encoder-layers", min=1, max=100)] = None,
        decoder_layers: Annotated[int | None, typer.Option("--decoder-layers", min=1, max=100)] = None,
        epochs: Annotated[int | None, typer.Option("--epochs", min=1, max=100_000)] = None,
        batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, max=65_536)] = None,
        dropout: Annotated[float | None, typer.Option("--dropout", min=0.0, max=0.9)] = None,
        threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024)] = None,
        output: Annotated[str, output] = "train_process",
        resume: Annotated[bool, typer.Option("--resume", help=tr(en="go on with an interrupted training", zh="继续被中断的训练"))] = False,
    ) -> None:
        from mtdistill.cli.teacher import run_teacher

        given_data = {"train": data, "extra": extra, "validation": validation, "test": test,
                      "source_lang": source_lang, "target_lang": target_lang, "vocabulary_size": vocabulary_size}  # fmt: skip
        run_teacher(
            Display(Console()),
            {name: value for name, value in given_data.items() if value is not None},
            {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers, "dropout": dropout},
            {"epochs": epochs, "batch_size": batch_size},
            output=Path(output), resume=resume, threads=threads,
        )  # fmt: skip

    return app
