"""Runs that are killed at random moments and resumed: does the result equal that of an undisturbed run?

    python benchmarks/kills.py --kills 100       # ten to twenty minutes; writes results/kills.json

On a made-up corpus a tiny teacher is trained, then a run of some seconds goes through everything: data, stored teacher
states, training, evaluations, checkpoints, report, and a CTranslate2 export. Each case starts such a run in a process of
its own, kills it with SIGKILL after a random time, and starts it again, perhaps to kill it once more, until it has ended by
itself. Then it is compared with the undisturbed run: weights of the best student and of the export bit for bit, the lines of
metrics.jsonl but for their speed, health.jsonl, and the qualities in report.json. Every file that counts as whole (JSON,
checkpoints with their marker, the student, the export) has to be readable after every kill. Exit code 1 for any difference.

Processes are forked from one that has imported everything, so that a case takes seconds; it has started no thread by then.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import DataConfig, RunConfig, apply_overrides
from mtdistill.display import Display
from mtdistill.distillation.pipeline import distill
from mtdistill.distillation.run_folder import RunFolder, environment, run_folder
from mtdistill.distillation.teacher_run import run_teacher_training
from mtdistill.export.exporting import export_model
from mtdistill.files import write_atomically
from mtdistill.presets import load_preset
from mtdistill.student.bundle import load_student
from mtdistill.teacher.training import TeacherRecipe
from mtdistill.training.checkpoints import COMPLETE_FILE

RESULTS = Path(__file__).parent / "results" / "kills.json"
Ended = Literal["well", "killed", "failed"]
SENTENCES, WORDS = 1500, 40
SECOND_KILL = 0.3
TIMED = "tokens_per_second"


def write_corpus(path: Path) -> None:
    """Sentences of made-up words; the translation has every word replaced by another one."""
    draw = random.Random(1)
    syllables = ["ka", "lo", "mi", "ru", "te", "so", "na", "pe"]
    source = sorted({"".join(draw.choices(syllables, k=3)) for _ in range(WORDS * 2)})[:WORDS]
    target = sorted({"".join(draw.choices(syllables, k=3)) + "n" for _ in range(WORDS * 2)})[:WORDS]
    lines = set()
    while len(lines) < SENTENCES:
        chosen = draw.choices(range(WORDS), k=draw.randint(3, 7))
        lines.add(" ".join(source[w] for w in chosen) + "\t" + " ".join(target[w] for w in chosen))
    path.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


def train_tiny_teacher(folder: Path) -> None:
    """A teacher that knows the corpus, in half a minute."""
    data = DataConfig(
        train=[str(folder / "corpus.tsv")], source_lang="de", target_lang="en", validation_ratio=0.05, test_ratio=0.05,
        vocabulary_size=400,
    )  # fmt: skip
    recipe = TeacherRecipe(encoder_layers=2, decoder_layers=2, width=32, heads=2, head_width=16, feed_forward_width=64,
                           dropout=0.0, layer_drop=0.0)  # fmt: skip
    schedule = replace(recipe.schedule, epochs=40, batch_size=64, learning_rate=1e-2, evaluations=2, ema_decay=None)
    run_teacher_training(data, replace(recipe, schedule=schedule), folder / "teacher", Display(), threads=1)


def overrides(folder: Path, output: Path) -> list[str]:
    """What the run that is disturbed changes of the quick preset."""
    return [
        f"output={output}", f"teacher.path={folder / 'teacher' / 'best'}", f"data.train={folder / 'corpus.tsv'}",
        "data.source_lang=de", "data.target_lang=en", "data.validation_ratio=0.05", "data.test_ratio=0.05",
        "student.width_ratio=0.75", "training.data_ratio=1.0", "training.batch_size=16", "training.epochs=4",
        "training.evaluations=6", "training.optimizer=adamw", "training.learning_rate=0.001", "training.threads=1",
        "training.precision=float32",
        "training.dropout=0.1", "training.ema_decay=0.9", "teacher.targets=cached", "teacher.min_bleu=1",
    ]  # fmt: skip


def settings(folder: Path, output: Path) -> RunConfig:
    """Of the run that is disturbed."""
    return apply_overrides(load_preset("quick").config, overrides(folder, output))


def whole_run(folder: Path, output: Path) -> None:
    """The run and its export, going on where an earlier process was killed."""
    config = settings(folder, output)
    run = run_folder(config)
    # A run that ended is not begun again, only what comes after it.
    if not run.report.is_file():
        distill(config, resume=(run.path / "config.toml").is_file())
    export_model(run.path, "ctranslate2", "float32", output=str(output))


def in_child(work: Callable[[], None], kill_after: float | None = None) -> Ended:
    """Do it in a process of its own, and say how that ended."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return _how(status)
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return _how(status)


def _how(status: int) -> Ended:
    code = os.waitstatus_to_exitcode(status)
    return "well" if code == 0 else "killed" if code == -signal.SIGKILL else "failed"


def result_of(run: RunFolder) -> dict[str, Any]:
    """What has to be equal."""
    weights = hashlib.sha256()
    for name, weight in sorted(load_student(run.best_bundle).model.state_dict().items()):
        weights.update(name.encode() + weight.numpy().tobytes())
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    card = json.loads(run.report.read_text(encoding="utf-8"))
    exported = run.path / "export" / "ctranslate2-float32" / "model.bin"
    return {
        "weights": weights.hexdigest(),
        "metrics": [{name: value for name, value in line.items() if name != TIMED} for line in lines],
        "health": (run.path / "health.jsonl").read_text(encoding="utf-8"),
        "qualities": card["qualities"],
        "success": card["success"]["rate"],
        "export": hashlib.sha256(exported.read_bytes()).hexdigest(),
    }


def damaged(run: RunFolder) -> list[str]:
    """Files that count as whole and cannot be read."""
    found = []
    for path in run.path.rglob("*.json"):
        inside = [parent for parent in path.parents if parent.name.startswith(("checkpoint-", "."))]
        if inside and not (inside[-1] / COMPLETE_FILE).is_file():
            continue
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found.append(str(path.relative_to(run.path)))
    if run.best_bundle.is_file():
        try:
            load_student(run.best_bundle)
        except Exception as error:
            found.append(f"{run.best_bundle.name}: {error}")
    return found


def undisturbed(folder: Path) -> tuple[float, dict[str, Any]]:
    """Corpus and teacher into a folder, and what a run leaves that nobody disturbs: its seconds, and its result."""
    write_corpus(folder / "corpus.tsv")
    if in_child(lambda: train_tiny_teacher(folder)) != "well":
        sys.exit("the teacher could not be trained")
    output, started = folder / "undisturbed", time.monotonic()
    if in_child(lambda: whole_run(folder, output)) != "well":
        sys.exit("the undisturbed run failed")
    return time.monotonic() - started, result_of(run_folder(settings(folder, output)))


def differences(wanted: dict[str, Any], run: RunFolder) -> list[str]:
    """Names of what is not as in the undisturbed run."""
    try:
        found = result_of(run)
    except Exception as error:
        return [f"unreadable: {error}"]
    return [name for name, value in wanted.items() if found[name] != value]


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    quiet_libraries()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds, wanted = undisturbed(folder)
        print(f"undisturbed: {seconds:.1f} s, {len(wanted['metrics'])} lines of metrics", flush=True)
        kills, cases, faults = 0, 0, []
        while kills < arguments.kills:
            output = folder / f"case-{cases}"
            run = run_folder(settings(folder, output))
            moments = [draw.uniform(0, seconds)] + [draw.uniform(0, seconds)] * (draw.random() < SECOND_KILL)
            found = []
            for moment in moments:
                ended = in_child(lambda output=output: whole_run(folder, output), moment)  # type: ignore[misc]
                if ended == "well":
                    break
                if ended == "failed":  # by itself: what an earlier kill left has to be enough to go on with
                    found.append("failed before it was killed")
                kills += ended == "killed"
                found += damaged(run)
            if in_child(lambda output=output: whole_run(folder, output)) != "well":  # type: ignore[misc]
                found.append("did not go on")
            else:
                found += differences(wanted, run)
            left = [path.name for path in output.rglob("*.part")]
            print(
                f"case {cases}: killed after {[round(m, 1) for m in moments]} s: {found or 'equal'}, left over {len(left)}",
                flush=True,
            )
            if found:
                faults.append({"case": cases, "moments": moments, "found": found})
                shutil.copytree(output, Path(tempfile.gettempdir()) / f"kills-case-{cases}", dirs_exist_ok=True)
            shutil.rmtree(output)
            cases += 1
    outcome = {
        "environment": environment(),
        "kills": kills,
        "cases": cases,
        "seconds_of_a_run": seconds,
        "faults": faults,
    }
    write_atomically(arguments.results, json.dumps(outcome, indent=2) + "\n")
    print(f"{kills} kills in {cases} cases, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
