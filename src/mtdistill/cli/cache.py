"""`mtdistill cache build | inspect | verify | remove`: the teacher's stored states."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mtdistill.cli.options import output_option, path_argument, set_option, settings_of
from mtdistill.cli.typer_words import CommandGroup
from mtdistill.display import Display, Terminal
from mtdistill.messages import tr


def add_cache(app: typer.Typer) -> None:
    """The group of commands."""
    caches = CommandGroup(help=tr(en="Stored teacher states.", zh="已存储的教师状态。"), no_args_is_help=True)
    app.add_typer(caches, name="cache")
    name_argument = path_argument(en="its folder, or the folder's name", zh="缓存文件夹或其名称", kind=str)

    @caches.command(
        help=tr(
            en="Run the teacher over a preset's training data and store its states; goes on where it was stopped.",
            zh="用教师模型处理一个预设的训练数据并存储其状态；中断后可继续。",
        )
    )
    def build(
        preset: Annotated[str, typer.Argument(help=tr(en="name or number 1-5", zh="名称或编号 1-5"))],
        overrides: Annotated[list[str] | None, set_option()] = None,
        output: Annotated[str | None, output_option()] = None,
    ) -> None:
        from mtdistill.cli.checks import require_run
        from mtdistill.cli.quiet import quiet_libraries

        config, display = settings_of(preset, overrides, output=output), Display(Terminal())
        require_run(config)
        from mtdistill.distillation.budget import training_rows
        from mtdistill.distillation.materials import prepare_materials
        from mtdistill.distillation.pseudo_rows import with_pseudo_targets
        from mtdistill.distillation.targets import stored_targets
        from mtdistill.training.engine import engines

        quiet_libraries()
        materials = prepare_materials(config, display)
        engine = engines(config.training.precision, materials.threads)[0]
        rows = with_pseudo_targets(config, materials, training_rows(materials.data, config.training), display)
        stored_targets(config, materials.teacher.model, rows, engine, display)

    @caches.command(help=tr(en="List the caches and what they were made of.", zh="列出缓存及其来源。"))
    def inspect(output: Annotated[str, output_option()] = "train_process") -> None:
        from mtdistill.cli.checks import require_output
        from mtdistill.errors import CacheError

        require_output(output, to_write=False)
        from mtdistill.teacher.cache_manifest import read_manifest

        root, console = Path(output) / "cache", Terminal()
        table = Table(*tr(en="cache|pairs|tokens|MiB|cut at|teacher", zh="缓存|句对|词元|MiB|截断|教师").split("|"))
        for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
            try:
                manifest = read_manifest(folder)
            except CacheError:
                unfinished = tr(en="unfinished", zh="未完成")
                table.add_row(folder.name, *([unfinished] + [""] * 4))
                continue
            cut, teacher = manifest.parts["max_sequence_length"], str(manifest.parts["teacher"])[:12]
            numbers = (f"{manifest.rows}", f"{manifest.tokens}", f"{manifest.mib:.0f}", f"{cut}", teacher)
            table.add_row(folder.name, *numbers)
        if table.row_count:
            console.print(table)
        else:
            none = tr(en=f"no caches in {root}", zh=f"{root} 中没有缓存")
            console.print(none, markup=False)

    @caches.command(help=tr(en="Compare every file of a cache with its checksum.", zh="校验缓存的每个文件。"))
    def verify(cache: Annotated[str, name_argument], output: Annotated[str, output_option()] = "train_process") -> None:
        from mtdistill.teacher.cache_manifest import verify_cache

        manifest = verify_cache(_folder(cache, output))
        files, mib = len(manifest.sha256), f"{manifest.mib:.0f} MiB"
        sound = tr(en=f"whole: {files} files, {mib}", zh=f"完好：{files} 个文件，{mib}")
        Terminal().print(f"{manifest.identity} {sound}", markup=False)

    @caches.command(help=tr(en="Delete a cache.", zh="删除缓存。"))
    def remove(cache: Annotated[str, name_argument], output: Annotated[str, output_option()] = "train_process") -> None:
        from mtdistill.teacher.cache_manifest import remove_cache

        folder = _folder(cache, output)
        remove_cache(folder)
        Terminal().print(tr(en=f"deleted: {folder}", zh=f"已删除：{folder}"), markup=False)


def _folder(cache: str, output: str) -> Path:
    named = Path(output) / "cache" / cache
    return named if named.is_dir() else Path(cache)
