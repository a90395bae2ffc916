"""How much faster a student is than its teacher, on this computer and under these conditions."""

import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtdistill.decoding import Translator


@dataclass(frozen=True)
class SpeedUp:
    """Teacher seconds / student seconds for the same sentences, and the conditions of the measurement.

    Attributes:
        ratio: median over the pairs of runs; above 1 the student is faster.
        low: smallest ratio of a pair.
        high: largest ratio of a pair.
        teacher_seconds: median of a run over all sentences, tokenisation included.
        student_seconds: likewise.
        repeats: pairs of runs.
        sentences: sentences in a run.
    """

    ratio: float
    low: float
    high: float
    teacher_seconds: float
    student_seconds: float
    repeats: int
    sentences: int
    batch_size: int
    beam_size: int
    teacher_engine: str
    student_engine: str
    teacher_precision: str
    student_precision: str
    teacher_threads: int
    student_threads: int
    cpu: str

    @property
    def same_conditions(self) -> bool:
        """Both models ran in the same engine, precision and number of threads."""
        return (self.teacher_engine, self.teacher_precision, self.teacher_threads) == (
            self.student_engine,
            self.student_precision,
            self.student_threads,
        )


def measure_speed(
    student: Translator,
    teacher: Translator,
    sources: Sequence[str],
    *,
    batch_size: int = 32,
    beam_size: int = 1,
    repeats: int = 5,
) -> SpeedUp:
    """Time both models on the same sentences, by turns.

    Each model runs once unmeasured. Then come pairs of runs, one of each model, with the order swapped from pair to
    pair; whatever else the computer does hits both, and the median of the ratios forgets the pairs it did not.

    Args:
        student: translates the sentences.
        teacher: likewise; same engine, precision and threads for a speed-up of the model alone.
        sources: 1 or more sentences.
        batch_size: sentences that go through an engine at once.
        beam_size: 1 is greedy.
        repeats: pairs of runs, 1 or more.
    """

    def seconds(translator: Translator) -> float:
        start = time.perf_counter()
        translator.translate(sources, beam_size=beam_size, batch_size=batch_size)
        return time.perf_counter() - start

    seconds(teacher)
    seconds(student)
    teacher_runs: list[float] = []
    student_runs: list[float] = []
    for repeat in range(repeats):
        order = [(teacher, teacher_runs), (student, student_runs)]
        for translator, runs in order if repeat % 2 == 0 else reversed(order):
            runs.append(seconds(translator))
    ratios = [slow / fast for slow, fast in zip(teacher_runs, student_runs, strict=True)]
    return SpeedUp(
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        teacher_seconds=statistics.median(teacher_runs),
        student_seconds=statistics.median(student_runs),
        repeats=repeats,
        sentences=len(sources),
        batch_size=batch_size,
        beam_size=beam_size,
        teacher_engine=teacher.engine,
        student_engine=student.engine,
        teacher_precision=teacher.precision,
        student_precision=student.precision,
        teacher_threads=teacher.threads,
        student_threads=student.threads,
        cpu=cpu_name(),
    )


def cpu_name() -> str:
    """The processor as its maker calls it; the architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    if not names and platform.system() == "Darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        names = [asked.stdout.strip()]
    return (names and names[0]) or platform.processor() or platform.machine()
