"""`mtdistill export` and `mtdistill compare`: what happens to students once they are made."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mtdistill.cli.checks import require_files, require_output, require_page
from mtdistill.cli.options import output_option, path_argument, path_option
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr

COMPARISON_FILE = "comparison.html"


def add_export(app: typer.Typer) -> None:
    """The command `export`."""
    model_argument = path_argument(
        en="student_best.pt, run folder or Hugging Face folder",
        zh="student_best.pt、训练文件夹或 Hugging Face 文件夹",
    )
    format_option = typer.Option("--format", help="hf, ctranslate2, onnx")
    precision_option = typer.Option(
        "--quantization",
        help=tr(
            en="number format of the weights: float32, float16, bfloat16, int8; none: int8, for hf float32",
            zh="权重的数值格式：float32、float16、bfloat16、int8；不给则为 int8（hf 为 float32）",
        ),
    )
    to_option = path_option(
        "--to",
        en="folder of the export; none: export/ in the run folder",
        zh="导出到的文件夹；不给则为训练文件夹中的 export/",
    )
    data_option = path_option(
        "--data", en="your own sentence pairs to compare on (repeatable)", zh="用于比较的自有句对（可重复）", kind=str
    )
    accept_option = typer.Option(
        "--accept-loss",
        help=tr(en="write it even if it translates differently", zh="即使译文不同也写出"),
    )

    @app.command(
        help=tr(
            en="Write a student for Hugging Face, CTranslate2 or ONNX; refused if it does not translate the same.",
            zh="把学生模型导出为 Hugging Face、CTranslate2 或 ONNX 格式；译文不一致则拒绝。",
        )
    )
    def export(
        path: Annotated[Path, model_argument],
        format_name: Annotated[str, format_option],
        quantization: Annotated[str | None, precision_option] = None,
        to: Annotated[Path | None, to_option] = None,
        data: Annotated[list[str] | None, data_option] = None,
        accept_loss: Annotated[bool, accept_option] = False,
        output: Annotated[str | None, output_option()] = None,
    ) -> None:
        if to is not None:
            require_output(to)
        if output is not None:
            require_output(output)
        require_files(data or ())
        from mtdistill.export.exporting import export_model

        quiet_libraries()
        display = Display(Terminal())
        done = export_model(
            path,
            format_name,
            quantization,
            destination=to,
            data=data or (),
            output=output,
            accept_loss=accept_loss,
            display=display,
        )
        display.say(
            tr(
                en=f"{done.folder} ({done.mib:.1f} MiB): {done.parity}",
                zh=f"{done.folder}（{done.mib:.1f} MiB）：{done.parity}",
            )
        )
        display.say(
            tr(
                en=f"use: mtdistill translate --model {shlex.quote(str(done.folder))}",
                zh=f"使用：mtdistill translate --model {shlex.quote(str(done.folder))}",
            )
        )


def add_compare(app: typer.Typer) -> None:
    """The command `compare`."""
    runs_argument = path_argument(
        en="run folders, exports, or report.json files", zh="训练文件夹、导出文件夹或 report.json 文件"
    )
    html_option = path_option("--html", en="where the page with the plot goes", zh="含图表网页的位置")

    @app.command(
        help=tr(
            en="Students side by side, and which of them no other beats in size, speed and quality.",
            zh="并排比较多个学生模型，并指出其中没有被任何其他模型在大小、速度和质量上全面超越的模型。",
        )
    )
    def compare(
        runs: Annotated[list[Path], runs_argument],
        html: Annotated[Path, html_option] = Path(COMPARISON_FILE),
    ) -> None:
        require_page(html)
        from mtdistill.report import read_cards, render_comparison, write_comparison_html

        cards = read_cards(runs)
        display = Display(Terminal())
        display.say(render_comparison(cards))
        write_comparison_html(cards, html)
        display.say(tr(en=f"with plot: {html}", zh=f"含图表：{html}"))
