"""`mtdistill bench training`: where the time of an update goes, against what the machine can multiply."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mtdistill.cli.options import json_option, number_option, set_option, settings_of
from mtdistill.cli.typer_words import CommandGroup
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr

if TYPE_CHECKING:
    from mtdistill.distillation.roofline import TrainingBench


def add_bench(app: typer.Typer) -> None:
    """The group of commands."""
    benches = CommandGroup(help=tr(en="Measure this machine.", zh="测量本机性能。"), no_args_is_help=True)
    app.add_typer(benches, name="bench")

    @benches.callback()
    def bench() -> None:
        """Keep `training` a subcommand although it is the only one."""

    @benches.command(
        help=tr(
            en="Time real updates of a preset, phase by phase, against the peak of the same matrix products.",
            zh="逐阶段测量一个预设的真实更新耗时，并与同样矩阵乘法的峰值比较。",
        )
    )
    def training(
        preset: Annotated[str, typer.Argument(help=tr(en="name or number 1-5", zh="名称或编号 1-5"))] = "balanced",
        updates: Annotated[int, number_option("--updates", 1, 1_000_000, en="updates", zh="更新次数")] = 100,
        overrides: Annotated[list[str] | None, set_option()] = None,
        as_json: Annotated[bool, json_option()] = False,
    ) -> None:
        from mtdistill.cli.checks import require_run
        from mtdistill.cli.quiet import quiet_libraries

        config = settings_of(preset, overrides)
        require_run(config)
        from mtdistill.distillation.materials import prepare_materials
        from mtdistill.distillation.roofline import bench_training

        display = Display(None if as_json else Terminal())
        quiet_libraries()
        found = bench_training(config, prepare_materials(config, display), updates, display)
        if as_json:
            typer.echo(json.dumps(asdict(found), indent=2))
        else:
            show_bench(found, Terminal())


def show_bench(found: "TrainingBench", console: Console) -> None:
    """The figures as a table that fits 80 columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    rows = [
        (tr(en="target tokens per second", zh="每秒目标词元"), f"{found.tokens_per_second:,.0f}"),
        (tr(en="ms per update", zh="每次更新毫秒"), f"{found.seconds_per_update * 1e3:.1f}"),
        *((f"  {_phase(name)}", f"{value:.1f}") for name, value in sorted(found.phases.items(), key=lambda x: -x[1])),
        (tr(en="GFLOP per update", zh="每次更新 GFLOP"), f"{found.gigaflop_per_update:.1f}"),
        (tr(en="achieved GFLOP/s", zh="达到的 GFLOP/s"), f"{found.achieved_gflops:.0f}"),
        (tr(en="peak of the same products", zh="同样乘法的峰值"), f"{found.peak_gflops:.0f}"),
        (tr(en="share of the peak", zh="占峰值的比例"), f"{found.peak_share:.0%}"),
        (tr(en="seconds per validation score", zh="每次验证秒数"), f"{found.evaluation_seconds:.1f}"),
        (tr(en="peak memory, GiB", zh="内存峰值 GiB"), f"{found.peak_memory_gib:.2f}"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    number_format = "bfloat16" if found.engine["bfloat16"] else "float32"
    parts = f"{found.engine['parts']} x {found.engine['threads_per_part']}"
    conditions = tr(
        en=f"{found.preset}, {found.updates} updates, {found.targets}, {number_format}, {parts} threads, {found.cpu}",
        zh=f"{found.preset}，{found.updates} 次更新，{found.targets}，{number_format}，{parts} 线程，{found.cpu}",
    )
    console.print(conditions, markup=False, highlight=False)


def _phase(name: str) -> str:
    words = {
        "data": tr(en="data", zh="数据"),
        "teacher": tr(en="teacher", zh="教师"),
        "forward": tr(en="forward", zh="前向"),
        "loss": tr(en="loss and its gradient", zh="损失及其梯度"),
        "backward": tr(en="backward", zh="反向"),
        "optimizer": tr(en="optimizer", zh="优化器"),
    }
    return words.get(name, name)
