"""Sabotaged runs: what the health checks see, what they call it, and what becomes of the student.

    python benchmarks/sabotage.py                              # all, 20 to 40 minutes; writes results/sabotage.json
    python benchmarks/sabotage.py --cases poisoned_batches labels_shifted

Preset `quick` with the reference teacher on the built-in corpus, without the report card. Every case breaks one thing, in
the settings, in the data, or in the middle of training, and says which diagnosis is right and whether the run can be saved.
A run that can be saved has to reach 95 % of the clean run's validation BLEU; one that cannot has to be stopped or refused.
Results are written after every case, and cases that are there already are not run again (`--again` does).
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import torch
from rich.console import Console
from torch import Tensor
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.batches import PackedBatch
from mtdistill.display import Display
from mtdistill.distillation import student_run, targets
from mtdistill.distillation.budget import training_rows
from mtdistill.distillation.materials import Materials, prepare_materials
from mtdistill.distillation.run_folder import RunFolder, environment
from mtdistill.distillation.student_run import train_student
from mtdistill.errors import MtdistillError
from mtdistill.files import write_atomically
from mtdistill.health.finding import Finding
from mtdistill.health.journal import HEALTH_FILE, read_findings
from mtdistill.presets import load_preset
from mtdistill.teacher.loading import load_teacher
from mtdistill.training.trainer import TranslationTrainer

RESULTS = Path(__file__).parent / "results" / "sabotage.json"
ENOUGH = 0.95
Sabotage = Callable[[], Any]  # to a context manager


@dataclass(frozen=True)
class Case:
    """One way to break a run.

    Attributes:
        name: of the case.
        right: checks whose alarm counts as the right diagnosis; an error class for what settings refuse.
        saved: whether the run can be saved.
        overrides: settings that do it.
        sabotage: code that does it, while the context lasts.
    """

    name: str
    right: tuple[str, ...]
    saved: bool
    overrides: tuple[str, ...] = ()
    sabotage: Sabotage = ExitStack


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        findings: checks that raised an alarm, in order, each once.
        detected_at: update of the first right alarm; None: no right alarm.
        broken_at: update at which the fault set in.
        ended: "finished", "stopped" or "refused", with the message.
        bleu: validation BLEU of the best student; None without one.
    """

    findings: list[str]
    detected_at: int | None
    broken_at: int
    ended: str
    message: str
    bleu: float | None
    seconds: float


class _At(TrainerCallback):  # type: ignore[misc]
    """Does something once, after an update."""

    def __init__(self, update: int, act: Callable[[Any, Any], None]) -> None:
        self._update, self._act, self._done = update, act, False

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        if state.global_step >= self._update and not self._done:
            self._done = True
            self._act(model, optimizer)


BREAK_AT = 120


@contextmanager
def during_training(act: Callable[[Any, Any], None]) -> Iterator[None]:
    """Break model or optimizer after update `BREAK_AT`."""
    train = TranslationTrainer.train

    def broken(self: TranslationTrainer, resume_from_checkpoint: str | None = None) -> Any:
        self.add_callback(_At(BREAK_AT, act))
        return train(self, resume_from_checkpoint)

    with mock.patch.object(TranslationTrainer, "train", broken):
        yield


@contextmanager
def broken_rows(change: Callable[[datasets.Dataset], datasets.Dataset]) -> Iterator[None]:
    """Change the tokenised training pairs."""
    name = "mtdistill.distillation.student_run.training_rows"
    with mock.patch(name, lambda data, training: change(training_rows(data, training))):
        yield


def _replaced(rows: datasets.Dataset, name: str, values: list[Any]) -> datasets.Dataset:
    features = rows.features
    changed = rows.remove_columns([name]).add_column(name, values).cast(features)  # a select() is made real by this
    return changed.select_columns(list(features))


def shuffled(rows: datasets.Dataset) -> datasets.Dataset:
    """Every source with the target of another one."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    moved = rows.select(order)
    for name in ("target_ids", "target_tokens"):
        rows = _replaced(rows, name, list(moved[name]))
    return rows


def swapped(rows: datasets.Dataset) -> datasets.Dataset:
    """Source and target exchanged."""
    names = {"source_ids": "target_ids", "source_tokens": "target_tokens"}
    return rows.rename_columns({**names, **{there: here for here, there in names.items()}})


def padded(rows: datasets.Dataset) -> datasets.Dataset:
    """A tenth of the targets is nothing but padding."""
    targets = [[0] * len(ids) if row % 10 == 0 else ids for row, ids in enumerate(rows["target_ids"])]
    return _replaced(rows, "target_ids", targets)


@contextmanager
def shifted_labels() -> Iterator[None]:
    """The decoder reads the label it is to predict one place too late."""
    shift = PackedBatch.decoder_input_ids

    def twice(self: PackedBatch, start_id: int) -> Tensor:
        once = shift(self, start_id).roll(1)
        once[self.target_starts[:-1]] = start_id
        return once

    with mock.patch.object(PackedBatch, "decoder_input_ids", twice):
        yield


@contextmanager
def poisoned_states() -> Iterator[None]:
    """Batches with one of a few pairs, about one in thirty, get teacher states that are infinite."""
    chosen = targets.choose_targets

    class Poisoned:
        def __init__(self, clean: Any) -> None:
            self._clean, self.head = clean, clean.head

        def states(self, batch: PackedBatch) -> Tensor:
            states: Tensor = self._clean.states(batch)
            return states * math.inf if bool(((batch.rows >= 1000) & (batch.rows < 1003)).any()) else states

    with mock.patch.object(student_run, "choose_targets", lambda *a, **k: Poisoned(chosen(*a, **k))):
        yield


@contextmanager
def corrupted_cache() -> Iterator[None]:
    """A file of stored teacher states has changed on disk since it was written."""
    stored = targets.stored_targets

    def corrupt(config: RunConfig, *rest: Any) -> Any:
        stored(config, *rest)
        shard = next(targets.cache_root(config).glob("*/states-00000.npy"))
        content = bytearray(shard.read_bytes())
        content[2048:4096] = b"\xff" * 2048  # not a number, in float16
        shard.write_bytes(bytes(content))
        return stored(config, *rest)

    with mock.patch.object(targets, "stored_targets", corrupt):
        yield


@contextmanager
def destroyed_teacher() -> Iterator[None]:
    """Half of the teacher's decoder is noise."""

    def broken(path: str) -> Any:
        teacher = load_teacher(path)
        for block in teacher.model.decoder.block[::2]:
            for weight in block.parameters():
                torch.nn.init.normal_(weight, std=0.5)
        return teacher

    with mock.patch("mtdistill.distillation.materials.load_teacher", broken):
        yield


@contextmanager
def scarce_memory() -> Iterator[None]:
    """Batches beyond 300 tokens do not fit."""
    compute = TranslationTrainer.batch_gradients

    def limited(self: TranslationTrainer, batch: PackedBatch) -> Any:
        if self.engine.largest_part(batch) > 300:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return compute(self, batch)

    with (
        mock.patch.object(TranslationTrainer, "use_fastest", lambda self, engines: self.engine),
        mock.patch.object(TranslationTrainer, "batch_gradients", limited),
    ):
        yield


def _fill(value: float) -> Callable[[Any, Any], None]:
    def act(_model: T5ForConditionalGeneration, optimizer: Any) -> None:
        inner = getattr(optimizer, "optimizer", optimizer)
        for part in getattr(inner, "_parts", {"": inner}).values():
            for state in part.state.values():
                for name, moment in state.items():
                    if isinstance(moment, Tensor) and moment.dim():
                        moment.fill_(value if name != "exp_avg_sq" else abs(value))

    return act


@torch.no_grad()
def _noise(model: T5ForConditionalGeneration, _optimizer: Any) -> None:
    for weight in model.decoder.parameters():
        weight.add_(torch.randn_like(weight) * weight.std().nan_to_num() * 3)


CASES = (
    Case("clean", (), saved=True),
    Case(
        "learning_rate_x30",
        ("loss_diverging", "initialisation_destroyed"),
        saved=True,
        overrides=("training.learning_rate=0.06",),
    ),
    Case("poisoned_batches", ("non_finite_loss",), saved=True, sabotage=poisoned_states),
    Case("labels_shifted", ("misaligned_labels",), saved=False, sabotage=shifted_labels),
    Case("shuffled_pairs", ("shuffled_pairs",), saved=False, sabotage=lambda: broken_rows(shuffled)),
    Case("swapped_languages", ("swapped_languages",), saved=False, sabotage=lambda: broken_rows(swapped)),
    Case("destroyed_teacher", ("TeacherError",), saved=False, sabotage=destroyed_teacher),
    Case("all_pad_batches", ("padding_in_data",), saved=False, sabotage=lambda: broken_rows(padded)),
    Case("corrupted_cache", ("damaged_cache",), saved=True, sabotage=corrupted_cache),
    Case("temperature_0.01", ("hard_targets",), saved=True, overrides=("kd.temperature=0.01",)),
    Case("no_objective", ("ConfigError",), saved=False, overrides=("kd.alpha=0", "kd.beta=0")),
    Case(
        "one_sentence", ("duplicate_data",), saved=False, sabotage=lambda: broken_rows(lambda r: r.select([7] * len(r)))
    ),
    Case(
        "duplicates",
        ("duplicate_data",),
        saved=False,
        sabotage=lambda: broken_rows(lambda r: r.select([row % 50 for row in range(len(r))])),
    ),
    Case("optimizer_not_a_number", ("non_finite_loss",), saved=True, sabotage=lambda: during_training(_fill(math.nan))),
    Case("optimizer_huge", ("dead_updates", "loss_diverging"), saved=True,
         sabotage=lambda: during_training(_fill(1e3))),
    Case("weights_destroyed", ("loss_diverging", "gradient_explosion"), saved=True,
         sabotage=lambda: during_training(_noise)),
    Case("learning_rate_tiny", ("dead_updates",), saved=False, overrides=("training.learning_rate=1e-12",)),
    Case("scarce_memory", ("out_of_memory",), saved=True, sabotage=scarce_memory),
)  # fmt: skip


def run_case(case: Case, base: RunConfig, materials: Materials, display: Display) -> Outcome:
    """Train with one fault; everything is written to a temporary folder."""
    started = time.monotonic()
    ended, message, bleu = "finished", "", None
    with tempfile.TemporaryDirectory() as scratch:
        run = RunFolder(Path(scratch) / "run")
        try:
            config = apply_overrides(base, [*case.overrides, f"output={scratch}"])
            with case.sabotage():
                own = prepare_materials(base, display) if case.name == "destroyed_teacher" else materials
                trained = train_student(config, own, run, display)
            bleu = trained.scores["bleu"]
            if trained.stopped:
                ended, message = "stopped", trained.stopped
        except MtdistillError as error:
            ended, message = "refused", str(error)
            found_by_name = [Finding(type(error).__name__, "failure")]
        else:
            found_by_name = []
        findings = [*read_findings(run.path / HEALTH_FILE), *found_by_name]
    detected = [finding.update for finding in findings if finding.check in case.right]
    return Outcome(
        findings=list(dict.fromkeys(f"{finding.check}: {finding.action}" for finding in findings)),
        detected_at=min(detected, default=None),
        broken_at=BREAK_AT if case.name.startswith(("optimizer", "weights")) else 0,
        ended=ended,
        message=message,
        bleu=bleu,
        seconds=round(time.monotonic() - started, 1),
    )


def judged(case: Case, outcome: Outcome, clean: float) -> dict[str, Any]:
    """The outcome with what is asked of it."""
    share = (outcome.bleu or 0.0) / clean
    diagnosed = outcome.detected_at is not None or not case.right
    ended_well = share >= ENOUGH and outcome.ended == "finished" if case.saved else outcome.ended != "finished"
    silent = bool(case.right) or not outcome.findings
    return {
        **asdict(outcome),
        "share_of_clean": round(share, 3),
        "diagnosed": diagnosed and silent,
        "ended_well": ended_well,
    }


def main() -> None:
    """Run the cases and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--output", default="train_process", help="holds the prepared data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    quiet_libraries()
    display = Display(Console(soft_wrap=True))
    base = apply_overrides(load_preset("quick").config, [f"output={arguments.output}", "teacher.pseudo_targets=0"])
    materials = prepare_materials(base, display)
    stored = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.is_file() else {}
    cases: dict[str, Any] = stored.get("cases", {})
    for case in CASES:
        wanted = case.name in (arguments.cases or [case.name])
        if (not wanted or (case.name in cases and not arguments.again)) and not (case.name == "clean" and not cases):
            continue
        outcome = run_case(case, base, materials, display)
        clean = cases["clean"]["bleu"] if case.name != "clean" else outcome.bleu
        cases[case.name] = judged(case, outcome, clean or math.nan)
        write_atomically(
            arguments.results,
            json.dumps({"environment": environment(), "cases": cases}, ensure_ascii=False, indent=2) + "\n",
        )
        print(case.name, json.dumps(cases[case.name], ensure_ascii=False), flush=True)
    good = sum(case["diagnosed"] and case["ended_well"] for case in cases.values())
    print(f"{good} of {len(cases)} as they should be")


if __name__ == "__main__":
    main()
