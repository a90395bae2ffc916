"""How a trainer computes the gradient of a batch where the fused kernels run: in parts, side by side, within memory.

Imported by training.trainer; imports data, kernels, modeling, training.engine, training.phases, training.schedule and
training.watch.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import Batches, PackedBatch
from mtdistill.kernels.numbers import hashed
from mtdistill.modeling.packed import decoder_states
from mtdistill.training.engine import (
    MIN_PART_TOKENS,
    Engine,
    Workers,
    fastest,
    is_out_of_memory,
    shared_out,
    summed,
)
from mtdistill.training.phases import PhaseTimes
from mtdistill.training.schedule import Schedule

if TYPE_CHECKING:
    from mtdistill.training.watch import Watch

# For a race between engines: with all its rounds a few seconds for each.
TIMED_BATCHES = 8


class FusedUpdates:
    """The part of `TranslationTrainer` that knows of engines; what it needs of the rest is declared here."""

    model: T5ForConditionalGeneration
    schedule: Schedule
    phases: PhaseTimes
    state: Any
    train_dataset: Any
    watch: "Watch | None"
    engine: Engine
    keep_engine: Callable[[Engine], None]
    _workers: Workers | None
    _trained: dict[str, Tensor]
    _costs: tuple[float, float]
    _batches: Batches

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """See `TranslationTrainer`."""
        raise NotImplementedError

    def use_engine(self, engine: Engine) -> None:
        """Compute with this engine from now on; it must be fused exactly if the first one was."""
        if self._workers is not None:
            self._workers.close()
        self.engine = engine
        self._workers = Workers(engine.parts, engine.threads_per_part) if engine.fused else None

    @contextmanager
    def engine_threads(self) -> Iterator[None]:
        """Inside, the calling thread computes with as many threads as a part does.

        More of them, once woken for a sum or for the optimizer, go on spinning beside the parts and take their cores.
        """
        own = torch.get_num_threads()
        if self.engine.fused:
            torch.set_num_threads(self.engine.threads_per_part)
        try:
            yield
        finally:
            torch.set_num_threads(own)

    def side_by_side(self, work: Callable[[Sequence[int]], None], sizes: Sequence[int]) -> None:
        """Do something with things of these sizes, given by their places: each worker gets about as much of it."""
        if self._workers is None or self.engine.parts == 1:
            work(range(len(sizes)))
        else:
            shares = shared_out(sizes, self.engine.parts)
            self._workers.map(lambda share: work(shares[share]), len(shares))

    def use_fastest(self, engines: Sequence[Engine]) -> Engine:
        """Time real batches of the first epoch with each engine, by turns, and keep the one that takes least.

        Args:
            engines: fused ones; a single one is taken without a race.
        """
        batches = [self.train_dataset.batch(rows) for rows in itertools.islice(self._batches, TIMED_BATCHES)]
        self.model.train()

        def seconds(engine: Engine) -> float:
            self.use_engine(engine)
            with self.engine_threads():
                self.batch_gradients(batches[0])  # starts the threads
                started = time.perf_counter()
                for batch in batches:
                    self.batch_gradients(batch)
                return time.perf_counter() - started

        self.use_engine(fastest(engines, seconds))
        self.keep_engine(self.engine)
        return self.engine

    def batch_gradients(self, batch: PackedBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Gradients of the mean loss per token, by weight, and the mean losses; no weight is changed.

        Only where the engine is fused. Dropout is decided by seed, update and part.
        """
        parts, count = self.engine.cut(batch, self._costs), len(batch.labels)
        assert self._workers is not None

        def gradients_of(part: int) -> tuple[dict[str, Tensor], dict[str, float]]:
            seed = hashed(self.schedule.seed, self.state.global_step * 4096 + part)
            with self.phases.measure("forward"):
                states = decoder_states(self.model, parts[part], self.engine.dtype, seed)
            with self.phases.measure("loss"):
                sums = self.losses_from_states(states, self.model.shared.weight, parts[part])
            with self.phases.measure("backward"):
                found = torch.autograd.grad(sums["total"] / count, [*self._trained.values()], materialize_grads=True)
            return dict(zip(self._trained, found, strict=True)), {name: v.item() / count for name, v in sums.items()}

        done = self._workers.map(gradients_of, len(parts))
        losses = {name: sum(part[name] for _, part in done) for name in done[0][1]}
        return summed([gradients for gradients, _ in done]), losses

    def gradients_within_memory(self, batch: PackedBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """`batch_gradients`, in smaller parts from now on where the memory does not suffice.

        The gradient is the same but for rounding, and for dropout, which is drawn for each part.
        """
        while True:
            try:
                return self.batch_gradients(batch)
            except (MemoryError, RuntimeError) as error:
                tokens = self.engine.largest_part(batch)
                if not is_out_of_memory(error) or self.engine.max_part_tokens <= MIN_PART_TOKENS:
                    raise
                self.use_engine(replace(self.engine, max_part_tokens=max(MIN_PART_TOKENS, tokens // 2)))
                self.keep_engine(self.engine)
                if self.watch:
                    self.watch.out_of_memory(tokens)
