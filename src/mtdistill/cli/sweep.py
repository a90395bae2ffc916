"""`mtdistill sweep`: a family of students, and which of them to pick."""

from pathlib import Path
from typing import Annotated

import typer

from mtdistill.cli.options import number_option, output_option, path_option, set_option, settings_of, teacher_option
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr

WIDTH_RATIOS, DECODER_LAYERS = (0.15, 0.25, 0.35, 0.5), (1, 2)


def add_sweep(app: typer.Typer) -> None:
    """The command."""
    preset_argument = typer.Argument(help=tr(en="name or number 1-5", zh="名称或编号 1-5"))
    width_option = number_option(
        "--width-ratio", 0.001, 1.0, en="student width / teacher width (repeatable)", zh="学生宽度 / 教师宽度（可重复）"
    )
    layers_option = number_option(
        "--decoder-layers", 1, 1000, en="decoder depth (repeatable)", zh="解码器层数（可重复）"
    )
    html_option = path_option(
        "--html",
        en="where the page with the plot goes; none: sweep.html in the folder of results",
        zh="含图表网页的位置；不给则为结果文件夹中的 sweep.html",
    )
    yes_option = typer.Option("--yes", "-y", help=tr(en="do not ask", zh="不再询问"))

    @app.command(
        help=tr(
            en="Train students of several sizes with one preset, and show size, speed and quality of each. Give it again "
            "to go on.",
            zh="用同一预设训练多个大小的学生模型，并比较它们的大小、速度和质量。中断后再次执行即可继续。",
        )
    )
    def sweep(
        preset: Annotated[str, preset_argument] = "quick",
        width_ratio: Annotated[list[float], width_option] = list(WIDTH_RATIOS),  # noqa: B006 - typer copies it
        decoder_layers: Annotated[list[int], layers_option] = list(DECODER_LAYERS),  # noqa: B006
        html: Annotated[Path | None, html_option] = None,
        yes: Annotated[bool, yes_option] = False,
        overrides: Annotated[list[str] | None, set_option()] = None,
        teacher: Annotated[str | None, teacher_option()] = None,
        output: Annotated[str | None, output_option()] = None,
    ) -> None:
        from mtdistill.cli.checks import require_page, require_run
        from mtdistill.cli.menu import EXIT_NO_CHOICE, confirmed
        from mtdistill.cli.quiet import quiet_libraries
        from mtdistill.presets import load_presets

        config, display = settings_of(preset, overrides, teacher=teacher, output=output), Display(Terminal())
        page = html or Path(config.output) / "sweep.html"
        require_run(config)
        require_page(page)
        from mtdistill.distillation.forecast import forecast
        from mtdistill.distillation.materials import prepare_materials
        from mtdistill.distillation.run_folder import run_folder
        from mtdistill.distillation.sweep import family
        from mtdistill.distillation.sweep import sweep as run_sweep
        from mtdistill.report import find_card, render_comparison, write_comparison_html

        quiet_libraries()
        materials = prepare_materials(config, display)
        members = family(config, materials.teacher, width_ratio, decoder_layers)
        display.say(", ".join(member.run_name for member in members))
        if not yes:
            minutes = len(members) * forecast(members[-1], materials).minutes  # of the largest
            display.say(
                tr(
                    en=f"forecast: at most {minutes:.0f} minutes for {len(members)} students",
                    zh=f"预测：{len(members)} 个学生模型最多需要 {minutes:.0f} 分钟",
                )
            )
            if not confirmed(display):
                raise typer.Exit(EXIT_NO_CHOICE)
        cards = dict(run_sweep(members, display, materials=materials))
        for each in load_presets():
            card = find_card(run_folder(each.config.model_copy(update={"output": config.output})).path)
            if card is not None:
                cards.setdefault(each.name, card)
        display.say(render_comparison(cards))
        write_comparison_html(cards, page)
        display.say(tr(en=f"with plot: {page}", zh=f"含图表：{page}"))
