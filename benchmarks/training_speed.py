"""Training speed, side by side: the usual ways to distil on a CPU against mtdistill, same machine, data and student.

    python benchmarks/training_speed.py --results benchmarks/results     # about ten minutes; training_speed.json and .png
    python benchmarks/training_speed.py --rounds 1 --updates 2 --no-scaling

Four ways train the same student (preset `balanced`) on batches of the same size from the same sentences:

* guide: the teacher runs in every step, float32, every sentence padded to the preset's maximum length, one
  micro-batch per accumulation step, transformers' own modules and plain losses;
* hugging_face: Seq2SeqTrainer with dynamic padding and a live teacher in `compute_loss`, as its documentation shows;
* mtdistill_live and mtdistill_cached: the package's own trainer, the teacher in every step or from the cache; in bfloat16 where
  that is faster, as it trains by itself. The two others compute in float32, as they do by themselves.

They take turns, round by round, after a warm-up; a figure is the median over rounds of target tokens per second, padding
not counted. The scaling table runs each case in a process of its own, so that peak memory is its own.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import matplotlib
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5ForConditionalGeneration,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.batches import PackedBatch
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows
from mtdistill.distillation.construction import plan_student, rehearsal_student
from mtdistill.distillation.forecast import peak_memory_gib
from mtdistill.distillation.losses import kd_loss
from mtdistill.distillation.materials import Materials, prepare_materials
from mtdistill.distillation.pieces import pieces_by_turns
from mtdistill.distillation.run_folder import environment
from mtdistill.distillation.targets import stored_targets
from mtdistill.distillation.trainer import rehearsal_trainer
from mtdistill.modeling import t5_config
from mtdistill.presets import load_preset
from mtdistill.teacher.targets import LiveTargets, TargetSource
from mtdistill.training.engine import engines, prepare_processor
from mtdistill.training.rehearsal import rehearse, update

# Ours prepares code for every shape of a matrix product that it meets; a run of 40,000 updates has met them all early.
WARM_UP_UPDATES = 300
Way = Callable[[int], tuple[float, int]]  # a number of updates to seconds and target tokens


def guide(config: RunConfig, materials: Materials, rows: datasets.Dataset) -> Way:
    """The loop that tutorials show."""
    student, teacher = rehearsal_student(config, materials.teacher).train(), materials.teacher.model.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.training.learning_rate)
    training, kd, limit = config.training, config.kd, config.training.max_sequence_length
    order = iter(torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist())

    def padded(ids: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([row[:limit] + [filler] * (limit - len(row)) for row in ids])

    def run(updates: int) -> tuple[float, int]:
        started, tokens = time.perf_counter(), 0
        for _ in range(updates):
            for _ in range(training.gradient_accumulation):
                batch = rows[[next(order) for _ in range(training.batch_size)]]
                input_ids, labels = padded(batch["source_ids"], 0), padded(batch["target_ids"], -100)
                inputs = {"input_ids": input_ids, "attention_mask": input_ids != 0, "labels": labels}
                with torch.no_grad():
                    teacher_logits = teacher(**inputs).logits
                loss = kd_loss(
                    student(**inputs).logits, teacher_logits, labels, temperature=kd.temperature, alpha=kd.alpha,
                    beta=kd.beta, label_smoothing=kd.label_smoothing,
                )  # fmt: skip
                (loss.total / training.gradient_accumulation).backward()
                tokens += int((labels != -100).sum())
            torch.nn.utils.clip_grad_norm_(student.parameters(), training.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - started, tokens

    return run


def hugging_face(config: RunConfig, materials: Materials, rows: datasets.Dataset) -> Way:
    """Seq2SeqTrainer with a live teacher."""
    student, teacher = rehearsal_student(config, materials.teacher).train(), materials.teacher.model.eval()
    training, kd, limit, tokens = config.training, config.kd, config.training.max_sequence_length, 0

    class KdTrainer(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            nonlocal tokens
            outputs = model(**inputs)
            with torch.no_grad():
                teacher_logits = teacher(**inputs).logits
            kept = inputs["labels"] != -100
            tokens += int(kept.sum())
            divergence = functional.kl_div(
                (outputs.logits[kept] / kd.temperature).log_softmax(-1),
                (teacher_logits[kept] / kd.temperature).softmax(-1),
                reduction="batchmean",
            )
            return kd.alpha * kd.temperature**2 * divergence + kd.beta * outputs.loss

    class Clock(TrainerCallback):  # type: ignore[misc]
        started = ended = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = self.started or time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.ended = time.perf_counter()

    def collate(examples: list[dict[str, Any]]) -> Any:
        batch = DataCollatorForSeq2Seq(materials.teacher.tokenizer, model=student)(examples)
        batch.pop("token_type_ids", None)
        return batch

    examples = rows.map(
        lambda row: {
            "input_ids": row["source_ids"][:limit],
            "attention_mask": [1] * min(limit, len(row["source_ids"])),
            "labels": row["target_ids"][:limit],
        },
        remove_columns=rows.column_names,
    )

    def run(updates: int) -> tuple[float, int]:
        nonlocal tokens
        clock = Clock()
        with tempfile.TemporaryDirectory() as scratch:
            trainer = KdTrainer(
                model=student,
                args=Seq2SeqTrainingArguments(
                    scratch, max_steps=updates, per_device_train_batch_size=training.batch_size,
                    gradient_accumulation_steps=training.gradient_accumulation, learning_rate=training.learning_rate,
                    max_grad_norm=training.max_gradient_norm, use_cpu=True, disable_tqdm=True, save_strategy="no",
                    logging_strategy="no", dataloader_pin_memory=False, report_to=[],
                ),
                train_dataset=examples,
                data_collator=collate,
                callbacks=[clock],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            tokens = 0
            trainer.train()
        return clock.ended - clock.started, tokens

    return run


def mtdistill(config: RunConfig, materials: Materials, rows: datasets.Dataset, targets: TargetSource) -> Way:
    """The package's own steps, as `mtdistill distill` does them."""
    model = rehearsal_student(config, materials.teacher).train()
    candidates = engines(config.training.precision, materials.threads)
    pieces = pieces_by_turns(materials.teacher, materials.data, rows, config.kd.other_pieces_every)
    trainer = rehearsal_trainer(config, model, targets, rows, Path(tempfile.mkdtemp()), candidates[0], pieces)
    trainer.use_fastest(candidates)
    loader = itertools.chain.from_iterable(itertools.repeat(trainer.get_train_dataloader()))

    def run(updates: int) -> tuple[float, int]:
        with trainer.engine_threads():
            started, tokens = time.perf_counter(), 0
            for _ in range(updates):
                inputs = next(loader)
                update(trainer, [inputs])
                tokens += len(PackedBatch(**inputs).labels)
            return time.perf_counter() - started, tokens

    run(WARM_UP_UPDATES)
    return run


def compare(rounds: int, updates: int, output: str) -> dict[str, Any]:
    """Tokens per second of every way, by turns."""
    config = apply_overrides(load_preset("balanced").config, [f"output={output}"])
    display = Display()
    materials = prepare_materials(config, display)
    rows = training_rows(materials.data, config.training)
    engine = engines(config.training.precision, materials.threads)[0]
    cached = stored_targets(config, materials.teacher.model, rows, engine, display)
    ways: dict[str, Way] = {
        "guide": guide(config, materials, rows),
        "hugging_face": hugging_face(config, materials, rows),
        "mtdistill_live": mtdistill(config, materials, rows, LiveTargets(materials.teacher.model, engine)),
        "mtdistill_cached": mtdistill(config, materials, rows, cached),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, run in ways.items():
            # Our steps are short: more of them, so that every turn lasts about as long.
            seconds, tokens = run(updates * (8 if name.startswith("mtdistill") else 1))
            if number >= 0:
                speeds[name].append(tokens / seconds)
                print(f"round {number + 1} {name}: {tokens / seconds:,.0f} target tokens/s", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "tokens_per_second": {
            name: {"median": medians[name], "low": min(values), "high": max(values)} for name, values in speeds.items()
        },
        "ratio_to_guide": medians["mtdistill_cached"] / medians["guide"],
        "ratio_to_hugging_face": medians["mtdistill_cached"] / medians["hugging_face"],
        # The machine's speed drifts: turns that follow each other have more in common than their medians.
        "ratio_to_guide_by_rounds": ratio_by_rounds(speeds["mtdistill_cached"], speeds["guide"]),
        "ratio_to_hugging_face_by_rounds": ratio_by_rounds(speeds["mtdistill_cached"], speeds["hugging_face"]),
        "rounds": rounds,
        "updates_per_round": updates,
        "student": str(plan_student(config, materials.teacher)),
    }


def ratio_by_rounds(speeds: list[float], others: list[float]) -> dict[str, float]:
    """Of one way to another, round by round: median and range."""
    ratios = [one / other for one, other in zip(speeds, others, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


SCALING = {
    "data 1x": {}, "data 10x": {"repeat": 10},
    "vocabulary 4000": {"vocabulary": 4000}, "vocabulary 8000": {"vocabulary": 8000},
    "vocabulary 32000": {"vocabulary": 32000},
    "width 64": {"width": 64}, "width 128": {"width": 128}, "width 256": {"width": 256},
}  # fmt: skip


def scaling_case(name: str, updates: int, output: str) -> dict[str, float]:
    """One row of the scaling table: a random student and stored states of a random teacher."""
    repeat, vocabulary, width = (SCALING[name].get(key, value) for key, value in
                                 (("repeat", 1), ("vocabulary", 6000), ("width", 128)))  # fmt: skip
    config = apply_overrides(load_preset("balanced").config, [f"output={output}"])
    materials = prepare_materials(config, Display())
    rows = datasets.concatenate_datasets([training_rows(materials.data, config.training)] * repeat)
    student = T5ForConditionalGeneration(
        t5_config(vocabulary, encoder_layers=6, decoder_layers=2, width=width, dropout=0.0)
    )
    if vocabulary < 6000:
        rows = rows.map(
            lambda batch: {
                key: [[token % vocabulary for token in ids] for ids in batch[key]]
                for key in ("source_ids", "target_ids")
            },
            batched=True,
        )
    head = torch.randn(vocabulary, 256).to(engines(config.training.precision, materials.threads)[0].dtype)

    class Stored:
        def __init__(self) -> None:
            self.head = head

        def states(self, batch: PackedBatch) -> Tensor:
            return head.new_zeros(len(batch.labels), 256)

    candidates = engines(config.training.precision, materials.threads)
    trainer = rehearsal_trainer(config, student, Stored(), rows, Path(tempfile.mkdtemp()), candidates[0])
    rehearsed = rehearse(trainer, updates)
    tokens = sum(len(batch.labels) for batch in rehearsed.batches)
    return {"tokens_per_second": tokens / rehearsed.seconds, "ms_per_update": rehearsed.seconds / updates * 1e3,
            "peak_memory_gib": peak_memory_gib()}  # fmt: skip


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars of the four ways."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = result["comparison"]["tokens_per_second"]
    names = list(figures)
    medians = [figures[name]["median"] for name in names]
    spread = [[m - figures[n]["low"] for n, m in zip(names, medians, strict=True)],
              [figures[n]["high"] - m for n, m in zip(names, medians, strict=True)]]  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    bars = axes.barh(names, medians, xerr=spread, color=["#999999", "#999999", "#4c78a8", "#2a9d4e"])
    axes.bar_label(bars, [f" {m:,.0f}  ({m / medians[0]:.1f}x)" for m in medians], padding=12)
    axes.invert_yaxis()
    axes.set_xlim(0, max(medians) * 1.35)
    axes.set_xlabel("target tokens per second, preset balanced, padding not counted (median, range)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run everything, or with --case one row of the scaling table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--updates", type=int, default=4, help="updates of a slow way in a round; fast ones do 8 times as many"
    )
    parser.add_argument("--output", default="train_process", help="holds the prepared data and the cache")
    parser.add_argument("--results", type=Path, help="folder for the figures and their plot")
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--case", choices=SCALING)
    options = parser.parse_args()
    quiet_libraries()
    prepare_processor(torch.get_num_threads())
    if options.case:
        print(json.dumps(scaling_case(options.case, 40, options.output)))
        return
    result: dict[str, Any] = {"date": date.today().isoformat(), "environment": environment(),
                              "comparison": compare(options.rounds, options.updates, options.output)}  # fmt: skip
    if not options.no_scaling:
        result["scaling"] = {}
        for name in SCALING:
            command = [sys.executable, __file__, "--case", name, "--output", options.output]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result["scaling"][name] = json.loads(printed.splitlines()[-1])
            print(name, result["scaling"][name], flush=True)
    if options.results:
        options.results.mkdir(exist_ok=True)
        (options.results / "training_speed.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        plot(result, options.results / "training_speed.png")


if __name__ == "__main__":
    main()
