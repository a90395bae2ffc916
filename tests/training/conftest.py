"""A trainer whose data, model and scores fit in a second."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration, TrainerCallback

from mtdistill.data.batches import PackedBatch
from mtdistill.health.monitor import Monitor
from mtdistill.modeling import t5_config, use_layer_drop
from mtdistill.training.engine import Engine
from mtdistill.training.fused_loss import fused_loss
from mtdistill.training.trainer import Schedule, TranslationTrainer

VOCABULARY = 40
ONE_PART = Engine()


class GoldTrainer(TranslationTrainer):
    """Cross-entropy, shown twice; remembers what it was given."""

    micro_batches: list[PackedBatch]  # what the Trainer asked a step for
    parts: list[PackedBatch]  # what a loss was asked for; a list may be appended to from several threads
    dtypes: set[torch.dtype]  # of the states or logits

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        self.micro_batches.append(PackedBatch(**inputs))
        return super().training_step(model, inputs, num_items_in_batch)

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        self.parts.append(batch)
        self.dtypes.add(states.dtype)
        loss = fused_loss(states, head, batch.labels)
        return {"total": loss.total, "gold": loss.gold}

    def losses_from_logits(self, logits: Tensor, states: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        self.parts.append(batch)
        self.dtypes.add(logits.dtype)
        loss = nn.functional.cross_entropy(logits.float(), batch.labels, reduction="sum")
        return {"total": loss, "gold": loss.detach()}


class Recorder(TrainerCallback):
    """Gradients and logs of every update."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.logs: list[dict[str, float]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        weights = model.named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in weights if weight.grad is not None})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs.append({"update": state.global_step, **logs})

    def trajectory(self) -> list[tuple[float, ...]]:
        """Update, loss, gradient norm and learning rate."""
        names = ("update", "loss", "grad_norm", "learning_rate")
        return [tuple(log[name] for name in names) for log in self.logs if "loss" in log]


@dataclass
class Training:
    """A trainer, and what it leaves behind."""

    trainer: GoldTrainer
    recorder: Recorder
    saved: list[tuple[Mapping[str, float], dict[str, Tensor]]] = field(default_factory=list)

    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.trainer.model.named_parameters()}


def make_rows(sentences: int) -> datasets.Dataset:
    """Random pairs of very different lengths."""
    generator = random.Random(sentences)

    def ids(length: int) -> list[int]:
        return [*(generator.randrange(2, VOCABULARY) for _ in range(length - 1)), 1]

    sources = [ids(generator.randint(2, 12)) for _ in range(sentences)]
    targets = [ids(generator.randint(1, 14)) for _ in range(sentences)]
    return datasets.Dataset.from_dict({
        "source": [""] * sentences,
        "target": [""] * sentences,
        "source_ids": sources,
        "target_ids": targets,
        "source_tokens": [len(row) for row in sources],
        "target_tokens": [len(row) for row in targets],
    })  # fmt: skip


def make_model(dropout: float = 0.0, layer_drop: float = 0.0, feed_forward: str = "relu") -> T5ForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = t5_config(VOCABULARY, encoder_layers=2, decoder_layers=2, width=16, heads=2, head_width=8,
                           feed_forward_width=24, dropout=dropout)  # fmt: skip
        config = T5Config(**{**config.to_dict(), "feed_forward_proj": feed_forward})
        return use_layer_drop(T5ForConditionalGeneration(config), layer_drop)


@pytest.fixture
def make_training(tmp_path: Path) -> Callable[..., Training]:
    """A run over random pairs; `schedule` changes single values of a short schedule."""

    def make(*, sentences: int = 12, dropout: float = 0.0, layer_drop: float = 0.0, feed_forward: str = "relu",
             folder: str = "run", engine: Engine = ONE_PART,
             validate: Callable[[Any], Mapping[str, float]] = lambda _model: {"bleu": 1.0},
             callbacks: Sequence[TrainerCallback] = (), monitor: Monitor | None = None,
             **schedule: Any) -> Training:  # fmt: skip
        values = {"epochs": 1, "batch_size": 4, "gradient_accumulation": 1, "learning_rate": 0.01,
                  "weight_decay": 0.01, "max_sequence_length": 32, "warmup_ratio": 0.0, "evaluations": 1}  # fmt: skip
        recorder = Recorder()
        training = Training(None, recorder)  # type: ignore[arg-type]

        def save(model: Any, scores: Mapping[str, float]) -> None:
            training.saved.append((scores, {name: w.detach().clone() for name, w in model.named_parameters()}))

        training.trainer = GoldTrainer(
            make_model(dropout, layer_drop, feed_forward), make_rows(sentences), Schedule(**{**values, **schedule}),
            tmp_path / folder, validate, save_best=save, callbacks=[recorder, *callbacks], monitor=monitor,
            engine=engine,
        )  # fmt: skip
        training.trainer.micro_batches, training.trainer.parts, training.trainer.dtypes = [], [], set()
        return training

    return make
