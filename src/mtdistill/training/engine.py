"""How the gradient of an update is computed on this machine: kernels, number format, threads, and how a batch is cut.

None of it changes what is computed, but for rounding, and for dropout and dropped layers, which are drawn for each
part; a block that an update drops altogether has a gradient of 0 in the fused way and none in the other. The fused way
runs the parts of a batch side by side, one thread each: their small operations then need no team of threads that waits
for its slowest member. Imported by cli, distillation, teacher, training.fused_updates, training.stored_engine and
training.trainer; imports data and training.precision.
"""

import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mtdistill.data.batches import PackedBatch
from mtdistill.training.precision import Precision, uses_bfloat16

Result = TypeVar("Result")

# Activations of a token take about 30 kB in a student of this project's size, so a part stays below 0.5 GiB.
MAX_PART_TOKENS = 16_384
MIN_PART_TOKENS = 64  # about one pair of sentences: what is smaller does not save memory
TIMED_ROUNDS = 3


@dataclass(frozen=True)
class Engine:
    """What a run computes its updates with.

    Attributes:
        fused: the kernels of `mtdistill.kernels`; otherwise transformers' own modules.
        bfloat16: number format of the matrix products, instead of float32.
        parts: how many parts of a batch run side by side.
        threads_per_part: CPU threads of each.
        max_part_tokens: source and target tokens of a part; a larger batch is cut into more parts.
    """

    fused: bool = True
    bfloat16: bool = False
    parts: int = 1
    threads_per_part: int = 1
    max_part_tokens: int = MAX_PART_TOKENS

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return torch.bfloat16 if self.bfloat16 else torch.float32

    def cut(self, batch: PackedBatch, costs: tuple[float, float] = (1.0, 1.0)) -> list[PackedBatch]:
        """Parts of about equal cost, in order: as many as run at once, or more where memory asks for it.

        Args:
            batch: at least one sentence.
            costs: of a source and of a target token.
        """
        tokens = batch.source_starts + batch.target_starts
        wanted = self.parts * -(-int(tokens[-1]) // (self.parts * self.max_part_tokens))
        cost = batch.source_starts * costs[0] + batch.target_starts * costs[1]
        goals = cost[-1] * torch.arange(1, wanted) / wanted
        inner = torch.searchsorted(cost, goals).clamp(1, len(batch)).tolist()
        bounds = sorted({0, *inner, len(batch)})
        return [batch.part(first, last) for first, last in itertools.pairwise(bounds)]

    def largest_part(self, batch: PackedBatch) -> int:
        """About how many tokens of this batch are worked on at once, in each part."""
        tokens = int(batch.source_starts[-1] + batch.target_starts[-1])
        return min(self.max_part_tokens, -(-tokens // self.parts))


ONE_THREAD = Engine()


def engines(precision: Precision, threads: int) -> list[Engine]:
    """The ways worth trying on this machine; which one is fastest depends on the size of the batches.

    Args:
        precision: "auto" takes what multiplies matrices faster.
        threads: CPU threads, > 0.
    """
    bfloat16 = uses_bfloat16(precision)
    ways = dict.fromkeys([(threads, 1), (1, threads)])
    return [Engine(bfloat16=bfloat16, parts=parts, threads_per_part=each) for parts, each in ways]


def fastest(candidates: Sequence[Engine], seconds: Callable[[Engine], float]) -> Engine:
    """The engine that takes least, by turns; each counts with its best round, since a machine is only ever slowed down.

    The first round does not count, for it prepares new matrix products.

    Args:
        candidates: at least one; a single one is taken without a race.
        seconds: does the same work with any of them, and tells what it took.
    """
    if len(candidates) == 1:
        return candidates[0]
    rounds = [[seconds(candidate) for candidate in candidates] for _ in range(1 + TIMED_ROUNDS)]
    best = [min(times) for times in zip(*rounds[1:], strict=True)]
    return candidates[best.index(min(best))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was wanted and not to be had; torch has no class of its own for it on CPUs."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in text
        or "can't allocate" in text
    )


class Workers:
    """Threads that compute the parts of a batch; each has its own number of inner threads.

    Args:
        count: how many parts run at once.
        threads: CPU threads of each.
    """

    def __init__(self, count: int, threads: int) -> None:
        own = torch.get_num_threads()
        self.count = count
        self._pool = ThreadPoolExecutor(count, "part", initializer=torch.set_num_threads, initargs=(threads,))
        # The setting belongs to the calling thread, but a new thread starts with the one made last, wherever.
        # All meet at the barrier, or the pool would start fewer; asking for the number fixes it for that thread.
        ready = threading.Barrier(count)
        list(self._pool.map(lambda _: (ready.wait(), torch.get_num_threads()), range(count)))
        torch.set_num_threads(own)

    def map(self, function: Callable[[int], Result], count: int) -> list[Result]:
        """function(0), function(1), ..., in this order whatever ends first; the first error is raised."""
        return list(self._pool.map(function, range(count)))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def summed(gradients: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The gradients of a batch from those of its parts, added in order, so that a repetition gives the same bits."""
    total = dict(gradients[0])
    for more in gradients[1:]:
        torch._foreach_add_(list(total.values()), [more[name] for name in total])
    return total


def shared_out(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The places 0, 1, ... of some things in at most `count` lists of about equal size, none of them empty.

    Args:
        sizes: of each thing.
        count: > 0.
    """
    lists: list[list[int]] = [[] for _ in range(count)]
    totals = [0] * count
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        smallest = totals.index(min(totals))
        lists[smallest].append(place)
        totals[smallest] += sizes[place]
    return [places for places in lists if places]


def prepare_processor(threads: int) -> None:
    """Settings of this process that training wants: threads, no denormal numbers, room for prepared matrix products.

    Args:
        threads: CPU threads, > 0.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # oneDNN prepares code for every shape, about 1 ms each, and by default forgets all but the last 1,024; batches of
    # text have more. Read at its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def free_memory_bytes() -> int | None:
    """What the system can still give; None where it does not tell."""
    with suppress(OSError, IndexError, ValueError):
        meminfo = Path("/proc/meminfo").read_text(encoding="utf-8")
        return int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024
    return None
