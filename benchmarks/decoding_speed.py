"""Decoding speed, side by side: every preset's student, the reference teacher, and Marian of the student's size.

    python benchmarks/decoding_speed.py --data FOLDER [--marian PATH] [--student balanced=FOLDER]
    python benchmarks/decoding_speed.py --data FOLDER --sentences 32 --repeats 1 --output FOLDER    # does it work?

Writes results/decoding_speed.json and .png. FOLDER is prepared data with the reference teacher's vocabulary, for example
train_process/data/<identity>. One CPU thread, greedy, at batch 32 and at batch 1 (there every fourth sentence only).

The weights of a model do not change what a step costs, but they decide how many steps there are. So students have random
weights, and lengths are forced: every batch decodes as many steps as its longest reference has tokens, whatever the model.
That is the work of the engine alone, between source tokens and target tokens. With `--student` a trained student is also
measured end to end, text in and text out, each model with outputs of its own; that is the number a user sees. All presets
take about five minutes, and every trained student one more.

Marian (`pip install pymarian` in a venv of its own, then `--marian VENV/bin/pymarian`) gets two updates of training and the
student's depth, feed-forward width, vocabulary and, as nearly as its heads allow, parameters. Its end mark is forbidden, so
that every batch runs to the length cap, and the cap is set so that all batches together have as many steps as the students.
A single batch may still have a third more or fewer: compare tokens per second, which count what Marian really put out.
One process per row stays alive and is fed batch by batch, so that neither start nor loading is in a figure.

All take turns, round by round, after one round of warm-up, in an order that is turned around from round to round. A figure
is the median over rounds; a ratio is the median of the ratios within a round.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.data.prepared import PreparedData
from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, Translator, convert_to_ctranslate2
from mtdistill.distillation.construction import plan_student
from mtdistill.distillation.run_folder import environment
from mtdistill.evaluation import measure_speed
from mtdistill.presets import PRESET_NAMES, load_preset
from mtdistill.student.blueprint import Blueprint
from mtdistill.student.bundle import load_student
from mtdistill.student.slicing import build_student
from mtdistill.teacher.loading import Teacher, load_teacher
from mtdistill.text import word_count

RESULTS = Path(__file__).parent / "results"
BATCH = 32
LATENCY_SHARE = 4  # at batch 1 a round would otherwise take ten times as long as at batch 32
TEACHER = "teacher"
COLOURS = {"float32": "#4c78a8", "int8": "#2a9d4e"}


@dataclass(frozen=True)
class Batch:
    """Sentences that are decoded together, in the form that each engine reads, and how many steps they get."""

    ids: list[list[int]]
    tokens: list[list[str]]
    padded: Tensor
    attention_mask: Tensor
    steps: int
    source_words: float

    @property
    def longest_source(self) -> int:
        """In tokens, end mark included."""
        return max(map(len, self.ids))


Decode = Callable[[Batch], int]  # to the number of tokens put out


@dataclass
class Contender:
    """What takes a turn in every round: a model in an engine, with a precision and a batch size.

    Attributes:
        model: "teacher" or the name of a preset.
        seconds: of every round.
        calls: seconds of every call, all rounds together.
        target_tokens: of a round; the same in all of them.
    """

    model: str
    engine: str
    precision: str
    batch_size: int
    parameters: int
    decode: Decode
    seconds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    target_tokens: int = 0

    def take_turn(self, batches: Sequence[Batch]) -> tuple[list[float], int]:
        """Seconds of every call, and tokens put out."""
        calls, tokens = [], 0
        for batch in batches:
            started = time.perf_counter()
            tokens += self.decode(batch)
            calls.append(time.perf_counter() - started)
        return calls, tokens


def make_batches(data: PreparedData, teacher: Teacher, sentences: int) -> dict[int, list[Batch]]:
    """The first test sentences, for each batch size, longest source first as in `Translator.translate`."""
    chosen = data.evaluation_set("test", sentences)
    if len(chosen) < sentences:
        raise SystemExit(
            f"--sentences: got {sentences}, accepted at most {len(chosen)}, the test split of {data.folder}"
        )
    tokenizer: Any = teacher.tokenizer
    sources = tokenizer(chosen.sources)["input_ids"]
    targets = tokenizer([references[0] for references in chosen.references])["input_ids"]

    def batch(rows: list[int]) -> Batch:
        ids = [sources[row] for row in rows]
        inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        return Batch(
            ids=ids,
            tokens=[tokenizer.convert_ids_to_tokens(each) for each in ids],
            padded=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            steps=max(len(targets[row]) for row in rows),
            source_words=sum(word_count(chosen.sources[row]) for row in rows),
        )

    order = sorted(range(sentences), key=lambda row: -len(sources[row]))
    return {
        BATCH: [batch(order[first : first + BATCH]) for first in range(0, sentences, BATCH)],
        1: [batch([row]) for row in order[LATENCY_SHARE // 2 :: LATENCY_SHARE]],  # evenly over all lengths
    }


def pytorch(model: T5ForConditionalGeneration) -> Decode:
    """transformers' `generate`, with the settings of `HuggingFaceTranslator` and a forced length."""

    def decode(batch: Batch) -> int:
        generate: Any = model.generate
        with torch.inference_mode():
            output = generate(
                input_ids=batch.padded,
                attention_mask=batch.attention_mask,
                min_new_tokens=batch.steps,
                max_new_tokens=batch.steps,
                max_length=None,
                num_beams=1,
                do_sample=False,
                use_cache=True,
            )
        return len(batch.ids) * (len(output[0]) - 1)  # the first id starts the decoder

    return decode


def in_ctranslate2(folder: Path, precision: str) -> Decode:
    """CTranslate2 as `CTranslate2Translator` calls it, with a forced length."""
    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type=precision, intra_threads=1, inter_threads=1
    )

    def decode(batch: Batch) -> int:
        results = translator.translate_batch(
            batch.tokens,
            beam_size=1,
            max_batch_size=0,
            max_input_length=0,
            min_decoding_length=batch.steps,
            max_decoding_length=batch.steps,
            return_end_token=True,
        )
        return sum(len(result.hypotheses[0]) for result in results)

    return decode


class MarianTool:
    """The Marian executable, and a small model of it for each student.

    Pieces are written as words (`t17`), so that Marian reads exactly the tokens that the students read.
    """

    # Multiples of 8, as the packed format wants; intgemm8, Marian's other 8-bit format, crashes at such widths.
    width_step = 8

    def __init__(self, program: Path, data: PreparedData, vocabulary: int, folder: Path) -> None:
        self.program, self.folder = program, folder
        avx512 = "AVX512" in torch.backends.cpu.get_cpu_capability()
        self.precisions = {"float32": "float32", "int8": "packed8avx512" if avx512 else "packed8avx2"}
        printed = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
        self.version = (printed.stdout or printed.stderr).split()[0]
        # Marian wants its end mark and its unknown word first; T5 has two pieces in these places, never seen in text.
        words = ["</s>", "<unk>", *(self._word(piece) for piece in range(2, vocabulary))]
        self.vocabulary = folder / "vocabulary.yml"
        self.vocabulary.write_text("".join(f"{json.dumps(word)}: {number}\n" for number, word in enumerate(words)))
        rows = data.split("train").select(range(256))
        for column in ("source_ids", "target_ids"):
            (folder / column).write_text("".join(map(self._line, rows[column])))

    @staticmethod
    def _word(piece: int) -> str:
        return f"t{piece}"

    @classmethod
    def _line(cls, ids: Sequence[int]) -> str:
        return " ".join(map(cls._word, ids[:-1])) + "\n"  # Marian adds the end mark

    @staticmethod
    def parameters(width: int, shape: Blueprint) -> int:
        """Of Marian's transformer with as many embedding tables as the student has, biases everywhere."""
        vocabulary, inner = shape.teacher.vocabulary_size, shape.feed_forward_width
        attention, feed_forward, norm = 4 * width * (width + 1), (2 * width + 1) * inner + width, 2 * width
        encoder = len(shape.kept_encoder_layers) * (attention + feed_forward + 2 * norm)
        decoder = len(shape.kept_decoder_layers) * (2 * attention + feed_forward + 3 * norm)
        tables = 1 if shape.ties_inputs else 2
        return vocabulary * (tables * width + 1) + encoder + decoder

    def width(self, shape: Blueprint) -> int:
        """The width at which Marian has most nearly the student's parameters; its heads must divide it."""
        step = math.lcm(self.width_step, shape.heads)
        return min(
            range(step, 1025, step), key=lambda width: abs(self.parameters(width, shape) - shape.parameter_count)
        )

    def make(self, name: str, shape: Blueprint) -> dict[str, Path]:
        """Model files by precision."""
        width, model = self.width(shape), self.folder / f"{name}.npz"
        self._run(
            "train", "--type", "transformer", "--model", model, "--overwrite", "--after", "2u", "--seed", 1,
            "--train-sets", self.folder / "source_ids", self.folder / "target_ids",
            "--vocabs", self.vocabulary, self.vocabulary,
            "--dim-vocabs", shape.teacher.vocabulary_size, shape.teacher.vocabulary_size,
            "--tied-embeddings-all" if shape.ties_inputs else "--tied-embeddings",
            "--dim-emb", width, "--transformer-heads", shape.heads,
            "--enc-depth", len(shape.kept_encoder_layers), "--dec-depth", len(shape.kept_decoder_layers),
            "--transformer-dim-ffn", shape.feed_forward_width, "--transformer-ffn-activation", "relu",
            "--mini-batch", BATCH, "--maxi-batch", 1, "--workspace", 512, "--cpu-threads", 1,
        )  # fmt: skip
        with np.load(model) as stored:
            weights = {key: stored[key] for key in stored.files}
        found = sum(value.size for key, value in weights.items() if not key.startswith("special:"))
        if found != self.parameters(width, shape):
            raise SystemExit(f"Marian's model has {found} parameters, expected {self.parameters(width, shape)}")
        weights["decoder_ff_logit_out_b"][0, 0] = -1e4  # never the end mark
        np.savez(model, **weights)
        files = {"float32": model, "int8": self.folder / f"{name}.bin"}
        self._run("convert", "--from", model, "--to", files["int8"], "--gemm-type", self.precisions["int8"])
        return files

    def length_factor(self, batches: Sequence[Batch]) -> float:
        """The cap, relative to a batch's longest source, with which all batches together have the steps they should.

        Marian stops at floor(factor * longest source) + 1.
        """
        wanted = sum(len(batch.ids) * batch.steps for batch in batches)

        def off(factor: float) -> int:
            got = sum(len(batch.ids) * (math.floor(factor * batch.longest_source) + 1) for batch in batches)
            return abs(got - wanted)

        return min((hundredths / 100 for hundredths in range(20, 1000)), key=off)

    @contextmanager
    def decoder(self, model: Path, batch_size: int, factor: float) -> Iterator[Decode]:
        """A running process that answers one batch at a time."""
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                list(map(str, [
                    self.program, "decode", "--models", model, "--vocabs", self.vocabulary, self.vocabulary,
                    "--beam-size", 1, "--skip-cost", "--cpu-threads", 1, "--mini-batch", batch_size, "--maxi-batch", 1,
                    "--max-length-factor", factor, "--max-length-crop", "--workspace", 128, "--quiet-translation",
                ])), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            asked, answered = process.stdin, process.stdout
            assert asked is not None
            assert answered is not None

            def decode(batch: Batch) -> int:
                with suppress(BrokenPipeError):  # told below, with Marian's own words
                    asked.write("".join(map(self._line, batch.ids)))
                    asked.flush()
                lines = [answered.readline() for _ in batch.ids]
                if not lines[-1]:
                    log.seek(0)
                    raise SystemExit(f"Marian stopped with {process.wait()}:\n{log.read()[-2000:]}")
                return sum(len(line.split()) for line in lines)

            try:
                yield decode
            finally:
                process.kill()  # there is nothing to save, and it would wait for input
                process.communicate()

    def _run(self, *command: object) -> None:
        done = subprocess.run([str(self.program), *map(str, command)], check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"pymarian {command[0]} failed ({done.returncode}):\n{done.stderr[-2000:]}")


def contenders(
    names: Sequence[str], teacher: Teacher, batches: dict[int, list[Batch]], marian: MarianTool | None, stack: ExitStack
) -> list[Contender]:
    """All of them; those that are compared stand near each other, so that a turn apart is a moment apart."""
    shapes = {name: plan_student(load_preset(name).config, teacher) for name in names}
    models = {TEACHER: teacher.model}
    models |= {name: build_student(teacher.model, shape, None, "random").model for name, shape in shapes.items()}
    parameters = {name: sum(each.numel() for each in model.parameters()) for name, model in models.items()}
    folders = {}
    for name, model in models.items():
        saved, folders[name] = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        model.save_pretrained(saved)
        teacher.tokenizer.save_pretrained(saved)
        convert_to_ctranslate2(saved, folders[name])
    marian_files = {name: marian.make(name, shape) for name, shape in shapes.items()} if marian else {}
    found = []
    for size, parts in batches.items():
        for precision in ("float32", "int8"):
            found += [
                Contender(name, "CTranslate2", precision, size, parameters[name], in_ctranslate2(folder, precision))
                for name, folder in folders.items()
            ]
            for name, files in marian_files.items():
                assert marian is not None
                decode = stack.enter_context(
                    marian.decoder(files[precision], size, round(marian.length_factor(parts), 2))
                )
                count = marian.parameters(marian.width(shapes[name]), shapes[name])
                found.append(Contender(name, "Marian", marian.precisions[precision], size, count, decode))
        found.append(Contender(TEACHER, "PyTorch", "float32", size, parameters[TEACHER], pytorch(teacher.model)))
    return found


def race(racers: Sequence[Contender], batches: dict[int, list[Batch]], repeats: int) -> None:
    """Let all take turns; the first round is a warm-up."""
    for number in range(repeats + 1):
        started = time.perf_counter()
        for racer in racers if number % 2 else reversed(racers):
            parts = batches[racer.batch_size]
            calls, tokens = racer.take_turn(parts)
            forced = sum(len(batch.ids) * batch.steps for batch in parts)
            if racer.engine != "Marian" and tokens != forced:
                raise SystemExit(f"{racer.engine} put out {tokens} tokens for {racer.model}, forced were {forced}")
            if number:
                racer.seconds.append(sum(calls))
                racer.calls += calls
            racer.target_tokens = tokens
        what = f"round {number} of {repeats}" if number else "warm-up"
        print(f"{what}: {time.perf_counter() - started:.0f} s", flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratio(slow: Contender, fast: Contender) -> dict[str, float]:
    """How many times as many tokens per second the fast one has, within a round."""
    per_token = slow.target_tokens / fast.target_tokens
    return spread([a / b / per_token for a, b in zip(slow.seconds, fast.seconds, strict=True)])


def table_rows(racers: Sequence[Contender], batches: dict[int, list[Batch]]) -> list[dict[str, Any]]:
    """One row per model, engine, precision and batch size, with the ratios that make sense for it."""
    by_key = {(each.model, each.engine, each.precision, each.batch_size): each for each in racers}
    rows = []
    for racer in racers:
        parts = batches[racer.batch_size]
        sentences, words = sum(len(batch.ids) for batch in parts), sum(batch.source_words for batch in parts)
        row: dict[str, Any] = {
            "model": racer.model,
            "engine": racer.engine,
            "precision": racer.precision,
            "batch_size": racer.batch_size,
            "parameters": racer.parameters,
            "sentences": sentences,
            "target_tokens": racer.target_tokens,
            "seconds": spread(racer.seconds),
            "ms_per_sentence": spread([1000 * each / sentences for each in racer.seconds]),
            "source_words_per_second": spread([words / each for each in racer.seconds]),
            "target_tokens_per_second": spread([racer.target_tokens / each for each in racer.seconds]),
        }
        if racer.batch_size == 1:
            latencies = [1000 * call for call in racer.calls]
            row["latency_ms"] = {
                "median": float(np.median(latencies)), "p95": float(np.percentile(latencies, 95)), "n": len(latencies),
            }  # fmt: skip
        if racer.engine == "Marian":
            precision = "float32" if racer.precision == "float32" else "int8"
            student = by_key[racer.model, "CTranslate2", precision, racer.batch_size]
            row["student_over_marian"] = ratio(racer, student)
        elif racer.engine == "CTranslate2":
            row["deployed_speed_up"] = ratio(by_key[TEACHER, "PyTorch", "float32", racer.batch_size], racer)
            if racer.model != TEACHER:
                teacher = by_key[TEACHER, "CTranslate2", racer.precision, racer.batch_size]
                row["speed_up"] = ratio(teacher, racer)
        rows.append(row)
    return rows


def end_to_end(path: Path, teacher: Teacher, data: PreparedData, sentences: int, repeats: int) -> list[dict[str, Any]]:
    """A trained student against the teacher, text to text, each with outputs of its own length."""
    student, lang, target_lang = load_student(path), data.source_lang, data.target_lang
    sources = data.evaluation_set("test", sentences).sources

    def fast(model: Any, precision: Any) -> Translator:
        return CTranslate2Translator.from_model(
            model, teacher.tokenizer, source_lang=lang, target_lang=target_lang, compute_type=precision, threads=1
        )

    students = {precision: fast(student.model, precision) for precision in COLOURS}
    pairs: list[tuple[Translator, Translator]] = [
        (students[precision], fast(teacher.model, precision)) for precision in COLOURS
    ]
    pairs.append((students["int8"], HuggingFaceTranslator(teacher.model, teacher.tokenizer, source_lang=lang)))
    found = []
    for batch_size, part in ((BATCH, sources), (1, sources[::LATENCY_SHARE])):
        for ours, theirs in pairs:
            # PyTorch is so far behind that a few runs tell it, and so slow that more would double the time of it all.
            runs = -(-repeats // 3) if theirs.engine == "PyTorch" else repeats
            measured = measure_speed(ours, theirs, part, batch_size=batch_size, repeats=runs)
            found.append(asdict(measured))
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Speed-up of every preset beside what it promises."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, batch_size in zip(panels, (BATCH, 1), strict=True):
        _panel(axes, result, batch_size)
    panels[0].set_ylabel("teacher seconds / student seconds")
    panels[0].legend(fontsize=8)
    figure.suptitle(
        f"CTranslate2, one thread, greedy, forced lengths; {result['environment']['cpu']}, {result['date']}", fontsize=9
    )
    figure.savefig(path, dpi=120)


def _panel(axes: Axes, result: dict[str, Any], batch_size: int) -> None:
    names = list(result["promised_speed_up"])
    for shift, (precision, colour) in zip((-0.2, 0.2), COLOURS.items(), strict=True):
        found = {
            row["model"]: row["speed_up"]
            for row in result["rows"]
            if "speed_up" in row and (row["precision"], row["batch_size"]) == (precision, batch_size)
        }
        medians = [found[name]["median"] for name in names]
        error = [[found[name]["median"] - found[name]["min"] for name in names],
                 [found[name]["max"] - found[name]["median"] for name in names]]  # fmt: skip
        at = [place + shift for place in range(len(names))]
        axes.bar(at, medians, 0.38, yerr=error, color=colour, label=f"{precision} (median, range)", capsize=2)
        for place, median in zip(at, medians, strict=True):  # at the foot, where no mark covers it
            axes.text(place, 0.06, f"{median:.1f}", ha="center", va="bottom", color="white", fontsize=8)
        trained = [
            (names.index(name) + shift, row["ratio"])
            for name, rows in result["end_to_end"].items()
            for row in rows
            if name in names
            and (row["batch_size"], row["student"]["precision"], row["teacher"]["precision"], row["teacher"]["engine"])
            == (batch_size, precision, precision, "CTranslate2")
        ]
        if trained:
            axes.plot(*zip(*trained, strict=True), "D", color="white", markeredgecolor="black", markersize=5, zorder=4,
                      label="trained, end to end" if precision == "int8" else None)  # fmt: skip
    promises = result["promised_speed_up"].values()
    axes.hlines(promises, [i - 0.42 for i in range(len(names))], [i + 0.42 for i in range(len(names))],
                colors="#d1495b", linewidth=2, label="promised by the preset", zorder=3)  # fmt: skip
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_title(f"batch {batch_size}", fontsize=10)


def show(result: dict[str, Any]) -> None:
    """The table at the end of a run."""

    def between(values: dict[str, float]) -> str:
        return f"{values['median']:.2f} ({values['min']:.2f}-{values['max']:.2f})"

    print(f"\n{'model':13}{'engine':13}{'precision':15}{'batch':>5}{'params M':>9}{'words/s':>9}{'tokens/s':>10}"
          f"{'ms/sent':>9}{'p50':>7}{'p95':>7}  ratio")  # fmt: skip
    for row in result["rows"]:
        latency = row.get("latency_ms")
        p50, p95 = (f"{latency[key]:.1f}" if latency else "-" for key in ("median", "p95"))
        ratios = [
            f"{label} {between(row[key])}"
            for key, label in (
                ("speed_up", "speed-up"),
                ("deployed_speed_up", "over PyTorch teacher"),
                ("student_over_marian", "student over Marian"),
            )
            if key in row
        ]
        print(f"{row['model']:13}{row['engine']:13}{row['precision']:15}{row['batch_size']:5}"
              f"{row['parameters'] / 1e6:9.2f}{row['source_words_per_second']['median']:9,.0f}"
              f"{row['target_tokens_per_second']['median']:10,.0f}{row['ms_per_sentence']['median']:9.2f}{p50:>7}{p95:>7}"
              f"  {'; '.join(ratios)}")  # fmt: skip
    for name, rows in result["end_to_end"].items():
        print(f"\ntrained {name}, end to end, tokenisation included, outputs of its own:")
        for row in rows:
            student, teacher, words = row["student"], row["teacher"], row["source_words"]
            latency = "" if student["latency_ms"] is None else (
                f", p50 {student['latency_ms']:.1f} ms, p95 {student['latency_p95_ms']:.1f} ms")  # fmt: skip
            print(f"  batch {row['batch_size']:2}, {student['engine']} {student['precision']} against {teacher['engine']} "
                  f"{teacher['precision']}: {row['ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f}); "
                  f"{words / student['seconds']:,.0f} against {words / teacher['seconds']:,.0f} words/s, "
                  f"{student['target_tokens'] / student['seconds']:,.0f} against "
                  f"{teacher['target_tokens'] / teacher['seconds']:,.0f} tokens/s{latency}")  # fmt: skip


def _student_option(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in PRESET_NAMES or not Path(path).exists():
        raise argparse.ArgumentTypeError(f"got {text}, accepted PRESET=PATH with a path that exists")
    return name, Path(path)


def _sentence_count(text: str) -> int:
    if int(text) < BATCH or int(text) % BATCH:
        raise argparse.ArgumentTypeError(f"got {text}, accepted multiples of {BATCH}, so that all batches are full")
    return int(text)


def main() -> None:
    """Measure everything, write the result, show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared data, with the teacher's vocabulary")
    parser.add_argument("--marian", type=Path, help="the pymarian executable; without it Marian is left out")
    parser.add_argument("--student", type=_student_option, action="append", default=[], metavar="PRESET=PATH")
    parser.add_argument("--presets", nargs="+", choices=PRESET_NAMES, default=list(PRESET_NAMES))
    parser.add_argument("--sentences", type=_sentence_count, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for decoding_speed.json and .png")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    teacher, data = load_teacher("reference"), PreparedData(options.data)
    batches = make_batches(data, teacher, options.sentences)
    result: dict[str, Any] = {
        "date": datetime.now().date().isoformat(),
        "environment": environment() | {"load_before": load},
        "conditions": {
            "threads": 1,
            "beam_size": 1,
            "repeats": options.repeats,
            "data": data.manifest.identity,
            "sentences": {size: sum(len(batch.ids) for batch in parts) for size, parts in batches.items()},
            "forced_target_tokens": {
                size: sum(len(batch.ids) * batch.steps for batch in parts) for size, parts in batches.items()
            },
            "rows": "from source tokens to target tokens; random weights; a batch has as many steps as its longest "
            "reference has tokens; all pieces in the search",
            "end_to_end": "from text to text; trained weights; outputs of the model's own length; CTranslate2 searches pieces "
            "of the target language only",
        },
        "promised_speed_up": {name: load_preset(name).config.expected.speed_up for name in options.presets},
    }
    with ExitStack() as stack:
        marian = None
        if options.marian:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            marian = MarianTool(options.marian, data, teacher.model.config.vocab_size, folder)
            result["conditions"]["marian"] = {
                "version": marian.version,
                "width": {
                    name: marian.width(plan_student(load_preset(name).config, teacher)) for name in options.presets
                },
                "max_length_factor": {size: marian.length_factor(parts) for size, parts in batches.items()},
                "note": "2 updates of training, end mark forbidden: every batch runs to its length cap, which is set so "
                "that all batches together have about the forced tokens; target_tokens are those really put out. "
                "Without a lexical shortlist. --skip-cost: no softmax where only the largest output counts.",
            }
        racers = contenders(options.presets, teacher, batches, marian, stack)
        race(racers, batches, options.repeats)
    result["rows"] = table_rows(racers, batches)
    result["end_to_end"] = {
        name: end_to_end(path, teacher, data, options.sentences, options.repeats) for name, path in options.student
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "decoding_speed.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    plot(result, options.output / "decoding_speed.png")
    show(result)


if __name__ == "__main__":
    main()
