"""How much faster a student is than its teacher, on this computer and under these conditions."""

import math
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mtdistill.decoding import Translator
from mtdistill.text import word_count

WARM_UP_SENTENCES = 32
# At batch 1 the models take turns this often. The speed of a shared machine changes from second to second: the ratios of 12 pairs
# of runs over 256 sentences spread by 9 % with whole runs by turns, by 5 % so, and by 3 % with a turn for every sentence,
# where each model finds the caches full of the other one (docs/experiments.md, 2026-11-30).
SENTENCES_OF_A_TURN = 8


@dataclass(frozen=True)
class Timing:
    """How long one model took for a set of sentences, tokenisation included, and under which conditions.

    Attributes:
        seconds: median over the runs.
        target_tokens: of all translations together, end marks included.
        latency_ms: at batch 1, the median over all calls in milliseconds; else None.
        latency_p95_ms: likewise, the 95th percentile.
    """

    engine: str
    precision: str
    threads: int
    seconds: float
    target_tokens: int
    latency_ms: float | None
    latency_p95_ms: float | None


@dataclass(frozen=True)
class SpeedUp:
    """Teacher seconds / student seconds for the same sentences, and the conditions of the measurement.

    Attributes:
        ratio: median over the pairs of runs, of two the geometric mean; above 1 the student is faster.
        low: smallest ratio of a pair.
        high: largest ratio of a pair.
        repeats: pairs of runs.
        sentences: sentences in a run.
        source_words: words in a run; a character of a script without spaces is half a word.
    """

    ratio: float
    low: float
    high: float
    repeats: int
    sentences: int
    source_words: float
    batch_size: int
    beam_size: int
    cpu: str
    teacher: Timing
    student: Timing


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

    Each model warms up on the first sentences. Then come pairs of runs, one of each model, with the order swapped from
    pair to pair; whatever else the computer does hits both, and the median of the ratios forgets the pairs it did not.
    At batch 1 the two runs of a pair take turns, a few sentences each.

    Args:
        student: translates the sentences.
        teacher: likewise; same engine, precision and threads for a speed-up of the model alone.
        sources: 1 or more sentences.
        batch_size: sentences that go through an engine at once; at 1 every sentence is a call of its own.
        beam_size: 1 is greedy.
        repeats: pairs of runs, 1 or more.
    """
    for translator in (teacher, student):
        _Run().translate(translator, sources[:WARM_UP_SENTENCES], batch_size, beam_size)
    size = SENTENCES_OF_A_TURN if batch_size == 1 else len(sources)
    turns = [sources[start : start + size] for start in range(0, len(sources), size)]
    teacher_runs = [_Run() for _ in range(repeats)]
    student_runs = [_Run() for _ in range(repeats)]
    for repeat in range(repeats):
        pair = [(teacher, teacher_runs[repeat]), (student, student_runs[repeat])]
        for turn, some in enumerate(turns, start=repeat):
            for translator, run in pair if turn % 2 == 0 else reversed(pair):
                run.translate(translator, some, batch_size, beam_size)
    ratios = [slow.seconds / fast.seconds for slow, fast in zip(teacher_runs, student_runs, strict=True)]
    return SpeedUp(
        ratio=math.sqrt(statistics.median_low(ratios) * statistics.median_high(ratios)),
        low=min(ratios),
        high=max(ratios),
        repeats=repeats,
        sentences=len(sources),
        source_words=sum(map(word_count, sources)),
        batch_size=batch_size,
        beam_size=beam_size,
        cpu=cpu_name(),
        teacher=_timing(teacher, teacher_runs, batch_size),
        student=_timing(student, student_runs, batch_size),
    )


@dataclass
class _Run:
    """One run over all sentences: the time of every call, and what came out."""

    calls: list[float] = field(default_factory=list)
    target_tokens: int = 0

    @property
    def seconds(self) -> float:
        return sum(self.calls)

    def translate(self, translator: Translator, sources: Sequence[str], batch_size: int, beam_size: int) -> None:
        """Go on with these sentences."""
        for part in [[source] for source in sources] if batch_size == 1 else [sources]:
            start = time.perf_counter()
            translations = translator.translate(part, beam_size=beam_size, batch_size=batch_size)
            self.calls.append(time.perf_counter() - start)
            self.target_tokens += sum(translation.tokens for translation in translations)


def _timing(translator: Translator, runs: Sequence[_Run], batch_size: int) -> Timing:
    latencies = [1000 * call for run in runs for call in run.calls] if batch_size == 1 else []
    return Timing(
        engine=translator.engine,
        precision=translator.precision,
        threads=translator.threads,
        seconds=statistics.median(run.seconds for run in runs),
        target_tokens=runs[0].target_tokens,
        latency_ms=float(np.median(latencies)) if latencies else None,
        latency_p95_ms=float(np.percentile(latencies, 95)) if latencies else None,
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
