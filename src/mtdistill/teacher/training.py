"""Training a teacher: a small T5 that is made to be sliced.

Two choices serve the students that will be cut out of it (docs/decisions/0004-teacher.md): the decoder's final norm
gain is frozen, which makes the tied output head exact under a rotation of the residual stream, and there is no label
smoothing, so that softened distributions still say which wrong words are nearly right.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration, TrainerCallback

from mtdistill.data.batches import PackedBatch
from mtdistill.data.prepared import PreparedData
from mtdistill.display import Display
from mtdistill.errors import TeacherError
from mtdistill.files import replacing_folder, write_atomically
from mtdistill.messages import tr
from mtdistill.modeling import load_model, t5_config, use_dropout, use_layer_drop
from mtdistill.modeling.folder import CHECKSUMS, RECORD_FILE, checksums
from mtdistill.training.beginning import note_beginning
from mtdistill.training.checkpoints import latest_checkpoint, whole_checkpoints_in
from mtdistill.training.engine import ONE_THREAD, Engine
from mtdistill.training.fused_loss import fused_loss
from mtdistill.training.schedule import Schedule
from mtdistill.training.trainer import TranslationTrainer, Validate

BEST_FOLDER = "best"


@dataclass(frozen=True)
class TeacherRecipe:
    """Shape and training of a teacher; the defaults are those of the shipped one (docs/experiments.md)."""

    encoder_layers: int = 6
    decoder_layers: int = 4
    width: int = 256
    heads: int = 8
    head_width: int = 32
    feed_forward_width: int = 1024
    dropout: float = 0.15
    layer_drop: float = 0.15
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            epochs=13,
            batch_size=128,
            gradient_accumulation=1,
            learning_rate=2e-3,
            weight_decay=0.05,
            max_sequence_length=32,
            optimizer="muon",
            # Rare rows of the table see few gradients; one rate for all was about four times slower.
            embedding_learning_rate_ratio=5.0,
            warmup_ratio=0.05,
            ema_decay=0.998,
            evaluations=13,
        )
    )


class TeacherTrainer(TranslationTrainer):
    """Cross-entropy on the gold tokens."""

    def losses_from_states(self, states: Tensor, head: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """`total`: summed cross-entropy in nats."""
        return {"total": fused_loss(states, head, batch.labels).total}

    def losses_from_logits(self, logits: Tensor, states: Tensor, batch: PackedBatch) -> Mapping[str, Tensor]:
        """The same."""
        return {"total": nn.functional.cross_entropy(logits.float(), batch.labels, reduction="sum")}


def train_teacher(
    data: PreparedData,
    recipe: TeacherRecipe,
    folder: Path,
    validate: Validate,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    engine: Engine = ONE_THREAD,
    keep_engine: Callable[[Engine], None] = lambda _engine: None,
    display: Display | None = None,
) -> Path:
    """Train a teacher, or go on where an interrupted training stopped.

    Args:
        data: prepared with a tokenizer of its own.
        recipe: shape and schedule.
        folder: gets `best/` (Hugging Face folder with tokenizer and training record) and `checkpoint-*/`.
        validate: scores of a model on validation sentences; "bleu" chooses the best.
        resume: continue from the newest whole checkpoint instead of starting anew.
        callbacks: more Trainer callbacks.
        engine: how updates are computed.
        keep_engine: told the engine, for a resumed training to take.
        display: where is said that a damaged checkpoint is left out.

    Returns:
        The folder of the best model.

    Raises:
        TeacherError: the folder holds a training and `resume` was not asked for, or a finished one without checkpoints.
        CheckpointError: there is nothing sound to resume from, or a training of another recipe or text.
    """
    best = folder / BEST_FOLDER
    checkpoint = latest_checkpoint(folder, display) if resume else None
    if not resume and (best.exists() or whole_checkpoints_in(folder)):
        raise TeacherError(
            tr(
                en=f"this folder holds a teacher already: got {folder}. Add --resume to go on with its training, or "
                "choose another --output.",
                zh=f"该文件夹中已有教师模型：{folder}。请加 --resume 继续训练，或换一个 --output。",
            )
        )
    if resume and checkpoint is None and _is_finished(best):
        raise TeacherError(
            tr(
                en=f"this teacher is finished and its checkpoints are gone: got {best}. To train one anew, choose another "
                "--output.",
                zh=f"该教师模型已训练完成，检查点已不存在：{best}。如需重新训练，请换一个 --output。",
            )
        )
    note_beginning(folder, {**asdict(recipe), "data": data.manifest.identity}, resumed=checkpoint is not None)
    keep_engine(engine)
    torch.manual_seed(recipe.schedule.seed)
    tokenizer = data.tokenizer
    model = T5ForConditionalGeneration(
        t5_config(
            len(tokenizer),
            encoder_layers=recipe.encoder_layers,
            decoder_layers=recipe.decoder_layers,
            width=recipe.width,
            heads=recipe.heads,
            head_width=recipe.head_width,
            feed_forward_width=recipe.feed_forward_width,
            dropout=recipe.dropout,
            max_tokens=recipe.schedule.max_sequence_length,
        )
    )
    model.decoder.final_layer_norm.weight.requires_grad_(requires_grad=False)
    use_dropout(use_layer_drop(model, recipe.layer_drop), recipe.dropout)

    def save_best(best_model: T5ForConditionalGeneration, scores: Mapping[str, float]) -> None:
        with replacing_folder(best) as fresh:
            best_model.save_pretrained(str(fresh))
            tokenizer.save_pretrained(str(fresh))
            record = {
                "source_lang": data.source_lang,
                "target_lang": data.target_lang,
                "recipe": asdict(recipe),
                "data": asdict(data.manifest),
                "validation": dict(scores),
                CHECKSUMS: checksums(fresh),
            }
            write_atomically(fresh / RECORD_FILE, json.dumps(record, ensure_ascii=False, indent=2))

    trainer = TeacherTrainer(
        model, data.split("train"), recipe.schedule, folder, validate, save_best=save_best, callbacks=callbacks,
        engine=engine, keep_engine=keep_engine,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    load_model(best)  # the result is only announced when it can be read back
    return best


def _is_finished(best: Path) -> bool:
    """Whether a teacher has been measured on the test split, which is the last that happens to it."""
    try:
        return "test" in json.loads((best / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
