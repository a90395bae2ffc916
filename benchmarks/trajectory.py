"""Whether the fast path learns what the plain path learns: the same 200 updates, loss by loss.

    python benchmarks/trajectory.py              # about three minutes
    python benchmarks/trajectory.py --updates 20

Three students of one preset start from the same slice of the teacher and see the same batches, without dropout:

* plain: transformers' own modules and the losses of `mtdistill.distillation.losses`, micro-batches padded, float32;
* fused: the kernels, float32, each effective batch cut into two parts;
* fused_bfloat16: the same with matrix products in bfloat16, as a run does it where the processor has that.

Adam divides by the size of a gradient, so that a rounding difference in a gradient near 0 moves a weight by a whole
step: the courses part slowly, and the question is by how much after 200 updates. Exit code 1 beyond `TOLERANCE`.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import apply_overrides
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.construction import start_student
from mtdistill.distillation.materials import prepare_materials
from mtdistill.distillation.run_folder import environment
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.presets import load_preset
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.engine import Engine, prepare_processor
from mtdistill.training.rehearsal import update

# Relative to the plain loss of the same update, in each of them.
TOLERANCE = 0.02
ENGINES = {
    "plain": Engine(fused=False),
    "fused": Engine(parts=2),
    "fused_bfloat16": Engine(parts=2, bfloat16=True),
}


def courses(preset: str, updates: int, output: str) -> dict[str, list[float]]:
    """The mean loss per target token of every update, for each engine."""
    config = apply_overrides(load_preset(preset).config, [f"output={output}", "training.dropout=0"])
    materials = prepare_materials(config, Display())
    rows = training_rows(materials.data, config.training)
    start = start_student(config, materials.teacher, materials.data).build.model
    schedule = replace(training_schedule(config.training), ema_decay=None)
    found: dict[str, list[float]] = {}
    for name, engine in ENGINES.items():
        trainer = DistillationTrainer(
            deepcopy(start), LiveTargets(materials.teacher.model, engine), config.kd, rows, schedule,
            Path(tempfile.mkdtemp()), lambda _: {}, engine=engine,
        )  # fmt: skip
        trainer.model.train()
        loader = iter(trainer.get_train_dataloader())
        accumulation = trainer.args.gradient_accumulation_steps
        found[name] = []
        for number in range(updates):
            found[name].append(update(trainer, list(itertools.islice(loader, accumulation))))
            if number % 50 == 49:
                print(f"{name}: update {number + 1}, loss {found[name][-1]:.4f}", flush=True)
    return found


def differences(course: list[float], plain: list[float]) -> dict[str, float]:
    """Relative to the plain loss of the same update."""
    each = [abs(loss / reference - 1) for loss, reference in zip(course, plain, strict=True)]
    return {"median": statistics.median(each), "largest": max(each), "at_the_end": each[-1]}


def main() -> None:
    """Train all three, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--output", default="train_process", help="holds the prepared data")
    parser.add_argument("--results", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    quiet_libraries()
    prepare_processor(torch.get_num_threads())
    found = courses(options.preset, options.updates, options.output)
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "environment": environment(),
        "preset": options.preset,
        "updates": options.updates,
        "first_and_last_loss": {name: [course[0], course[-1]] for name, course in found.items()},
        "relative_difference_to_plain": {
            name: differences(course, found["plain"]) for name, course in found.items() if name != "plain"
        },
    }
    if options.results:
        options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["relative_difference_to_plain"], indent=2))
    if any(each["largest"] > TOLERANCE for each in result["relative_difference_to_plain"].values()):
        sys.exit(f"the courses differ by more than {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
