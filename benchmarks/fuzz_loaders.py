"""Damaged and hostile files against every loader: each must load, or end in an error of ours.

    python benchmarks/fuzz_loaders.py                            # 10,000 cases
    python benchmarks/fuzz_loaders.py --cases 300 --format onnx  # some cases of one format
    python benchmarks/fuzz_loaders.py --format onnx --only 17    # one case again, with its traceback

A case is one whole specimen of a format with one change to one of its files, loaded the way a user reaches it and, where
that is how one would meet the damage, used once. Case 0 of every format is the specimen itself and has to load. What a
seed, a format and a number make is always the same. Cases run in forked processes that are started again after a crash,
with little more address space than they have at the start, so that a segmentation fault, an endless loop and an
allocation of whatever a header claims are each found and named.
Formats called "unsigned" are the same folders without checksums: of other tools, of older versions, or of a stranger
who can compute checksums too. Exit code 1 where anything but "ok" and "our error" was seen.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

from hostile_files import FORMATS, Format, make_specimens
from mutations import mutate

from mtdistill.errors import MtdistillError

HANG_SECONDS = 20
SPARE_BYTES = 2 * 2**30  # of address space: far more than any specimen needs
CASES_PER_PROCESS = 250
FINE = ("ok", "our error")
OUTCOMES = (*FINE, "refused whole", "traceback", "memory", "stray file", "crash", "hang")


@dataclass
class Tally:
    """Outcomes of one format, and an example of each message that is a fault."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    mutations: Counter[str] = field(default_factory=Counter)


def run_case(specimens: Path, scratch: Path, kind: Format, number: int, seed: int) -> tuple[str, str, str]:
    """Make and load one case: its outcome, what was seen, and what had been done to which file."""
    place = scratch / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(specimens / kind.specimen, place)
    change = "nothing" if number == 0 else mutate(place, specimens, random.Random(f"{seed}/{kind.name}/{number}"))
    before = sorted(path.name for path in scratch.iterdir())
    try:
        kind.load(place)
        outcome, detail = "ok", ""
    except MtdistillError as error:
        outcome = "memory" if _wanted_memory(error) else "our error" if number else "refused whole"
        detail = f"{type(error).__name__}: {error}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what a panic of a Rust library derives from
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "mtdistill" in frame.filename]
        outcome = "memory" if _wanted_memory(error) else "traceback"
        detail = f"{' '.join(ours[-2:])} {type(error).__name__}: {str(error)[:200]}"
    # ONNX Runtime keeps .ses in the folder for temporary files, once in each process and whatever the model.
    if strays := sorted({path.name for path in scratch.iterdir()} - {*before, ".ses"}):
        outcome, detail = "stray file", ", ".join(strays)
    return outcome, detail, change


def _wanted_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed somewhere on the way, whoever has turned that into which error."""
    signs = ("bad_alloc", "can't allocate memory", "Cannot allocate memory", "Failed to allocate", "std::length_error")
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def _work(pipe: Connection, specimens: Path, scratch: Path, kind: Format, numbers: range, seed: int) -> None:
    import faulthandler

    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    crash_log = (scratch.parent / "crash.txt").open("w")
    faulthandler.enable(crash_log)
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        pipe.send(run_case(specimens, scratch, kind, number, seed))
    pipe.close()


def outcomes(specimens: Path, root: Path, kind: Format, cases: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Outcome of every case of a format, in forked processes that take many cases each."""
    forked = multiprocessing.get_context("fork")
    number = 0
    while number < cases:
        scratch = root / f"scratch-{kind.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        receiver, sender = forked.Pipe(duplex=False)
        numbers = range(number, min(number + CASES_PER_PROCESS, cases))
        worker = forked.Process(target=_work, args=(sender, specimens, scratch, kind, numbers, seed))
        worker.start()
        sender.close()
        for number in numbers:
            if not receiver.poll(HANG_SECONDS):
                worker.kill()
                yield "hang", f"more than {HANG_SECONDS} s", f"case {number}"
                break
            try:
                yield receiver.recv()
            except EOFError:
                worker.join()
                code = worker.exitcode or 0
                name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                where = [line.strip() for line in (root / "crash.txt").read_text().splitlines() if "mtdistill" in line]
                yield "crash", f"{name} {where[0] if where else ''}", f"case {number}"
                break
        worker.join()
        receiver.close()
        number += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, help="in all; shared out over the formats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", action="append", choices=FORMATS, help="repeatable; none: all")
    parser.add_argument("--only", type=int, help="number of one case, which is run here")
    parser.add_argument("--results", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    kinds = [FORMATS[name] for name in options.format or FORMATS]
    tallies = {kind.name: Tally() for kind in kinds}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        maker = multiprocessing.get_context("fork").Process(target=make_specimens, args=(root / "specimens",))
        maker.start()  # so that no library has threads of its own when workers are forked
        maker.join()
        if options.only is not None:
            (root / "scratch").mkdir()
            print(*run_case(root / "specimens", root / "scratch", kinds[0], options.only, options.seed), sep="\n")
            kinds[0].load(root / "scratch" / "case")
            return 0
        weights = sum(kind.weight for kind in kinds)
        for kind in kinds:
            cases, tally, began = -(-options.cases * kind.weight // weights), tallies[kind.name], time.monotonic()
            for number, (outcome, detail, change) in enumerate(
                outcomes(root / "specimens", root, kind, cases, options.seed)
            ):
                tally.outcomes[outcome] += 1
                tally.mutations[change.split(" ")[0]] += 1
                if outcome not in FINE:
                    tally.faults.setdefault(f"{outcome}: {detail}", f"case {number}: {change}")
            counts = "  ".join(f"{name} {tally.outcomes[name]}" for name in OUTCOMES if tally.outcomes[name])
            print(f"{kind.name:24} {cases:6} cases {time.monotonic() - began:6.0f} s   {counts}", flush=True)
            for fault, example in tally.faults.items():
                print(f"    {fault[:300]}\n        {example}", flush=True)
    total = Counter[str]()
    for tally in tallies.values():
        total += tally.outcomes
    print(f"{'all':24} {total.total():6} cases {time.monotonic() - start:6.0f} s   {dict(total)}")
    if options.results:
        found = {
            "date": date.today().isoformat(),
            "seed": options.seed,
            "cases": total.total(),
            "outcomes": {name: total[name] for name in OUTCOMES},
            "formats": {name: dict(tally.outcomes) for name, tally in tallies.items()},
            "faults": {name: tally.faults for name, tally in tallies.items() if tally.faults},
        }
        options.results.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return int(any(total[name] for name in OUTCOMES if name not in FINE))


if __name__ == "__main__":
    sys.exit(main())
