import io

import pytest
from rich.console import Console

from mtdistill import messages
from mtdistill.cli.bench import show_bench
from mtdistill.distillation.roofline import TrainingBench

from .conftest import Run

FOUND = TrainingBench(
    preset="balanced",
    updates=80,
    tokens_per_second=12345.6,
    seconds_per_update=0.0585,
    phases={"data": 1.0, "forward": 20.25, "backward": 30.5},
    gigaflop_per_update=17.3,
    achieved_gflops=295.7,
    peak_gflops=416.0,
    peak_share=0.711,
    evaluation_seconds=3.7,
    peak_memory_gib=1.25,
    targets="CachedTargets",
    engine={"bfloat16": True, "parts": 2, "threads_per_part": 1},
    threads=2,
    cpu="a processor",
)


@pytest.mark.parametrize(
    ("language", "share", "threads"),
    [("en", "share of the peak", "bfloat16, 2 x 1 threads"), ("zh", "占峰值的比例", "bfloat16，2 x 1 线程")],
)
def test_the_figures_fit_eighty_columns_in_both_languages(language: str, share: str, threads: str) -> None:
    messages.set_language("en" if language == "en" else "zh")
    stream = io.StringIO()
    show_bench(FOUND, Console(file=stream, width=80))
    printed = stream.getvalue()
    assert f"{share}" in printed
    assert "71%" in printed
    assert "12,346" in printed
    assert printed.index("30.5") < printed.index("20.2") < printed.index(" 1.0")  # the longest phase first
    assert threads in printed.replace("\n", " ")


@pytest.mark.parametrize("updates", ["0", "-3", "many"])
def test_updates_that_make_no_sense(run: Run, updates: str) -> None:
    called = run("bench", "training", "quick", "--updates", updates)
    assert called.code == 2
    assert "--updates" in called.err
