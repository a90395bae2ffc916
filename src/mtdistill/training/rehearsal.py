"""Real updates outside a run, to learn what they cost on this machine.

Imported by distillation; imports data and training.trainer.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtdistill.data.batches import PackedBatch
from mtdistill.training.trainer import TranslationTrainer


@dataclass(frozen=True)
class Rehearsed:
    """What was timed.

    Attributes:
        seconds: of all updates together.
        batches: what they were computed from.
    """

    seconds: float
    batches: list[PackedBatch]


def rehearse(
    trainer: TranslationTrainer, updates: int, advance: Callable[[int], None] = lambda _done: None
) -> Rehearsed:
    """Do the first updates of a run twice, and time the second go.

    A matrix library prepares code for every shape that it meets. In the first go that takes as long as the products
    themselves; a run has met all of its shapes after a few hundred updates.

    Args:
        trainer: its weights move, its counters do not; the phases are those of the second go.
        updates: > 0; of as many epochs as that takes.
        advance: told how many of 2 x `updates` are done.
    """
    trainer.model.train()
    accumulation = trainer.args.gradient_accumulation_steps
    seconds = 0.0
    batches: list[PackedBatch] = []
    for done in (0, updates):
        trainer.phases.seconds.clear()
        loader = itertools.chain.from_iterable(itertools.repeat(trainer.get_train_dataloader()))
        batches.clear()
        with trainer.engine_threads():
            started = time.perf_counter()
            for number in range(updates):
                with trainer.phases.measure("data"):
                    inputs = list(itertools.islice(loader, accumulation))
                batches += [PackedBatch(**each) for each in inputs]
                update(trainer, inputs)
                advance(done + number + 1)
            seconds = time.perf_counter() - started
    return Rehearsed(seconds, batches)


def update(trainer: TranslationTrainer, inputs: Sequence[Mapping[str, Tensor]]) -> float:
    """One update from the batches it accumulates, as the Trainer does it; returns the mean loss per target token."""
    tokens = sum(len(each["labels"]) for each in inputs)
    loss = 0.0
    for each in inputs:
        if trainer.engine.fused:
            loss += trainer.training_step(trainer.model, dict(each), tokens).item()
        else:
            part = trainer.compute_loss(trainer.model, dict(each), num_items_in_batch=tokens)
            part.backward()
            loss += part.item()
    with trainer.phases.measure("optimizer"):
        trainer.clip_gradients()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    return loss
