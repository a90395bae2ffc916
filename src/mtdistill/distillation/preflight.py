"""What is checked before hours are spent: that teacher, data, student and machine fit each other.

Imported by distillation.materials and distillation.student_run; imports config, data, decoding, evaluation, health,
modeling, teacher, training and distillation.trainer.
"""

from collections.abc import Iterator

import datasets
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.config import TeacherConfig
from mtdistill.data.batches import PackedBatch, PackedRows
from mtdistill.data.prepared import PreparedData, tokenizer_fingerprint
from mtdistill.decoding import CTranslate2Translator
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import DataError, TeacherError
from mtdistill.evaluation.quality import corpus_quality
from mtdistill.health import rows as pairs
from mtdistill.health.finding import Figures, Finding, Severity
from mtdistill.health.journal import Journal
from mtdistill.health.wording import explain
from mtdistill.messages import tr
from mtdistill.modeling.packed import decoder_states
from mtdistill.teacher.loading import Teacher
from mtdistill.teacher.targets import TargetSource
from mtdistill.text import base_language
from mtdistill.training.engine import free_memory_bytes
from mtdistill.training.good_states import IN_MEMORY, state_bytes

CHECKED_SENTENCES = 100
TESTED_SENTENCES = 16
WHOLE_SENTENCE = 128  # tokens: halves of sentences may well fit others
GIB = 2**30
# What a process with the teacher and the libraries takes, and what a target token of a batch takes on top.
BASE_BYTES, BYTES_PER_TOKEN = 1 * GIB, 60_000


def check_teacher(teacher: Teacher, data: PreparedData, config: TeacherConfig, threads: int) -> float:
    """Refuse a teacher that does not fit the data or does not translate.

    Args:
        teacher: model and tokenizer.
        data: prepared with the teacher's tokenizer.
        config: holds the lowest accepted BLEU.
        threads: CPU threads for decoding.

    Returns:
        BLEU of the teacher on the first `CHECKED_SENTENCES` validation sources, greedy.

    Raises:
        TeacherError: other languages, another tokenizer, or a BLEU that is too low.
    """
    pairs = [
        (teacher.source_lang, data.source_lang),
        (teacher.target_lang, data.target_lang),
    ]
    if any(own and base_language(own) != base_language(wanted) for own, wanted in pairs):
        raise TeacherError(
            tr(
                en=f"this teacher translates other languages: got {teacher.source_lang}-{teacher.target_lang}, the data is "
                f"{data.source_lang}-{data.target_lang}. Use other data, or train a teacher for it: mtdistill teacher train",
                zh=f"教师模型的语言方向不符：教师为 {teacher.source_lang}-{teacher.target_lang}，数据为 "
                f"{data.source_lang}-{data.target_lang}。请更换数据，或为它训练教师模型：mtdistill teacher train",
            )
        )
    if tokenizer_fingerprint(teacher.tokenizer) != tokenizer_fingerprint(data.tokenizer):
        raise TeacherError(
            tr(
                en=f"the data was prepared with another tokenizer than the teacher's: {data.folder}. Prepare it again.",
                zh=f"数据所用的分词器与教师模型的不同：{data.folder}。请重新准备数据。",
            )
        )
    sentences = data.evaluation_set("validation", CHECKED_SENTENCES)
    translator = CTranslate2Translator.from_model(
        teacher.model, teacher.tokenizer, source_lang=data.source_lang, threads=threads
    )
    hypotheses = [translation.text for translation in translator.translate(sentences.sources)]
    bleu = corpus_quality(hypotheses, sentences.references, data.target_lang).bleu
    if bleu < config.min_bleu:
        example = f"{sentences.sources[0]} → {hypotheses[0]}"
        raise TeacherError(
            tr(
                en=f"the teacher does not translate this data: got BLEU {bleu:.1f} on {len(sentences)} validation sentences,"
                f" accepted at least {config.min_bleu:g} (for example: {example}). Check that source and target are not "
                "swapped and that it is the right teacher, or lower teacher.min_bleu.",
                zh=f"教师模型无法翻译这些数据：在 {len(sentences)} 个验证句上 BLEU 为 {bleu:.1f}，至少应为 "
                f"{config.min_bleu:g}（例如：{example}）。请检查源语言和目标语言是否颠倒、教师模型是否正确，"
                "或调低 teacher.min_bleu。",
            )
        )
    return bleu


def check_pairs(
    targets: TargetSource,
    teacher: T5ForConditionalGeneration,
    rows: datasets.Dataset,
    max_tokens: int,
    journal: Journal,
) -> None:
    """Look for pairs that do not belong together, labels that are shifted, padding, repetitions.

    Args:
        targets: the live teacher.
        teacher: names the padding.
        rows: what is trained on.
        max_tokens: where sentences are cut.
        journal: everything found goes there.

    Raises:
        DataError: training on these rows would be of no use; the message says why.
    """

    def log_probs(batch: PackedBatch) -> Tensor:
        return torch.log_softmax((targets.states(batch) @ targets.head.T).float(), dim=-1)

    def findings() -> Iterator[tuple[str, Severity, Figures | None]]:
        yield "padding_in_data", "failure", pairs.padding_in_data(rows, teacher.config.pad_token_id)
        alike = pairs.duplicate_data(rows)
        yield "duplicate_data", "failure" if alike and alike["distinct"] < pairs.HOPELESS_DISTINCT else "warning", alike
        yield "many_truncated", "warning", pairs.many_truncated(rows, max_tokens)
        if len(rows) >= pairs.FEW_ROWS:
            scores = pairs.judge_pairs(log_probs, rows, max(max_tokens, WHOLE_SENTENCE))
            # In this order: swapped languages and shifted labels make pairs look shuffled too.
            yield "swapped_languages", "failure", pairs.swapped_languages(scores)
            yield "misaligned_labels", "failure", pairs.misaligned_labels(scores)
            yield "shuffled_pairs", "failure", pairs.shuffled_pairs(scores)

    for check, severity, figures in findings():
        if figures is not None:
            _act(Finding(check, severity, 0, figures), journal)


def check_training(trainer: DistillationTrainer, rows: datasets.Dataset, free_disk: int, journal: Journal) -> None:
    """Look at the first step of a training before it is made: loss, balance, memory, disk.

    Args:
        trainer: with its student as it begins.
        rows: what is trained on.
        free_disk: bytes, where the run is written.
        journal: everything found goes there.

    Raises:
        DataError: training would go wrong for sure.
    """
    model, schedule = trainer.model, trainer.schedule
    parameters = sum(weight.numel() for weight in model.parameters())
    tokens = schedule.batch_size * schedule.gradient_accumulation * schedule.max_sequence_length
    states = (1 + IN_MEMORY) * state_bytes(parameters, averaged=schedule.ema_decay is not None)
    gradients = 4 * parameters * trainer.engine.parts
    wanted = BASE_BYTES + states + gradients + BYTES_PER_TOKEN * min(tokens, trainer.engine.max_part_tokens)
    if (free := free_memory_bytes()) is not None and free < wanted:
        _act(Finding("little_memory", "warning", 0, {"free_gib": free / GIB, "wanted_gib": wanted / GIB}), journal)
    disk = parameters * 4 * (3 * (schedule.checkpoints_kept + 1) + 2)
    if free_disk < disk:
        figures = {"free_mib": free_disk / 2**20, "wanted_mib": disk / 2**20}
        _act(Finding("little_disk", "failure", 0, figures), journal)
    if trainer.engine.fused:
        packed = PackedRows(rows, schedule.max_sequence_length)
        batch = packed.batch(list(range(min(len(rows), TESTED_SENTENCES))))

        @torch.no_grad()
        def loss_of(batch: PackedBatch) -> float:
            states = decoder_states(model, batch, torch.float32)
            return trainer.losses_from_states(states.to(trainer.engine.dtype), model.shared.weight, batch)[
                "total"
            ].item()

        was_training = model.training
        model.eval()
        if figures_ := pairs.padding_in_loss(loss_of, batch):
            _act(Finding("padding_in_loss", "failure", 0, figures_), journal)
        model.train(was_training)


def _act(finding: Finding, journal: Journal) -> None:
    """Write a finding down; one that makes training pointless ends it."""
    journal.record(finding)
    if finding.severity == "failure":
        raise DataError(explain(finding))
