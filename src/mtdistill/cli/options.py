"""Options that several commands have, declared once. Made anew for each call, because their help depends on the language."""

import typer

from mtdistill.messages import tr


def output_option() -> typer.models.OptionInfo:
    """Where results are, or go."""
    return _option("--output", en="folder of all results", zh="存放所有结果的文件夹")


def teacher_option() -> typer.models.OptionInfo:
    """Which teacher."""
    return _option("--teacher", en="teacher: a T5 folder, or reference", zh="教师模型：T5 文件夹，或 reference")


def resume_option() -> typer.models.OptionInfo:
    """Go on with an interrupted run."""
    return _option("--resume", en="go on with what was interrupted", zh="继续被中断的训练")


def set_option() -> typer.models.OptionInfo:
    """Settings other than the preset's."""
    return _option("--set", en="override: section.key=value (repeatable)", zh="覆盖设置：section.key=value（可重复）")


def json_option() -> typer.models.OptionInfo:
    """Output for programs."""
    return _option("--json", en="machine-readable", zh="输出 JSON")


def _option(name: str, *, en: str, zh: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(name, help=tr(en=en, zh=zh))
    return made
