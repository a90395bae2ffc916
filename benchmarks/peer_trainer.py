"""Training speed beside a maintained peer, eole (successor of OpenNMT-py): same data, same shape, same machine, two threads.

    python -m venv VENV
    VENV/bin/pip install torch==2.13.0 eole==0.6.4 aiohttp    # eole imports aiohttp without asking for it
    python benchmarks/peer_trainer.py --eole VENV/bin/eole --data FOLDER
    python benchmarks/peer_trainer.py --eole VENV/bin/eole --data FOLDER --updates 20 --rounds 1    # does it work?

Takes about 25 minutes in which nothing else should run; `--results benchmarks/results` keeps the figures. FOLDER is prepared
data with the reference teacher's vocabulary, for example train_process/data/<identity>; the teacher's states are stored in the
cache beside it, where a run stores them too.

eole trains from scratch, without a teacher: it has no distillation. mtdistill trains a student of preset `balanced` with
stored states, so every update of it also reads the teacher's states and computes the divergence. Both look at the whole
vocabulary in every update, which a run of mtdistill does not (`kd.other_pieces_every`).
Both are timed in their own training loops, from update 300 on, for the same number of updates of 64 sentences; by then
neither meets new shapes of matrix products very often. A figure is the median over rounds of target tokens per second,
end marks counted, padding not.

What is equal: vocabulary, width, layers, heads, feed-forward width, one embedding table for both sides and the output
(`student.tie_inputs`, which the preset does not do), no biases in matrix products, ReLU, pre-norm, the cut at 24 tokens, label
smoothing, AdamW, largest gradient norm, no dropout. Also the width of a head, 32, twice what eole takes without `head_dim`: so
both have the same number of parameters but for norms and positions. What differs: eole has LayerNorm where T5 has RMSNorm, and
positions are its default, sinusoids added to the embeddings. Its documentation says nothing about their speed, but an addition
is the least that positions can cost; relative positions as in T5 would be one more operation in every layer.

eole gets what is best for it. Its documentation knows three ways to compute: float32, bfloat16 in mixed precision, and pure
bfloat16; the last one also through torch.compile, although eole 0.6.4 then fails when it saves a model with one embedding
table. All of them take part, and ours is compared with the one that has the highest median. No validation and no checkpoint
within the measured time, no statistics of attention, no filters or tokenizer, and a bucket as large as the data, so that
sentences of a batch are of nearly the same length (3 % of the target tokens are padding). Reading the bucket, about 2 s in
every epoch, is not in its figure. It builds its batches in the training process: that takes about 1 ms each, and worker
processes would want a share of the two cores. Two threads through OMP_NUM_THREADS; oneDNN keeps as many prepared products as
in our process.

They take turns, in an order that is turned around from round to round. eole starts a process in every round and ours builds a
new trainer, so both begin from nothing. Tokens per second of eole are those that it reports itself (it counts no padding
either), but by the clock of this script, between the line of update 300 and the last one.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from transformers import TrainerCallback

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import RunConfig, apply_overrides
from mtdistill.data.batches import PackedRows
from mtdistill.data.prepared import PreparedData
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.construction import rehearsal_student
from mtdistill.distillation.run_folder import environment
from mtdistill.distillation.targets import stored_targets
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.health.journal import Journal
from mtdistill.health.monitor import Monitor
from mtdistill.presets import load_preset
from mtdistill.teacher.loading import Teacher, load_teacher
from mtdistill.teacher.targets import TargetSource
from mtdistill.training.engine import engines, prepare_processor

OURS = "mtdistill"
THREADS = 2
WARM_UP_UPDATES = 300
REPORT_EVERY = 20  # updates between two lines of eole's
REPORT = re.compile(r"Step\s+(\d+)/.*bsz:\s*\d+/\s*(\d+)/")  # the update, and target tokens in each since the last line
PARAMETERS = re.compile(r"number of parameters: (\d+)")
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"compute_dtype": "fp32"},
    "mixed-bfloat16": {"compute_dtype": "bf16"},
    "pure-bfloat16": {"compute_dtype": "bf16", "use_amp": False},
    "compiled-bfloat16": {"compute_dtype": "bf16", "use_amp": False, "torch_compile": True},
}


@dataclass(frozen=True)
class Turn:
    """What was timed: target tokens without padding, and seconds."""

    tokens: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Eole:
    """The eole executable, and the data and settings that make it train the student's shape.

    Pieces are written as words (`t17`), in the order of their ids, so that eole reads exactly the tokens that we read.
    """

    def __init__(self, program: Path, data: PreparedData, rows: datasets.Dataset, config: RunConfig, shape: Any,
                 folder: Path) -> None:  # fmt: skip
        self.program, self.folder, self.parameters = program, folder, 0
        tokenizer = data.tokenizer
        special = {tokenizer.pad_token_id: "<blank>", tokenizer.eos_token_id: "</s>", tokenizer.unk_token_id: "<unk>"}
        self.words = [special.get(piece, f"t{piece}") for piece in range(shape.vocab_size)]
        (folder / "vocabulary").write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")
        batch = PackedRows(rows, config.training.max_sequence_length).batch(list(range(len(rows))))
        self._write("source", batch.source_ids.split(batch.source_starts.diff().tolist()))
        # eole adds an end mark: it takes the place of ours, or of the last word of a sentence that was cut.
        self._write("target", [ids[:-1] for ids in batch.labels.split(batch.target_starts.diff().tolist())])
        self.model = self._model(shape)
        self.training = self._training(config, len(rows))

    @property
    def versions(self) -> dict[str, str]:
        """Of eole and of its torch."""
        code = "from importlib.metadata import version; print(version('eole'), version('torch'))"
        python = self.program.with_name("python")
        printed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
        return dict(zip(("eole", "torch of eole"), printed.split(), strict=True))

    def run(self, way: str, updates: int) -> Turn | None:
        """A training of its own; only the updates after the warm-up count. None where it did not reach the last one."""
        variables = {
            "OMP_NUM_THREADS": str(THREADS),
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled"),
        }
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            settings = Path(scratch) / "settings.yaml"
            settings.write_text(json.dumps(self._settings(way, updates, scratch)), encoding="utf-8")
            with subprocess.Popen(
                [self.program, "train", "--config", settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | variables,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                lines = [(time.perf_counter(), line) for line in process.stdout]  # the moment at which each came
        printed = "".join(line for _, line in lines)
        if found := PARAMETERS.search(printed):
            self.parameters = int(found[1])
        turn = timed(lines, WARM_UP_UPDATES + updates)
        if turn is None:
            print(f"eole {way}: ended with {process.returncode} before the last update:\n{printed[-3000:]}", flush=True)
        return turn

    def _write(self, name: str, sentences: Sequence[Any]) -> None:
        words = self.words
        text = "".join(" ".join(words[piece] for piece in ids.tolist()) + "\n" for ids in sentences)
        (self.folder / name).write_text(text, encoding="utf-8")

    def _settings(self, way: str, updates: int, scratch: str) -> dict[str, Any]:
        """The file that eole reads; JSON is YAML too."""
        train = {"path_src": str(self.folder / "source"), "path_tgt": str(self.folder / "target"), "transforms": []}
        return {
            "src_vocab": str(self.folder / "vocabulary"), "share_vocab": True, "vocab_size_multiple": 1,
            # Without a start mark of its own the vocabulary keeps its size; eole's documentation knows this way too.
            "bos_token": "</s>", "decoder_start_token": "</s>",
            "seed": 1, "report_every": REPORT_EVERY, "data": {"train": train | {"weight": 1}}, "model": self.model,
            "training": self.training | WAYS[way] | {
                "train_steps": WARM_UP_UPDATES + updates, "model_path": str(Path(scratch) / "model"),
            },
        }  # fmt: skip

    @staticmethod
    def _model(shape: Any) -> dict[str, Any]:
        return {
            "architecture": "transformer", "hidden_size": shape.d_model, "heads": shape.num_heads, "head_dim": shape.d_kv,
            "transformer_ff": shape.d_ff, "mlp_activation_fn": "relu",
            "encoder": {"layers": shape.num_layers}, "decoder": {"layers": shape.num_decoder_layers},
            "share_embeddings": True, "share_decoder_embeddings": True, "generator_bias": False,
            "embeddings": {
                "word_vec_size": shape.d_model, "position_encoding": True,
                "position_encoding_type": "SinusoidalInterleaved",
            },
        }  # fmt: skip

    @staticmethod
    def _training(config: RunConfig, sentences: int) -> dict[str, Any]:
        training = config.training
        return {
            "gpu_ranks": [], "num_workers": 0, "bucket_size": sentences,
            "batch_type": "sents", "batch_size": training.batch_size * training.gradient_accumulation,
            "optim": "adamw", "learning_rate": training.learning_rate, "weight_decay": training.weight_decay,
            "max_grad_norm": training.max_gradient_norm, "label_smoothing": config.kd.label_smoothing,
            "dropout": [training.dropout], "attention_dropout": [training.dropout],
            "param_init_method": "xavier_uniform", "log_attention_entropy": False,
            "valid_steps": 10**9, "save_checkpoint_steps": 0,
        }  # fmt: skip


def timed(lines: Sequence[tuple[float, str]], last: int) -> Turn | None:
    """What eole did between its report at the end of the warm-up and that of the last update; None without these.

    A report has the mean of tokens per update as a whole number: at most 0.1 % away, and not always to the same side.
    """
    found = [(moment, match) for moment, line in lines if (match := REPORT.search(line))]
    reports = {int(match[1]): (moment, int(match[2]) * REPORT_EVERY) for moment, match in found}
    if not {WARM_UP_UPDATES, last} <= reports.keys():
        return None
    tokens = sum(tokens for update, (_, tokens) in reports.items() if update > WARM_UP_UPDATES)
    return Turn(tokens, reports[last][0] - reports[WARM_UP_UPDATES][0])


class Clock(TrainerCallback):  # type: ignore[misc]
    """Times the updates after the warm-up, and ends the training."""

    def __init__(self, updates: int) -> None:
        self.last, self.started, self.ended = WARM_UP_UPDATES + updates, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM_UP_UPDATES:
            self.started = time.perf_counter()
        elif state.global_step == self.last:
            self.ended = time.perf_counter()
            control.should_training_stop = True


def mtdistill(config: RunConfig, teacher: Teacher, rows: datasets.Dataset, targets: TargetSource, updates: int) -> Turn:
    """The first updates of a run as `mtdistill distill` does them, its watch included, over the whole vocabulary."""
    schedule, clock = training_schedule(config.training), Clock(updates)
    candidates = engines(config.training.precision, THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = DistillationTrainer(
            rehearsal_student(config, teacher), targets, config.kd, rows, schedule, Path(scratch), lambda _: {},
            callbacks=[clock], engine=candidates[0],
            monitor=Monitor(Journal(None), schedule.updates(len(rows)), schedule.max_gradient_norm),
        )  # fmt: skip
        trainer.use_fastest(candidates)
        batches = itertools.islice(trainer.get_train_dataloader(), WARM_UP_UPDATES, clock.last)
        tokens = sum(len(batch["labels"]) for batch in batches)
        trainer.train()
    return Turn(tokens, clock.ended - clock.started)


def race(racers: dict[str, Callable[[], Turn | None]], rounds: int) -> dict[str, list[Turn]]:
    """Let all take turns; who cannot end them has none."""
    turns: dict[str, list[Turn]] = {name: [] for name in racers}
    for number in range(rounds):
        for name in racers if number % 2 else reversed(racers):
            if turn := racers[name]():
                turns[name].append(turn)
                print(f"round {number + 1} of {rounds}, {name}: {turn.rate:,.0f} target tokens/s", flush=True)
    return {name: each for name, each in turns.items() if len(each) == rounds}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def compare(program: Path, folder: Path, ways: Sequence[str], updates: int, rounds: int) -> dict[str, Any]:
    """Everything that goes into the file."""
    config = apply_overrides(
        load_preset("balanced").config, [f"output={folder.parent.parent}", "student.tie_inputs=true"]
    )
    load, teacher, data = os.getloadavg()[0], load_teacher("reference"), PreparedData(folder)
    if load > 0.5:
        print(
            f"load {load:.1f}: other programs are at work, and both trainers will look slower than they are", flush=True
        )
    rows, student = training_rows(data, config.training), rehearsal_student(config, teacher)
    whole = len(rows) // (config.training.batch_size * config.training.gradient_accumulation) - WARM_UP_UPDATES
    if updates > whole:
        raise SystemExit(f"--updates: got {updates}, accepted at most {whole}, the rest of an epoch after the warm-up")
    engine = engines(config.training.precision, THREADS)[0]
    targets = stored_targets(config, teacher.model, rows, engine, Display())
    with tempfile.TemporaryDirectory() as scratch:
        eole = Eole(program, data, rows, config, student.config, Path(scratch))
        racers: dict[str, Callable[[], Turn | None]] = {
            OURS: lambda: mtdistill(config, teacher, rows, targets, updates)
        }
        for way in ways:
            racers[f"eole {way}"] = partial(eole.run, way, updates)
        turns = race(racers, rounds)
    rates = {name: spread([turn.rate for turn in each]) for name, each in turns.items()}
    peers = [name for name in rates if name != OURS]
    if not peers:
        raise SystemExit("eole does not train here")
    fastest = max(peers, key=lambda name: rates[name]["median"])
    return {
        "date": date.today().isoformat(),
        "environment": environment() | eole.versions | {"load_before": load},
        "conditions": {
            "threads": THREADS,
            "data": data.manifest.identity,
            "max_sequence_length": config.training.max_sequence_length,
            "sentences_per_update": eole.training["batch_size"],
            "warm_up_updates": WARM_UP_UPDATES,
            "updates": updates,
            "rounds": rounds,
            "number_format_of_mtdistill": str(engine.dtype).removeprefix("torch."),
            "eole": {"model": eole.model, "training": eole.training, "ways": {way: WAYS[way] for way in ways}},
            "note": "eole: from scratch, without a teacher; mtdistill: with the stored states of the teacher. Target tokens "
            "with end marks, without padding.",
        },
        "parameters": {"eole": eole.parameters, OURS: student.num_parameters()},
        "tokens_per_update": {name: statistics.mean(t.tokens for t in each) / updates for name, each in turns.items()},
        "tokens_per_second": rates,
        "fastest_peer": fastest,
        "ratio_to_fastest_peer": spread([a.rate / b.rate for a, b in zip(turns[OURS], turns[fastest], strict=True)]),
    }


def show(result: dict[str, Any]) -> None:
    """The table at the end of a run."""
    print(f"\n{'trainer':32}{'tokens/update':>15}{'target tokens/s':>17}  range")
    for name, rates in result["tokens_per_second"].items():
        print(f"{name:32}{result['tokens_per_update'][name]:15.0f}{rates['median']:17,.0f}"
              f"  {rates['min']:,.0f}-{rates['max']:,.0f}")  # fmt: skip
    ratio = result["ratio_to_fastest_peer"]
    print(f"{OURS} over {result['fastest_peer']}, within a round: {ratio['median']:.2f} "
          f"({ratio['min']:.2f}-{ratio['max']:.2f})")  # fmt: skip


def _update_count(text: str) -> int:
    if int(text) < REPORT_EVERY or int(text) % REPORT_EVERY:
        raise argparse.ArgumentTypeError(f"got {text}, accepted multiples of {REPORT_EVERY}: eole reports that often")
    return int(text)


def main() -> None:
    """Measure, write the result, show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--eole", type=Path, required=True, help="the eole executable, in a virtual environment of its own"
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared data, with the teacher's vocabulary")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="in which eole computes")
    parser.add_argument("--updates", type=_update_count, default=300, help="timed in every turn, after the warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, help="folder for peer_trainer.json")
    options = parser.parse_args()
    quiet_libraries()
    prepare_processor(THREADS)  # also what eole inherits: oneDNN's room for prepared products
    result = compare(options.eole.absolute(), options.data.absolute(), options.ways, options.updates, options.rounds)
    show(result)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "peer_trainer.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
