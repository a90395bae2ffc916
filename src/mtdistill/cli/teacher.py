"""`mtdistill teacher train`: a teacher from text, with its scores on the test split."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtdistill.cli.checks import require_output, require_text
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import DataConfig, apply_overrides
from mtdistill.display import Display
from mtdistill.messages import tr
from mtdistill.presets import RECOMMENDED, load_preset


def run_teacher(
    display: Display,
    data: Mapping[str, Any],
    shape: Mapping[str, Any],
    schedule: Mapping[str, Any],
    *,
    output: Path,
    resume: bool,
    threads: int | None,
) -> None:
    """Train a teacher with the recipe of the shipped one, save for what is given and not None."""
    data_config = _data_config(data)
    require_text(data_config)
    require_output(output)
    from mtdistill.data.prepared import languages_of
    from mtdistill.distillation.run_folder import distill_command
    from mtdistill.distillation.teacher_run import run_teacher_training
    from mtdistill.teacher.training import TeacherRecipe

    quiet_libraries()
    recipe = TeacherRecipe()
    recipe = dataclasses.replace(
        recipe,
        **{name: value for name, value in shape.items() if value is not None},
        schedule=dataclasses.replace(
            recipe.schedule, **{name: value for name, value in schedule.items() if value is not None}
        ),
    )
    folder = output / "teacher-{}-{}".format(*languages_of(data_config))
    best = run_teacher_training(data_config, recipe, folder, display, resume=resume, threads=threads)
    usual = load_preset(RECOMMENDED).config
    changed = {
        "data": data_config,
        "teacher": usual.teacher.model_copy(update={"path": str(best)}),
        "output": str(output),
    }
    command = distill_command(usual.model_copy(update=changed))
    display.say(
        tr(en=f"the teacher is in {best}. Distil it:\n  {command}", zh=f"教师模型在 {best}。用它来蒸馏：\n  {command}")
    )


def _data_config(data: Mapping[str, Any]) -> DataConfig:
    """Checked as every setting is, so that a wrong value gets the same message as with `--set`."""
    # JSON, for Python writes a text with backslashes or both kinds of quotes in a way that TOML does not read.
    values = {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value
        for name, value in data.items()
    }
    overrides = [f"data.{name}={value}" for name, value in values.items()]
    return apply_overrides(load_preset(RECOMMENDED).config, overrides).data
