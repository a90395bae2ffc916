"""`mtdistill pseudo-targets`: training text whose targets the teacher has translated."""

from pathlib import Path
from typing import Annotated

import typer

from mtdistill.cli.options import number_option, output_option, path_option, set_option, settings_of, teacher_option
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr


def add_pseudo_targets(app: typer.Typer) -> None:
    """The command."""
    to_option = path_option(
        "--to",
        en="JSONL file to write; none: pseudo-targets.jsonl in the folder of results",
        zh="要写出的 JSONL 文件；不给则为结果文件夹中的 pseudo-targets.jsonl",
    )
    sources_option = path_option(
        "--sources",
        en="text in the source language, a sentence a line, instead of the training text (repeatable)",
        zh="源语言文本，每行一句，代替训练文本（可重复）",
    )
    beam_option = number_option("--beam", 1, 100, en="beam size of the search", zh="束宽")
    n_best_option = number_option("--n-best", 1, 100, en="translations to choose from", zh="候选译文数")
    keep_option = number_option(
        "--keep",
        1,
        100,
        en="translations kept of each sentence, those closest to the gold text",
        zh="每个句子保留的译文数，取最接近标准译文者",
    )
    share_option = number_option(
        "--share", 0.0001, 1.0, en="share of the sentences to translate", zh="要翻译的句子比例"
    )
    precision_option = typer.Option("--precision", help=tr(en="float32 or int8", zh="float32 或 int8"))

    @app.command(
        "pseudo-targets",
        help=tr(
            en="Translate training text with the teacher, as more text to train on (sequence-level distillation).",
            zh="用教师模型翻译训练文本，作为额外的训练数据（序列级蒸馏）。",
        ),
    )
    def pseudo_targets(
        to: Annotated[Path | None, to_option] = None,
        sources: Annotated[list[Path] | None, sources_option] = None,
        beam: Annotated[int, beam_option] = 5,
        n_best: Annotated[int, n_best_option] = 4,
        keep: Annotated[int, keep_option] = 1,
        share: Annotated[float, share_option] = 1.0,
        precision: Annotated[str, precision_option] = "float32",
        overrides: Annotated[list[str] | None, set_option()] = None,
        teacher: Annotated[str | None, teacher_option()] = None,
        output: Annotated[str | None, output_option()] = None,
    ) -> None:
        from mtdistill.cli.checks import require_compute_type, require_files, require_output, require_run
        from mtdistill.cli.quiet import quiet_libraries
        from mtdistill.presets import RECOMMENDED

        # Any preset would do: what is read of it is the same in all.
        config = settings_of(RECOMMENDED, overrides, teacher=teacher, output=output)
        path = to or Path(config.output) / "pseudo-targets.jsonl"
        compute_type = require_compute_type(precision)
        require_run(config)
        require_output(path.parent)
        require_files(sources or ())
        from mtdistill.distillation.candidates import Search
        from mtdistill.distillation.pseudo_targets import make_pseudo_targets
        from mtdistill.distillation.run_folder import distill_command

        quiet_libraries()
        display = Display(Terminal())
        done = make_pseudo_targets(
            config, path, Search(beam, n_best, keep, share), display, sources=sources or (), precision=compute_type
        )
        display.say(str(done))
        more = config.data.model_copy(update={"extra": (*config.data.extra, str(done.path))})
        command = distill_command(config.model_copy(update={"data": more}))
        display.say(tr(en=f"Train with them:\n  {command}", zh=f"用它们训练：\n  {command}"))
