"""`TranslationTrainer`: what teacher training and distillation have in common.

The Hugging Face Trainer keeps its loop, resume, logging and distributed training. Overridden are the batches (length
buckets), the loss (one sum over the tokens of the whole effective batch, so that any cut into micro-batches gives the
same gradient) and the evaluation (translations are scored, not the loss alone). Imported by teacher and distillation.
"""

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5ForConditionalGeneration,
    TrainerCallback,
)

from mtdistill.data.batches import IGNORED_LABEL, Collator, LengthBucketBatches, token_lengths
from mtdistill.errors import TrainingFailedError
from mtdistill.messages import tr
from mtdistill.training.callbacks import BestModel, CompleteMarker, MovingAverage
from mtdistill.training.optimizer import OptimizerName, build_optimizer

Validate = Callable[[T5ForConditionalGeneration], Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained; see `mtdistill.config.TrainingConfig` for units and ranges."""

    epochs: int
    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    weight_decay: float
    max_sequence_length: int
    optimizer: OptimizerName = "adamw"
    embedding_learning_rate_ratio: float = 1.0
    warmup_ratio: float = 0.1
    max_gradient_norm: float = 1.0
    ema_decay: float | None = None
    evaluations: int = 5
    checkpoints_kept: int = 2
    seed: int = 1
    bfloat16: bool = False

    def updates(self, sentences: int) -> int:
        """Optimizer steps over the whole run."""
        micro_batches = math.ceil(sentences / self.batch_size)
        return self.epochs * math.ceil(micro_batches / self.gradient_accumulation)


class TranslationTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains a T5 on tokenised pairs; subclasses define `token_losses`.

    Args:
        model: trained in place.
        dataset: rows as `mtdistill.data.prepared` writes them.
        schedule: how long and how fast.
        folder: where checkpoints go.
        validate: scores of the current model by name, such as ``bleu``; called ``schedule.evaluations`` times.
        best_metric: which of those scores chooses the best model; larger is better.
        save_best: called with the best model so far, whenever there is a new one.
        callbacks: more Trainer callbacks, such as the progress display.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        dataset: Dataset,
        schedule: Schedule,
        folder: Path,
        validate: Validate,
        *,
        best_metric: str = "bleu",
        save_best: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None] = lambda _model, _scores: None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.schedule, self.validate = schedule, validate
        self.average = MovingAverage(schedule.ema_decay) if schedule.ema_decay else None
        self._parts: dict[str, float] = defaultdict(float)
        self._logged_update = 0
        self._tokens = 0
        self._logged_at = time.monotonic()
        updates = schedule.updates(len(dataset))
        every = max(1, math.ceil(updates / schedule.evaluations))
        super().__init__(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(folder),
                num_train_epochs=schedule.epochs,
                per_device_train_batch_size=schedule.batch_size,
                gradient_accumulation_steps=schedule.gradient_accumulation,
                max_grad_norm=schedule.max_gradient_norm,
                lr_scheduler_type="cosine",
                warmup_steps=schedule.warmup_ratio,
                eval_strategy="steps",
                eval_steps=every,
                save_strategy="steps",
                save_steps=every,
                save_total_limit=schedule.checkpoints_kept,
                logging_steps=max(1, min(25, updates // 20)),
                # The Trainer would otherwise hide a non-finite loss behind the last mean.
                logging_nan_inf_filter=False,
                report_to=[],  # the pipeline brings a TensorBoard callback that writes where the run folder says
                metric_for_best_model=best_metric,
                greater_is_better=True,
                seed=schedule.seed,
                remove_unused_columns=False,
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=torch.cuda.is_available(),
            ),
            train_dataset=dataset,
            eval_dataset=dataset,  # never read: `evaluate` translates instead; the Trainer insists on one
            data_collator=Collator(schedule.max_sequence_length),
            optimizers=(
                build_optimizer(
                    model,
                    schedule.optimizer,
                    schedule.learning_rate,
                    schedule.weight_decay,
                    schedule.embedding_learning_rate_ratio,
                ),
                None,
            ),
            callbacks=[
                *([self.average] if self.average else []),
                BestModel(best_metric, save_best, self.average),
                *callbacks,
                CompleteMarker(),
            ],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the tokens of the whole effective batch
        self.loss_is_scaled_for_ga = True  # compute_loss divides by that count

    def token_losses(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Summed losses of one micro-batch by name; ``total`` is what is minimised, the others are only shown."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        """Length-bucketed batches whose order depends on seed and epoch only."""
        batches = LengthBucketBatches(
            token_lengths(self.train_dataset), self.args.per_device_train_batch_size, self.schedule.seed
        )
        return self.accelerator.prepare(  # type: ignore[no-any-return]
            DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean loss per target token, over all tokens of the update and of every process."""
        tokens = (inputs["labels"] != IGNORED_LABEL).sum()
        count = tokens if num_items_in_batch is None else num_items_in_batch
        with self._precision():
            sums = self.token_losses(model, inputs)
        self._tokens += int(tokens)
        for name, value in sums.items():
            self._parts[name] += (value.detach() / count).item()
        if not math.isfinite(self._parts["total"]):
            raise TrainingFailedError(tr(
                en=f"the loss is not finite: got {self._parts['total']} at update {self.state.global_step + 1}. "
                "Lower training.learning_rate; the best model so far is kept.",
                zh=f"损失不是有限值：第 {self.state.global_step + 1} 次更新时为 {self._parts['total']}。"
                "请降低 training.learning_rate；目前最好的模型已保留。",
            ))
        # Every process holds its own tokens while the gradient is averaged over processes.
        return sums["total"] / count * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each part of the loss, and the target tokens per second, since the last log."""
        updates = self.state.global_step - self._logged_update
        if "loss" in logs and updates > 0:
            logs |= {f"{name}_loss": value / updates for name, value in self._parts.items() if name != "total"}
            logs["tokens_per_second"] = self._tokens / (time.monotonic() - self._logged_at)
            self._parts.clear()
            self._logged_update, self._tokens, self._logged_at = self.state.global_step, 0, time.monotonic()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Scores of `validate`, for the averaged weights where there are any."""
        started = time.monotonic()
        model: T5ForConditionalGeneration = self.accelerator.unwrap_model(self.model)
        with self.average.applied_to(model) if self.average else contextlib.nullcontext():
            scores = {f"{metric_key_prefix}_{name}": value for name, value in self.validate(model).items()}
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        self._logged_at += time.monotonic() - started  # not training time
        return scores

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self.schedule.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16)


def teacher_forced_logits(model: nn.Module, inputs: Mapping[str, Tensor], pad_id: int = 0) -> Tensor:
    """(batch, target_len, vocabulary) logits of the next token, given the gold tokens before it."""
    labels = inputs["labels"]
    shifted = torch.cat([labels.new_full((len(labels), 1), pad_id), labels[:, :-1]], dim=1)
    return model(  # type: ignore[no-any-return]
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        decoder_input_ids=shifted.masked_fill(shifted == IGNORED_LABEL, pad_id),
        use_cache=False,
    ).logits
