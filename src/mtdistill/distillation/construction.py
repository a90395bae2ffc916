"""A student out of teacher, settings and data, checked before it is trained.

Imported by its neighbours; imports config, data, modeling, student and teacher.
"""

from dataclasses import dataclass
from functools import partial

from transformers import T5ForConditionalGeneration

from mtdistill.config import RunConfig
from mtdistill.data.batches import PackedRows, token_lengths
from mtdistill.data.prepared import PreparedData
from mtdistill.errors import StudentError
from mtdistill.messages import tr
from mtdistill.modeling import use_dropout
from mtdistill.student.blueprint import Blueprint
from mtdistill.student.checks import StartCheck, check_student_start
from mtdistill.student.moments import Batch, measure_moments
from mtdistill.student.slicing import StudentBuild, build_student, shape_of
from mtdistill.teacher.loading import Teacher

# Twice as many bring the start closer by less than a hundredth, half as many take it as far away (docs/experiments.md).
MOMENT_SENTENCES = 2000
START_SENTENCES = 100
_BATCH = 50


@dataclass(frozen=True)
class StartedStudent:
    """A student before its first update, and how close it is to the teacher (None for random weights)."""

    build: StudentBuild
    start: StartCheck | None


def plan_student(config: RunConfig, teacher: Teacher) -> Blueprint:
    """The blueprint that the settings ask for.

    Raises:
        StudentError: the shape does not fit the teacher, or could not be used by others.
    """
    shape, student = shape_of(teacher.model), config.student
    plan = partial(
        Blueprint.plan,
        shape,
        width=student.resolve_width(shape.width),
        encoder_layers=_at_most(student.encoder_layers, shape.encoder_layers),
        decoder_layers=_at_most(student.decoder_layers, shape.decoder_layers),
        kept_encoder_layers=student.kept_encoder_layers,
        kept_decoder_layers=student.kept_decoder_layers,
        heads=_at_most(student.heads, shape.heads),
        feed_forward_width=_at_most(student.d_ff, shape.feed_forward_width),
    )
    blueprint = plan(ties_inputs=bool(student.tie_inputs))
    keeps_all = blueprint.width == shape.width  # directions; then one basis serves both stacks
    if student.tie_inputs is None and (keeps_all or blueprint.compression_ratio < config.expected.compression_ratio):
        blueprint = plan(ties_inputs=True)
    encoder, decoder = len(blueprint.kept_encoder_layers), len(blueprint.kept_decoder_layers)
    if decoder > encoder and shape.decoder_layers <= shape.encoder_layers:
        # Its generate() makes room for as many decoder layers as the encoder has, and fails at the next one (5.23).
        raise StudentError(
            tr(
                en=f"transformers cannot translate with this student: got {encoder} encoder and {decoder} decoder layers, "
                "accepted no more decoder layers than encoder layers. Raise student.encoder_layers, or lower "
                "student.decoder_layers.",
                zh=f"transformers 无法用这种学生模型翻译：编码器 {encoder} 层，解码器 {decoder} 层，解码器层数不能多于编码器。"
                "请调大 student.encoder_layers，或调小 student.decoder_layers。",
            )
        )
    return blueprint


def _at_most(wanted: int | None, there: int) -> int | None:
    return None if wanted is None else min(wanted, there)


def rehearsal_student(config: RunConfig, teacher: Teacher) -> T5ForConditionalGeneration:
    """A student of these settings with random weights: their values do not change what an update costs."""
    model = build_student(teacher.model, plan_student(config, teacher), None, "random").model
    return use_dropout(model, config.training.dropout)


def start_student(config: RunConfig, teacher: Teacher, data: PreparedData) -> StartedStudent:
    """Build the student and check that it starts closer to the teacher than noise does.

    Raises:
        StudentError: the shape does not fit the teacher, or the start check failed.
    """
    blueprint, name, seed = plan_student(config, teacher), config.student.initialisation, config.training.seed
    limit = max(config.training.max_sequence_length, 32)
    moments = (
        measure_moments(teacher.model, first_batches(data, "train", MOMENT_SENTENCES, limit))
        if name != "random"
        else None
    )
    build = build_student(teacher.model, blueprint, moments, name, seed)
    use_dropout(build.model, config.training.dropout)
    if moments is None:
        return StartedStudent(build, None)
    noise = build_student(teacher.model, blueprint, None, "random", seed)
    batches = first_batches(data, "validation", START_SENTENCES, limit)
    return StartedStudent(build, check_student_start(build.model, teacher.model, batches, noise.model))


def first_batches(data: PreparedData, split: str, sentences: int, max_tokens: int) -> list[Batch]:
    """The first sentences of a split as padded tensors, those of like lengths together: padding costs as much as text."""
    dataset = data.split(split)
    dataset = dataset.select(range(min(sentences, len(dataset))))
    rows, order = PackedRows(dataset, max_tokens), token_lengths(dataset).max(axis=1).argsort(kind="stable").tolist()
    return [rows.batch(order[first : first + _BATCH]).padded() for first in range(0, len(order), _BATCH)]
