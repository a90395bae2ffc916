"""Report cards made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from mtdistill.evaluation import FailedExample, Quality, Retention, SpeedUp, Success
from mtdistill.report import ModelCard, Promise, ReportCard, Sample

MakeCard = Callable[..., ReportCard]
BLEU = "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
CHRF = "nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def model_card(parameters: int, bleu: float, chrf: float) -> ModelCard:
    mib = parameters / 2**20
    return ModelCard(
        parameters=parameters,
        mib_float32=4 * mib,
        mib_float16=2 * mib,
        mib_int8=mib,
        quality=Quality(bleu, chrf, BLEU, CHRF),
    )


def speed_up(ratio: float, batch_size: int, student: str = "float32", engine: str = "CTranslate2") -> SpeedUp:
    return SpeedUp(
        ratio=ratio, low=ratio - 0.1, high=ratio + 0.2, teacher_seconds=ratio, student_seconds=1.0, repeats=5,
        sentences=256, batch_size=batch_size, beam_size=1, teacher_engine=engine, student_engine="CTranslate2",
        teacher_precision="float32", student_precision=student, teacher_threads=1, student_threads=1,
        cpu="Examplium 9000 [rev. 2]",
    )  # fmt: skip


def promises(**measured: float) -> tuple[Promise, ...]:
    expected = {"compression_ratio": 2.5, "success_rate": 0.6, "speed_up": 2.0, "quality_retention": 0.7}
    values = {"compression_ratio": 2.51, "success_rate": 0.873, "speed_up": 2.31, "quality_retention": 0.912} | measured
    return tuple(
        Promise(name=name, expected=expected[name], measured=value, kept=value >= expected[name])  # type: ignore[arg-type]
        for name, value in values.items()
    )


def report_card(**changes: Any) -> ReportCard:
    values: dict[str, Any] = {
        "mtdistill_version": "0.1.0",
        "measured_at": "2026-11-24T08:00:00+00:00",
        "preset": "quick",
        "settings": {
            "training.epochs": 3, "training.learning_rate": 0.002, "training.data_ratio": 0.1, "kd.temperature": 3.0,
            "kd.alpha": 0.7, "kd.beta": 0.3, "student.width_ratio": 0.6, "student.encoder_layers": None,
            "student.decoder_layers": None,
        },
        "source_lang": "zh",
        "target_lang": "en",
        "sentences": 1491,
        "beam_size": 1,
        "engine": "CTranslate2 float32",
        "teacher": model_card(8_882_176, 24.31, 43.2),
        "student": model_card(3_538_000, 22.17, 41.5),
        "compression_ratio": 2.51,
        "retention": Retention(0.912, 0.887, 0.939, 1000, 1),
        "success": Success(
            0.873,
            0.961,
            {"loop": 12, "wrong_script": 1, "far_below_teacher": 176},
            {
                "loop": (FailedExample("他说他不想去，可是后来还是去了。", "He said he said he said he said " * 20),),
                "wrong_script": (FailedExample("他看了书。", "他看了书"),),
                "far_below_teacher": (FailedExample("[括号] 请把 [/bold] 打开", "open [bold]the[/bold] [red]door"),),
            },
        ),
        "speed_ups": (
            speed_up(2.31, 32), speed_up(2.62, 1), speed_up(22.4, 32, student="int8", engine="PyTorch"),
        ),
        "promises": promises(),
        "verdict": "kept",
        "samples": tuple(
            Sample(source=source, references=(reference, "another"), teacher=teacher, student=student, failure=failure)
            for source, reference, teacher, student, failure in [
                ("你在干什么啊?", "What are you doing?", "What are you doing?", "What are you doing?", None),
                ("我很想你。", "I miss you.", "I miss you very much.", "I'm very miss you.", None),
                ("他看了书。", "He read the book.", "He read a book.", "他看了书", "wrong_script"),
            ]
        ),
        "training_seconds": 754.0,
        "time_budget_minutes": 15.0,
        "random_bleu": 0.03,
    } | changes  # fmt: skip
    return ReportCard(**values)


@pytest.fixture
def make_card() -> MakeCard:
    """A card that keeps its promises; changes are given as fields."""
    return report_card


@pytest.fixture
def good_card() -> ReportCard:
    return report_card()


@pytest.fixture
def missed_card() -> ReportCard:
    return report_card(
        promises=promises(compression_ratio=2.1, success_rate=0.412, speed_up=1.32, quality_retention=0.611),
        verdict="missed",
    )


@pytest.fixture
def failed_card() -> ReportCard:
    return report_card(
        promises=promises(success_rate=0.02, quality_retention=0.001),
        verdict="failed",
        student=model_card(3_538_000, 0.02, 4.4),
        success=Success(0.02, 0.961, {}, {}),
    )
