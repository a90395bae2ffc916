"""Every preset in full, as a user runs it, against what it promises: one after the other, each in a process of its own.

    python benchmarks/presets.py --output FOLDER                   # all five, some seven hours on two cores
    python benchmarks/presets.py --output FOLDER quick balanced --seed 1 --seed 2 --seed 3
    python benchmarks/presets.py --output FOLDER quality --set training.threads=1    # on one core, with room for another
    python benchmarks/presets.py --output FOLDER --summary         # only the table of what is there

Runs `mtdistill distill PRESET`, from data to report card on the test split. A run that was interrupted goes on when the command
is given again, one that has ended with the same settings is not run again; the time of every piece is added up, and the number
of pieces is told. Results go to results/presets.json after every run, with the findings of its health checks and the largest
memory of its process. With `--random` the same student is trained from random weights as well, which takes as long again. Data
and stored teacher states are made once per output folder and preset: the first run of each pays for them.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtdistill.config import RunConfig, apply_overrides, read_toml
from mtdistill.distillation.run_folder import changed_settings, has_begun, resume_command, run_folder
from mtdistill.files import write_atomically
from mtdistill.health.journal import HEALTH_FILE, read_findings
from mtdistill.presets import load_preset, load_presets
from mtdistill.report import ReportCard, find_card

RESULTS = Path(__file__).parent / "results" / "presets.json"
PROMISES_MISSED, TRAINING_FAILED = 1, 3  # exit codes of a run that has ended
NO_CHANGES = ("name=", "output=", "training.seed=")
PIECES = "pieces.json"  # in the run folder: seconds and peak memory of every process that worked on the run


def settings(preset: str, seed: int, output: Path, changed: Sequence[str]) -> RunConfig:
    """Of one run; the first seed is the preset as it is but for what is changed on purpose."""
    other_seed = [f"training.seed={seed}", f"name={preset}-seed-{seed}"] if seed != 1 else []
    return apply_overrides(load_preset(preset).config, [f"output={output}", *other_seed, *changed])


def pieces_of(config: RunConfig) -> list[dict[str, float]]:
    """What every process that worked on a run has cost; empty where nothing was noted."""
    noted = run_folder(config).path / PIECES
    pieces: list[dict[str, float]] = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else []
    return pieces


def run(config: RunConfig, *, random: bool) -> None:
    """Start or go on with a run, and note what it cost."""
    resume = has_begun(config)
    pieces, noted = pieces_of(config) if resume else [], run_folder(config).path / PIECES
    command = shlex.split(resume_command(config))
    command[0] = str(Path(sys.executable).with_name("mtdistill"))
    if not resume:
        command[command.index("--resume")] = "--yes"
    command += ["--compare-random"] if random else []
    started = time.monotonic()
    process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends with a checkpoint; its time counts
    _, status, usage = os.wait4(process.pid, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pieces.append({"seconds": time.monotonic() - started, "gibibytes": usage.ru_maxrss / 2**20})
    if noted.parent.is_dir():
        write_atomically(noted, json.dumps(pieces))
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, PROMISES_MISSED, TRAINING_FAILED):
        sys.exit(code)


def result_of(config: RunConfig, card: ReportCard) -> dict[str, Any]:
    """What is kept of a run."""
    folder = run_folder(config).path
    changed = changed_settings(read_toml(folder / "config.toml"))
    pieces = pieces_of(config)
    return {
        "changed": [each for each in changed if not each.startswith(NO_CHANGES)],
        "environment": json.loads((folder / "environment.json").read_text(encoding="utf-8")),
        "measured_at": card.measured_at,
        "minutes": sum(piece["seconds"] for piece in pieces) / 60,
        "pieces": len(pieces),
        "gibibytes": max((piece["gibibytes"] for piece in pieces), default=None),
        "findings": [finding.check for finding in read_findings(folder / HEALTH_FILE)],
        "parameters": card.student.parameters,
        "mib_int8": card.student.mib_int8,
        "promises": {each.name: {"expected": each.expected, "measured": each.measured} for each in card.promises},
        "bleu": {
            "teacher": card.quality.teacher.bleu,
            "student": card.quality.student.bleu,
            "random": card.random_bleu,
        },
        "retention": {"low": card.quality.retention.low, "high": card.quality.retention.high},
        "teacher_success": card.success.teacher_rate,
        "failures": dict(card.success.failures),
        "second_tries": {"student": card.success.second_tries, "teacher": card.success.teacher_second_tries},
    }


def stored(path: Path) -> dict[str, Any]:
    """Results so far; another process may be adding to them."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: what was promised, and in bold what was measured."""
    lines = [
        "| preset | compression | quality retention (95 %) | success | speed-up | int8, MiB | random start, BLEU | minutes "
        "| findings |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        kept = {promise: (each["expected"], each["measured"]) for promise, each in found["promises"].items()}
        cells = {
            promise: f"{expected:g}x: **{measured:.2f}x**" if promise in ("compression_ratio", "speed_up")
            else f"{expected:.0%}: **{measured:.1%}**"
            for promise, (expected, measured) in kept.items()
        }  # fmt: skip
        interval = f"({found['retention']['low']:.1%} to {found['retention']['high']:.1%})"
        random = found["bleu"]["random"]
        lines.append(
            f"| {name} | {cells['compression_ratio']} | {cells['quality_retention']} {interval} | {cells['success_rate']} "
            f"| {cells['speed_up']} | {found['mib_int8']:.1f} | {'' if random is None else format(random, '.2f')} "
            f"| {found['minutes']:.1f} | {len(found['findings'])} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, keep the results, print the table."""
    names = [preset.name for preset in load_presets()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="*", help=f"some of {', '.join(names)}; none: all")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seed", type=int, action="append", help="repeatable; 1 unless given")
    parser.add_argument("--set", action="append", default=[], help="a setting of every run, such as training.threads=1")
    parser.add_argument("--random", action="store_true", help="train the same student from random weights too")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    ours: dict[str, Any] = {}
    for preset in arguments.preset or names:
        for seed in arguments.seed or [1]:
            config = settings(preset, seed, arguments.output, arguments.set)
            folder = run_folder(config).path
            if not arguments.summary and not (has_begun(config) and find_card(folder)):
                run(config, random=arguments.random)
            if card := find_card(folder):
                ours[config.run_name] = result_of(config, card)
                if not arguments.summary:
                    results = {**stored(arguments.results), **ours}
                    write_atomically(arguments.results, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    print(table({**stored(arguments.results), **ours}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
