"""What a report card says, and how it stands in ``report.json``.

One JSON object; ratios are plain numbers (0.85, not 85), times are seconds, sizes MiB, scores 0 to 100::

    schema_version        1; a reader refuses any other
    mtdistill_version     of the package that measured
    measured_at           UTC, ISO 8601
    preset                name; settings: the settings the advice refers to, by dotted name
    source_lang, target_lang
    sentences, beam_size  distinct test sentences; beam of all translations
    engine                of the translations, such as "CTranslate2 float32"
    teacher, student      parameters, mib_float32, mib_float16, mib_int8,
                          quality: bleu, chrf, bleu_signature, chrf_signature
    compression_ratio     teacher parameters / student parameters
    retention             ratio, low, high (95 % interval), samples, seed
    success               rate, teacher_rate, failures: {check: count}, examples: {check: [{source, hypothesis}]}
    speed_ups             the headline first; each: ratio, low, high, teacher_seconds, student_seconds, conditions
    promises              name, expected, measured, kept
    verdict               "kept", "missed" (some promise) or "failed" (no usable student)
    samples               source, references, teacher, student, failure (a check or null)
    training_seconds      null where nothing was trained in this run
    time_budget_minutes   what the preset allows
    random_bleu           BLEU of the same student trained in the same way from random weights, or null
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mtdistill.errors import DataError
from mtdistill.evaluation import Quality, Retention, SpeedUp, Success
from mtdistill.messages import tr

PromiseName = Literal["compression_ratio", "success_rate", "speed_up", "quality_retention"]
Verdict = Literal["kept", "missed", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelCard(_Part):
    """Size and quality of one model."""

    parameters: int
    mib_float32: float
    mib_float16: float
    mib_int8: float
    quality: Quality


class Promise(_Part):
    """What a preset promises, held against what was measured; larger is better for each of them."""

    name: PromiseName
    expected: float
    measured: float
    kept: bool


class Sample(_Part):
    """One test sentence in all its translations."""

    source: str
    references: tuple[str, ...]
    teacher: str
    student: str
    failure: str | None
    """The first output check the student's translation fails; None when it passes all."""


class ReportCard(_Part):
    """Everything that was measured of a student; see the module for the JSON."""

    schema_version: Literal[1] = 1
    mtdistill_version: str
    measured_at: str
    preset: str
    settings: Mapping[str, float | int | str | None]
    source_lang: str
    target_lang: str
    sentences: int
    beam_size: int
    engine: str
    teacher: ModelCard
    student: ModelCard
    compression_ratio: float
    retention: Retention
    success: Success
    speed_ups: tuple[SpeedUp, ...]
    promises: tuple[Promise, ...]
    verdict: Verdict
    samples: tuple[Sample, ...]
    training_seconds: float | None
    time_budget_minutes: float
    random_bleu: float | None

    @property
    def keeps_promises(self) -> bool:
        """Every promise of the preset holds."""
        return self.verdict == "kept"

    def promise(self, name: PromiseName) -> Promise:
        """The promise of this name."""
        return next(promise for promise in self.promises if promise.name == name)

    def to_json(self) -> str:
        """The text of ``report.json``."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ReportCard":
        """Read what `to_json` wrote.

        Raises:
            DataError: damaged, or of another version; the message names the first field that does not fit.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "JSON"
            raise DataError(
                tr(
                    en=f"the report card could not be read: got {place} ({first['msg']}), accepted report.json of "
                    "schema_version 1. Measure the student again with: mtdistill test",
                    zh=f"无法读取成绩单：{place} 有问题（{first['msg']}），"
                    "需要 schema_version 为 1 的 report.json。请用 mtdistill test 重新测试学生模型",
                )
            ) from error
