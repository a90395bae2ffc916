"""`TranslationTrainer`: what teacher training and distillation have in common.

The Hugging Face Trainer keeps its loop, resume, logging and distributed training. Overridden are the batches
(packed), the step (parts of a batch side by side where the fused kernels run), the loss (one sum over the tokens of the
whole effective batch, so that any cut gives the same gradient) and the evaluation (translations are scored).
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

from mtdistill.data.batches import Batches, LengthBucketBatches, PackedBatch, PackedRows, token_lengths
from mtdistill.health.monitor import GoBack, Monitor
from mtdistill.health.outputs import Outputs
from mtdistill.modeling.packed import supports
from mtdistill.modeling.padded import teacher_forced
from mtdistill.training.callbacks import BestBy, BestModel, EpochOrder, LogBeforeCheckpoint, MovingAverage
from mtdistill.training.checkpoints import Checkpoints
from mtdistill.training.engine import ONE_THREAD, Engine, Workers
from mtdistill.training.fused_updates import FusedUpdates
from mtdistill.training.interruption import Interrupted, Interruption
from mtdistill.training.optimizer import build_optimizer
from mtdistill.training.phases import PhaseTimes
from mtdistill.training.schedule import Schedule
from mtdistill.training.since_log import SinceLog, not_finite
from mtdistill.training.watch import Watch

Validate = Callable[[T5ForConditionalGeneration], Mapping[str, float]]


class TranslationTrainer(FusedUpdates, Seq2SeqTrainer):  # type: ignore[misc]
    """Trains a T5 on tokenised pairs; subclasses define the loss, from hidden states and from logits.

    Args:
        model: trained in place.
        dataset: rows as `mtdistill.data.prepared` writes them.
        schedule: how long and how fast.
        folder: where checkpoints go.
        validate: scores of the model by name, such as ``bleu``; called with the averaged weights where there are any,
            in evaluation mode, at most ``schedule.evaluations`` times and always after the last update.
        best_by: which of those scores chooses the best model, and how.
        save_best: called with the best model so far, whenever there is a new one.
        callbacks: more Trainer callbacks, such as the progress display.
        monitor: watches every update and evaluation, and has training go back where it must; None: only a loss that is
            not finite ends training. Several processes are not watched, since they would have to agree.
        engine: how updates are computed; without the fused kernels where they do not cover the model, or where several
            processes share the work.
        keep_engine: told when another engine is chosen for all updates to come, so that a resumed run can take it.
    """

    control: Any  # of the Trainer, which has no types

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        dataset: Dataset,
        schedule: Schedule,
        folder: Path,
        validate: Validate,
        *,
        best_by: BestBy = BestBy("bleu"),  # noqa: B008 - frozen
        save_best: Callable[[T5ForConditionalGeneration, Mapping[str, float]], None] = lambda _model, _scores: None,
        callbacks: Sequence[TrainerCallback] = (),
        monitor: Monitor | None = None,
        engine: Engine = ONE_THREAD,
        keep_engine: Callable[[Engine], None] = lambda _engine: None,
    ) -> None:
        self.schedule, self.validate, self.keep_engine = schedule, validate, keep_engine
        self.average = MovingAverage(schedule.ema_decay) if schedule.ema_decay else None
        self._since_log, self.phases = SinceLog(), PhaseTimes()
        self.interruption, self.checkpoints = Interruption(), Checkpoints(schedule.checkpoints_kept)
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
        alone, updates = processes == 1, schedule.updates(len(dataset), processes)
        every = max(1, math.ceil(updates / schedule.evaluations))
        self.engine = engine if alone and supports(model) else replace(engine, fused=False)
        # The fused way cuts the whole effective batch as it likes; accumulation is left to the Trainer otherwise.
        together = schedule.gradient_accumulation if self.engine.fused else 1
        self._batches = (  # the kernels need no padding, so that lengths may be mixed
            Batches(len(dataset), schedule.batch_size * together, schedule.seed, schedule.per_epoch)
            if self.engine.fused
            else LengthBucketBatches(token_lengths(dataset), schedule.batch_size, schedule.seed, schedule.per_epoch)
        )
        self.watch = Watch(self, model, monitor) if monitor and alone else None
        optimizer = build_optimizer(
            model, schedule.optimizer, schedule.learning_rate, schedule.weight_decay,
            schedule.embedding_learning_rate_ratio, self.engine.dtype, self.side_by_side,
        )  # fmt: skip
        super().__init__(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(folder),
                num_train_epochs=schedule.epochs,
                per_device_train_batch_size=schedule.batch_size * together,
                gradient_accumulation_steps=schedule.gradient_accumulation // together,
                max_grad_norm=schedule.max_gradient_norm,
                lr_scheduler_type="cosine",
                warmup_steps=schedule.warmup_ratio if updates * schedule.warmup_ratio > 1 else 0,  # it begins at 0
                eval_strategy="steps",
                eval_steps=every,
                save_strategy="steps",
                save_steps=every,
                logging_steps=max(1, min(25, updates // 20)),
                report_to=[],  # the pipeline brings a TensorBoard callback that writes where the run folder says
                metric_for_best_model=best_by.score,
                greater_is_better=True,
                seed=schedule.seed,
                remove_unused_columns=False,
                disable_tqdm=True,
                use_cpu=True,  # where everything here was measured; targets, probe and kernels are on it too
                dataloader_pin_memory=False,
            ),
            train_dataset=PackedRows(dataset, schedule.max_sequence_length),
            eval_dataset=dataset,  # never read: `evaluate` translates instead; the Trainer insists on one
            data_collator=lambda batch: batch,  # `PackedRows` has packed it already
            optimizers=(optimizer, None),
            callbacks=[
                EpochOrder(self._batches),
                *([self.average] if self.average else []),
                BestModel(best_by, save_best, self.average),
                *([self.watch] if self.watch else []),
                *callbacks,
                self.interruption,
                LogBeforeCheckpoint(),
                self.checkpoints,
            ],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the tokens of the whole effective batch
        self.loss_is_scaled_for_ga = True  # compute_loss divides by that count
        self._start_id: int = model.config.decoder_start_token_id
        self._workers: Workers | None = None
        self.update_loss = 0.0  # of the update that is being computed, all its batches together
        self.use_engine(self.engine)
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        encoder = sum(weight.numel() for weight in model.encoder.parameters()) - model.shared.weight.numel()
        self._costs = float(encoder), float(sum(weight.numel() for weight in model.parameters()) - encoder)

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """Summed losses of some sentences by name; ``total`` is what is minimised, the others are only shown.

        Args:
            states: (target tokens, width) that the output head reads; logits are states @ head.T.
            head: (vocabulary, width).
            batch: the sentences.
        """
        raise NotImplementedError

    def losses_from_logits(self, logits: Tensor, states: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """The same, plainly, from (target tokens, vocabulary) logits and the states before their scale."""
        raise NotImplementedError

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the end; after a failure or an interrupt callbacks are told too, so that none keeps the terminal.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last update is on disk.
            CheckpointError: what is to be resumed cannot be read.
            Stop: the monitor found training beyond recovery.
        """
        self.interruption.received = None
        try:
            while True:
                try:
                    with self.engine_threads(), self.checkpoints.reading(resume_from_checkpoint):
                        result = super().train(resume_from_checkpoint=resume_from_checkpoint)
                    if self.interruption.received is not None:
                        raise Interrupted(self.interruption.received)
                    return result
                except GoBack as request:
                    assert self.watch is not None
                    resume_from_checkpoint = str(self.watch.go_back(request))
                    if self.interruption.received is not None:  # training would begin to listen anew
                        raise Interrupted(self.interruption.received) from None
        except BaseException:
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise

    def get_train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        """Batches whose order depends on seed and epoch only."""
        return self.accelerator.prepare(  # type: ignore[no-any-return]
            DataLoader(self.train_dataset, batch_sampler=self._batches, collate_fn=self.data_collator)
        )

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Gradients of one batch and its mean loss; the parts of the batch run side by side in the fused kernels."""
        if self._workers is None:
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        self._since_log.start()
        if not model.training:  # saying so again to every module takes 0.2 ms
            model.train()
        batch = PackedBatch(**inputs)
        gradients, losses = self.gradients_within_memory(batch)
        self._note_losses(losses, len(batch.labels), len(batch.labels))
        for name, gradient in gradients.items():
            weight = self._trained[name]
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
        return torch.tensor(losses["total"])

    def _note_losses(self, means: Mapping[str, float], tokens: int, count: int) -> None:
        """Count the losses of some sentences in, for the log and for the judgement of this update."""
        if self.watch is not None:
            self.update_loss += means["total"]
        if math.isfinite(means["total"]):
            self._since_log.add(means, tokens, count)
        elif self.watch is None:
            raise not_finite(means["total"], self.state.global_step + 1)

    def clip_gradients(self) -> Tensor:
        """Cut the gradient to what is allowed; an update that must not be made loses it. Gives the norm before."""
        weights = [weight for weight in self._trained.values() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        limit = self.watch.limit(norm.item()) if self.watch else self.schedule.max_gradient_norm
        if limit is None:
            self.model.zero_grad()
        elif not norm <= limit:  # most updates are below it, and multiplying by 1 takes as long as by less
            torch.nn.utils.clip_grads_with_norm_(weights, limit, norm)
        return norm

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        return self.clip_gradients()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean loss per target token, over all tokens of the update and of every process; without the kernels."""
        self._since_log.start()
        batch = PackedBatch(**inputs)
        count = len(batch.labels) if num_items_in_batch is None else int(num_items_in_batch)
        with self._precision():
            sums = self.losses_from_logits(*teacher_forced(model, batch, start_id=self._start_id), batch)
        means = {name: value.item() / count for name, value in sums.items()}
        self._note_losses(means, len(batch.labels), count)
        # Every process holds its own tokens while the gradient is averaged over processes.
        loss: Tensor = sums["total"] / count * self.accelerator.num_processes
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each part of the loss, and the target tokens per second, since the last log."""
        if "loss" in logs and self._since_log.started is not None:
            logs = {**logs, **self._since_log.figures()}
            self._since_log = SinceLog(started=time.monotonic())
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Scores of `validate`, for the averaged weights where there are any."""
        began = time.monotonic()
        model: T5ForConditionalGeneration = self.accelerator.unwrap_model(self.model)
        model.eval()  # the Trainer returns to training mode before every step
        with self.average.applied_to(model) if self.average else contextlib.nullcontext():
            scores = {f"{metric_key_prefix}_{name}": value for name, value in self.validate(model).items()}
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        if self.watch:
            self.watch.monitor.evaluated(self.state.global_step, *self.evaluated())
        if self._since_log.started is not None:
            self._since_log.started += time.monotonic() - began  # not training time
        return scores

    def evaluated(self) -> tuple[Outputs | None, Any]:
        """What the monitor judges after an evaluation: translations, and figures of the objective."""
        return None, None

    def save_checkpoint(self) -> None:
        """A checkpoint of this moment, with all that callbacks add to it."""
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self.engine.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16)
