"""Report cards made by hand."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtdistill.evaluation import FailedExample, Quality, QualityClass, Retention, SpeedUp, Success, Timing
from mtdistill.report import BeamQuality, ModelCard, Promise, ReportCard, Sample, WorstSample

MakeCard = Callable[..., ReportCard]
MakeSpeedUp = Callable[..., SpeedUp]
BLEU = "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
CHRF = "nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def model_card(parameters: int, peak_memory_mib: float | None = None) -> ModelCard:
    mib = parameters / 2**20
    return ModelCard(
        parameters=parameters,
        mib_float32=4 * mib,
        mib_float16=2 * mib,
        mib_int8=mib,
        peak_memory_mib=peak_memory_mib,
    )


def beam_quality(beam: int, teacher: float, student: float, chrf: float = 41.5) -> BeamQuality:
    ratio = student / teacher
    return BeamQuality(
        beam_size=beam,
        teacher=Quality(teacher, 43.2, BLEU, CHRF),
        student=Quality(student, chrf, BLEU, CHRF),
        retention=Retention(ratio, ratio - 0.025, ratio + 0.027, 1000, 1),
    )


def speed_up(
    ratio: float,
    batch_size: int,
    student: str = "float32",
    engine: str = "CTranslate2",
    *,
    teacher: str = "float32",
    student_engine: str = "CTranslate2",
    threads: int = 1,
    beam_size: int = 1,
    student_ms: float = 4.0,
) -> SpeedUp:
    """The student takes `student_ms` a sentence, the teacher `ratio` times as long."""

    def timing(engine: str, precision: str, ms: float) -> Timing:
        latency = (ms - 0.5, 2 * ms) if batch_size == 1 else (None, None)
        return Timing(engine, precision, threads, 256 * ms / 1000, 3072, *latency)

    return SpeedUp(
        ratio=ratio, low=ratio - 0.1, high=ratio + 0.2, repeats=5, sentences=256, source_words=2048.0,
        batch_size=batch_size, beam_size=beam_size, cpu="Examplium 9000 [rev. 2]",
        teacher=timing(engine, teacher, ratio * student_ms), student=timing(student_engine, student, student_ms),
    )  # fmt: skip


def many_speed_ups() -> tuple[SpeedUp, ...]:
    """Every combination a card may hold: 24 of the same engine, and the deployed student."""
    conditions = [(threads, batch, beam) for threads in (1, 2) for batch in (32, 1) for beam in (1, 4)]
    kinds = [("CTranslate2", "float32", 1.0), ("CTranslate2", "int8", 0.7), ("PyTorch", "float32", 11.0)]
    rows = [
        speed_up(
            2.31 + 0.01 * row, batch, precision, engine, teacher=precision, student_engine=engine, threads=threads,
            beam_size=beam, student_ms=slow * (4.0 if batch == 1 else 1.7) * (3.1 if beam == 4 else 1) / threads,
        )
        for row, ((engine, precision, slow), (threads, batch, beam)) in enumerate(
            (kind, condition) for kind in kinds for condition in conditions
        )
    ]  # fmt: skip
    return (*rows, speed_up(22.4, 32, student="int8", engine="PyTorch"))


def promises(**measured: float) -> tuple[Promise, ...]:
    expected = {"compression_ratio": 2.5, "success_rate": 0.6, "speed_up": 2.0, "quality_retention": 0.7}
    values = {"compression_ratio": 2.51, "success_rate": 0.873, "speed_up": 2.31, "quality_retention": 0.912} | measured
    return tuple(
        Promise(name=name, expected=expected[name], measured=value, kept=value >= expected[name])  # type: ignore[arg-type]
        for name, value in values.items()
    )


def classes(*lows: int) -> tuple[QualityClass, ...]:
    """The longer or rarer, the worse for the student."""
    highs = [*lows[1:], None]
    return tuple(
        QualityClass(low, high, 300 - 20 * row, 30.0 - row, 29.0 - 3 * row, 45.0, 44.0 - row)
        for row, (low, high) in enumerate(zip(lows, highs, strict=True))
    )


WORST = tuple(
    WorstSample(
        source=f"第{row}个很难的句子,讲的是<b>城市</b>里的事。",
        references=(f"Hard sentence number {row}, about things in the city.",),
        teacher=f"Hard sentence {row}, about the city.",
        student="He said he said he said he said" if row == 0 else f"The {row} is a thing.",
        failure="loop" if row == 0 else None,
        teacher_chrf=81.6 - row,
        student_chrf=11.7 + row,
    )
    for row in range(20)
)


def report_card(**changes: Any) -> ReportCard:
    values: dict[str, Any] = {
        "mtdistill_version": "0.1.0",
        "measured_at": "2026-11-24T08:00:00+00:00",
        "preset": "quick",
        "settings": {
            "training.epochs": 3, "training.learning_rate": 0.002, "training.data_ratio": 0.1, "kd.temperature": 3.0,
            "kd.alpha": 0.7, "kd.beta": 0.3, "student.width_ratio": 0.6, "student.encoder_layers": None,
            "student.decoder_layers": 3,
        },
        "form": "PyTorch",
        "source_lang": "zh",
        "target_lang": "en",
        "test_set": "test",
        "sentences": 1491,
        "engine": "CTranslate2 float32",
        "teacher": model_card(8_882_176, 98.4),
        "student": model_card(3_538_000, 41.2),
        "compression_ratio": 2.51,
        "qualities": (beam_quality(1, 24.31, 22.17), beam_quality(4, 25.02, 22.74)),
        "comet": None,
        "success": Success(
            0.873,
            0.961,
            {"loop": 12, "wrong_script": 1, "far_below_teacher": 176},
            {
                "loop": (FailedExample("他说他不想去，可是后来还是去了。", "He said he said he said he said " * 20),),
                "wrong_script": (FailedExample("他看了书。", "他看了书"),),
                "far_below_teacher": (FailedExample("[括号] 请把 [/bold] 打开", "open [bold]the[/bold] [red]door"),),
            },
            {"copy": 3, "loop": 55},
            {
                "copy": (FailedExample("汤姆", "汤姆 too"),),
                "loop": (FailedExample("好好好", "good good good good"),),
            },
            second_tries=46,
            teacher_second_tries=22,
        ),
        "by_length": classes(0, 5, 8, 11, 15, 20),
        "by_rarity": classes(0, 10, 30, 100, 300, 1000),
        "worst": WORST,
        "speed_ups": (
            speed_up(2.31, 32), speed_up(2.62, 1), speed_up(22.4, 32, student="int8", engine="PyTorch"),
        ),
        "promised_speed_ups": 2,
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
def make_speed_up() -> MakeSpeedUp:
    return speed_up


@pytest.fixture
def make_model_card() -> Callable[..., ModelCard]:
    return model_card


@pytest.fixture
def make_quality() -> Callable[..., BeamQuality]:
    return beam_quality


@pytest.fixture
def good_card() -> ReportCard:
    return report_card()


@pytest.fixture
def missed_card() -> ReportCard:
    return report_card(
        promises=promises(compression_ratio=2.1, success_rate=0.412, speed_up=1.32, quality_retention=0.611),
        speed_ups=(speed_up(1.9, 32), speed_up(1.32, 1, student_ms=6.0), speed_up(0.4, 32, engine="PyTorch")),
        verdict="missed",
    )


@pytest.fixture
def failed_card() -> ReportCard:
    return report_card(
        promises=promises(success_rate=0.02, quality_retention=0.001),
        verdict="failed",
        qualities=(beam_quality(1, 24.31, 0.02, 4.4), beam_quality(4, 25.02, 0.02, 4.4)),
        success=Success(0.02, 0.961, {"same_output": 1461}, {}, {}, {}),
    )


@pytest.fixture
def full_card() -> ReportCard:
    """Everything a card can hold."""
    return report_card(
        speed_ups=many_speed_ups(),
        promised_speed_ups=4,
        qualities=(beam_quality(1, 24.31, 16.88), beam_quality(4, 25.02, 17.41)),
        promises=promises(speed_up=1.87, quality_retention=16.88 / 24.31),
        verdict="missed",
    )


@pytest.fixture
def unpromised_card() -> ReportCard:
    """Of a model of no preset."""
    return report_card(preset=None, settings={}, promises=(), verdict="unpromised", time_budget_minutes=None)


@pytest.fixture
def dump_dom(tmp_path: Path) -> Callable[[Path], str]:
    """What a real browser makes of a page; skips where none is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")

    def dump(page: Path) -> str:
        run = subprocess.run(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
             f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, encoding="utf-8", timeout=120, check=True,
        )  # fmt: skip
        return run.stdout

    return dump


@pytest.fixture
def hostile() -> str:
    """A text that would take over a page, a terminal or a plot that trusts it."""
    return '<script>document.title="taken"</script><img src=x onerror="document.title=1"> "]\' [red] $x$ {{ 77*77 }}'
