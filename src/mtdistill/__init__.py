"""mtdistill: turn a translation model into a small, fast student.

The names below are the Python API; each is imported when it is first used, so that importing the package stays quick.

    import mtdistill

    config = mtdistill.apply_overrides(mtdistill.load_preset("quick").config, ["training.epochs=1"])
    result = mtdistill.distill(config)
    print(result.report.to_json())
    student = mtdistill.load_student(result.student_path)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtdistill.config import RunConfig as RunConfig
    from mtdistill.config import apply_overrides as apply_overrides
    from mtdistill.decoding import CTranslate2Translator as CTranslate2Translator
    from mtdistill.decoding import HuggingFaceTranslator as HuggingFaceTranslator
    from mtdistill.decoding import OnnxTranslator as OnnxTranslator
    from mtdistill.distillation.measuring import measure_student as measure_student
    from mtdistill.distillation.pipeline import distill as distill
    from mtdistill.errors import MtdistillError as MtdistillError
    from mtdistill.export.exporting import export_model as export_model
    from mtdistill.presets import load_preset as load_preset
    from mtdistill.presets import load_presets as load_presets
    from mtdistill.student.bundle import load_student as load_student
    from mtdistill.student.loading import find_model as find_model
    from mtdistill.teacher.loading import load_teacher as load_teacher

_HOMES = {
    "CTranslate2Translator": "decoding",
    "HuggingFaceTranslator": "decoding",
    "MtdistillError": "errors",
    "OnnxTranslator": "decoding",
    "RunConfig": "config",
    "apply_overrides": "config",
    "distill": "distillation.pipeline",
    "export_model": "export.exporting",
    "find_model": "student.loading",
    "load_preset": "presets",
    "load_presets": "presets",
    "load_student": "student.bundle",
    "load_teacher": "teacher.loading",
    "measure_student": "distillation.measuring",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
