"""Every setting of a run: what it means, which values it takes, and what a user is told who gives another.

One frozen `RunConfig` with a section per concern; a step receives only its section. Values come from a preset, from the
``config.toml`` of a run, and from ``section.key=value`` overrides. All problems are found first and reported together,
in one `ConfigError`. Knows nothing of torch, of presets and of corpora. Imported by cli, data, distillation, mtdistill,
presets, report and student.
"""

from mtdistill.config.data import CLEANING_RULES, DataConfig
from mtdistill.config.loading import (
    apply_overrides,
    build_config,
    dump_toml,
    option_fields,
    read_toml,
    recommendation_warnings,
)
from mtdistill.config.run import ExpectedConfig, KdConfig, RunConfig, TeacherConfig, TrainingConfig
from mtdistill.config.student import StudentConfig

__all__ = [
    "CLEANING_RULES",
    "DataConfig",
    "ExpectedConfig",
    "KdConfig",
    "RunConfig",
    "StudentConfig",
    "TeacherConfig",
    "TrainingConfig",
    "apply_overrides",
    "build_config",
    "dump_toml",
    "option_fields",
    "read_toml",
    "recommendation_warnings",
]
