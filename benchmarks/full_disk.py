"""Runs whose disk fills up, or whose folder stops being writable, at random moments: what is said, and what is left?

    sudo mount -t tmpfs -o size=64m tmpfs /mnt/small          # any small file system that holds nothing else
    python benchmarks/full_disk.py --on /mnt/small             # ten minutes; writes results/full_disk.json

The same tiny run as in kills.py goes through the command line: `mtdistill distill`, then `mtdistill export`. While it runs,
either a file takes all the space that is left on the small file system, or every folder of the run loses its permission to
be written (and root obeys that). From then on the command has to end with exit code 2 and a message without a traceback.
Then the space or the permission comes back, the command is given again with `--resume`, and the result has to equal that
of an undisturbed run. Some runs meet a full disk or a read-only folder from their beginning. A run that ends before it
writes again counts as undisturbed, and is shown as such. Exit code 1 for any fault.
"""

import argparse
import contextlib
import ctypes
import errno
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from kills import damaged, differences, overrides, settings, undisturbed

from mtdistill.cli import main as command_line
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.distillation.run_folder import environment, run_folder
from mtdistill.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "full_disk.json"
DAC_OVERRIDE, DAC_READ_SEARCH, CAPABILITIES_VERSION_3 = 1, 2, 0x20080522  # linux/capability.h
PROMISES_MISSED, BAD_INPUT, UNEXPECTED = 1, 2, 9
BLOCK = 2**16
KINDS = ("full", "read-only")


def by_command(folder: Path, output: Path) -> int:
    """What a user types; the exit code."""
    run = run_folder(settings(folder, output))
    if not run.report.is_file():
        resume = ["--resume"] if (run.path / "config.toml").is_file() else []
        changed = [part for setting in overrides(folder, output) for part in ("--set", setting)]
        code = command_line(["distill", "quick", "--yes", *changed, *resume])
        if code > PROMISES_MISSED:  # which tiny models do
            return code
    return command_line(["export", str(run.path), "--format", "ctranslate2", "--quantization", "float32"])


def obey_permissions() -> None:
    """Give up what lets root write where nobody may."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits
    libc.capget(header, sets)
    sets[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def started(folder: Path, output: Path, words: Path) -> int:
    """Begin the commands in a process of their own; its number."""
    child = os.fork()
    if child == 0:
        code = UNEXPECTED
        try:
            stream = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            obey_permissions()
            torch.set_num_threads(1)
            code = by_command(folder, output)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is left on the small file system."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(BLOCK))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """No folder may be written into."""
    folders = [disk, *(path for path in disk.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def one_case(folder: Path, disk: Path, kind: str, moment: float) -> tuple[str, list[str]]:
    """Disturb a run after so many seconds; how it went, and what was wrong with that."""
    output, words = disk / "run", folder / "words"
    words.unlink(missing_ok=True)
    disturbed = full if kind == "full" else read_only
    child = started(folder, output, words) if moment else 0
    time.sleep(moment)
    with disturbed(disk):
        child = child or started(folder, output, words)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = words.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return "ended before it wrote again", []
    found = [] if code == BAD_INPUT else [f"exit code {code}"]
    if "Traceback" in said:
        found.append("traceback")
    if not any(reason in said for reason in (*map(os.strerror, (errno.ENOSPC, errno.EACCES)), "not writable")):
        found.append("the message does not say why")
    found += damaged(run_folder(settings(folder, output)))
    if found:
        print(said[-3000:])
    return " ".join(said.split("mtdistill: ")[-1].split())[-250:], found


def emptied(disk: Path) -> None:
    """Free for the next case."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> int:
    """Fill, look, free, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", type=Path, required=True, help="a small file system that holds nothing else")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    disk = arguments.on.resolve()
    if not disk.is_mount() or any(disk.iterdir()):
        parser.error(f"{disk} is not an empty file system of its own")
    quiet_libraries()
    draw = random.Random(arguments.seed)
    outcome: dict[str, object] = {"environment": environment(), "mebibytes": shutil.disk_usage(disk).total / 2**20}
    cases, faults = [], 0
    disk.chmod(0o755)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds, wanted = undisturbed(folder)
        for number in range(arguments.cases):
            kind = KINDS[number % len(KINDS)]
            moment = draw.uniform(0, 1.2 * seconds) if number >= len(KINDS) else 0.0
            went, found = one_case(folder, disk, kind, moment)
            again = started(folder, disk / "run", folder / "words")
            if code := os.waitstatus_to_exitcode(os.waitpid(again, 0)[1]):
                found.append(f"did not go on: exit code {code}")
                print((folder / "words").read_text(encoding="utf-8")[-3000:])
            else:
                found += differences(wanted, run_folder(settings(folder, disk / "run")))
            print(f"case {number}: {kind} after {moment:.1f} s: {went}: {found or 'equal'}", flush=True)
            cases.append({"kind": kind, "seconds": moment, "went": went, "faults": found})
            faults += bool(found)
            emptied(disk)
    write_atomically(arguments.results, json.dumps({**outcome, "cases": cases}, ensure_ascii=False, indent=2) + "\n")
    print(f"{len(cases)} cases, {faults} with a fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
