"""What a report card says, and how it stands in ``report.json``.

One JSON object; ratios are plain numbers (0.85, not 85), times are seconds unless the name says ms, sizes MiB, scores
0 to 100::

    schema_version        2; a reader refuses any other
    mtdistill_version     of the package that measured
    measured_at           UTC, ISO 8601
    preset                name, or null for a model of no preset
    settings              the settings the advice refers to, by dotted name
    form                  what was measured: "PyTorch", "CTranslate2 int8", ...
    source_lang, target_lang
    test_set              "test" (the split of the prepared data) or the user's files
    sentences             distinct test sentences
    engine                of the translations, such as "CTranslate2 float32"
    teacher, student      parameters, mib_float32, mib_float16, mib_int8, peak_memory_mib (or null)
    compression_ratio     teacher parameters / student parameters
    qualities             beam 1, the headline, first; each: beam_size, teacher and student (bleu, chrf,
                          bleu_signature, chrf_signature), retention (ratio, low, high: 95 % interval, samples, seed)
    comet                 model, teacher, student; null where COMET is not installed or no model was given
    success               rate, teacher_rate, failures: {check: count}, examples: {check: [{source, hypothesis}]},
                          teacher_failures, teacher_examples, second_tries and teacher_second_tries: translations that
                          looped or did not end at first
    by_length             classes by words of the source: low, high (null: open), sentences, teacher_bleu,
                          student_bleu, teacher_chrf, student_chrf
    by_rarity             likewise, by how often the rarest piece of the source stands in the training split; empty if unknown
    worst                 the 20 sentences furthest behind the teacher: a sample with teacher_chrf, student_chrf
    speed_ups             each: ratio, low, high, repeats, sentences, source_words, batch_size, beam_size, cpu,
                          teacher and student (engine, precision, threads, seconds, target_tokens, latency_ms,
                          latency_p95_ms); those that the promise is held against first
    promised_speed_ups    how many of `speed_ups`, from the first, the promise is held against
    promises              name, expected, measured, kept
    verdict               "kept", "missed" (some promise), "failed" (no usable student) or "unpromised" (a model of no
                          preset, such as a teacher)
    samples               source, references, teacher, student, failure (a check or null)
    training_seconds      null where nothing was trained in this run
    time_budget_minutes   what the preset allows, or null
    random_bleu           BLEU of the same student trained in the same way from random weights, or null
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtdistill.errors import DataError
from mtdistill.evaluation import Quality, QualityClass, Retention, SpeedUp, Success
from mtdistill.messages import tr

PromiseName = Literal["compression_ratio", "success_rate", "speed_up", "quality_retention"]
Verdict = Literal["kept", "missed", "failed", "unpromised"]

LARGEST = 1e15  # of any number of a card; what is measured stays far below, and what is above cannot be drawn


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Every number of a JSON value, and where it stands."""
    if isinstance(value, int | float):
        yield place, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _numbers(part, f"{place}.{number}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelCard(_Part):
    """Size of one model."""

    parameters: int
    mib_float32: float
    mib_float16: float
    mib_int8: float
    peak_memory_mib: float | None = None
    """Memory that loading the model and translating the test set add to a fresh process; None: not measured."""


class BeamQuality(_Part):
    """Quality of both models at one beam size."""

    beam_size: int
    teacher: Quality
    student: Quality
    retention: Retention


class CometScores(_Part):
    """COMET of both models, beam 1, 0 to 100, and the model that judged."""

    model: str
    teacher: float
    student: float


class Promise(_Part):
    """What a preset promises, held against what was measured; larger is better for each of them."""

    name: PromiseName
    expected: float
    measured: float
    kept: bool


class Sample(_Part):
    """One test sentence in all its translations."""

    source: str
    references: tuple[str, ...] = Field(min_length=1)
    teacher: str
    student: str
    failure: str | None
    """The first output check the student's translation fails; None when it passes all."""


class WorstSample(Sample):
    """A test sentence the student does much worse on than its teacher."""

    teacher_chrf: float
    student_chrf: float


class ReportCard(_Part):
    """Everything that was measured of a student; see the module for the JSON."""

    schema_version: Literal[2] = 2
    mtdistill_version: str
    measured_at: str
    preset: str | None
    settings: Mapping[str, float | int | str | None]
    form: str
    source_lang: str
    target_lang: str
    test_set: str
    sentences: int = Field(ge=1)
    engine: str
    teacher: ModelCard
    student: ModelCard
    compression_ratio: float
    qualities: tuple[BeamQuality, ...] = Field(min_length=1)
    comet: CometScores | None
    success: Success
    by_length: tuple[QualityClass, ...]
    by_rarity: tuple[QualityClass, ...]
    worst: tuple[WorstSample, ...]
    speed_ups: tuple[SpeedUp, ...] = Field(min_length=1)
    promised_speed_ups: int
    promises: tuple[Promise, ...]
    verdict: Verdict
    samples: tuple[Sample, ...]
    training_seconds: float | None
    time_budget_minutes: float | None
    random_bleu: float | None

    @model_validator(mode="before")
    @classmethod
    def _numbers_can_be_drawn(cls, value: Any) -> Any:
        for place, number in _numbers(value, ""):
            if not -LARGEST <= number <= LARGEST:
                raise ValueError(f"{place[1:]} is no number between {-LARGEST:g} and {LARGEST:g}")
        return value

    @model_validator(mode="after")
    def _speeds_were_measured(self) -> Self:
        for number, speed in enumerate(self.speed_ups):
            if min(speed.sentences, speed.teacher.seconds, speed.student.seconds) <= 0:
                raise ValueError(f"speed_ups.{number}: sentences or seconds of 0 or less")
        return self

    @property
    def quality(self) -> BeamQuality:
        """The headline: beam 1."""
        return self.qualities[0]

    @property
    def keeps_promises(self) -> bool:
        """No promise is broken."""
        return self.verdict in ("kept", "unpromised")

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
                    "schema_version 2. Measure the student again with: mtdistill test",
                    zh=f"无法读取成绩单：{place} 有问题（{first['msg']}），"
                    "需要 schema_version 为 2 的 report.json。请用 mtdistill test 重新测试学生模型",
                )
            ) from error
