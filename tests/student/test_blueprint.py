import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration

from mtdistill.errors import StudentError
from mtdistill.messages import set_language
from mtdistill.student.blueprint import Blueprint, TeacherShape, spaced_layers
from mtdistill.student.slicing import build_student, shape_of

SHAPE = TeacherShape(
    vocabulary_size=40, width=24, heads=4, head_width=5, feed_forward_width=32, encoder_layers=3, decoder_layers=2,
    relative_buckets=8, gated=False,
)  # fmt: skip


def config_of(shape: TeacherShape) -> T5Config:
    return T5Config(
        vocab_size=shape.vocabulary_size, d_model=shape.width, num_heads=shape.heads, d_kv=shape.head_width,
        d_ff=shape.feed_forward_width, num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers,
        relative_attention_num_buckets=shape.relative_buckets,
        feed_forward_proj="gated-gelu" if shape.gated else "relu", decoder_start_token_id=0,
    )  # fmt: skip


class TestTeacherShape:
    @pytest.mark.parametrize("gated", [False, True])
    def test_reads_a_configuration(self, gated: bool) -> None:
        shape = dataclasses.replace(SHAPE, gated=gated)
        assert TeacherShape.from_config(config_of(shape)) == shape

    def test_takes_the_ties_from_its_caller(self) -> None:
        shape = TeacherShape.from_config(config_of(SHAPE), ties_head=False, ties_inputs=False)
        assert not shape.ties_head
        assert not shape.ties_inputs


class TestSpacedLayers:
    def test_the_sets_of_make_student(self) -> None:
        assert [spaced_layers(6, n) for n in (1, 2, 3, 4, 6)] == [
            (0,), (0, 5), (0, 2, 5), (0, 1, 3, 5), (0, 1, 2, 3, 4, 5),
        ]  # fmt: skip

    @given(st.integers(2, 48), st.data())
    def test_first_and_last_stay_and_the_gaps_are_even(self, total: int, data: st.DataObject) -> None:
        count = data.draw(st.integers(2, total))
        layers = spaced_layers(total, count)
        gaps = {b - a for a, b in itertools.pairwise(layers)}
        assert len(layers) == count
        assert (layers[0], layers[-1]) == (0, total - 1)
        assert max(gaps) - min(gaps) <= 1
        assert min(gaps) >= 1

    @pytest.mark.parametrize("count", [0, 7])
    def test_impossible_counts_are_refused(self, count: int) -> None:
        with pytest.raises(ValueError, match=rf"count must be in \[1, 6\], got {count}"):
            spaced_layers(6, count)


class TestPlan:
    def test_keeps_everything_by_default(self) -> None:
        plan = Blueprint.plan(SHAPE)
        assert plan == Blueprint.keep_everything(SHAPE)
        assert (plan.width, plan.heads, plan.feed_forward_width) == (24, 4, 32)
        assert (plan.kept_encoder_layers, plan.kept_decoder_layers) == ((0, 1, 2), (0, 1))
        assert plan.keeps_everything
        assert plan.compression_ratio == 1.0

    def test_spreads_a_count_and_obeys_explicit_layers(self) -> None:
        plan = Blueprint.plan(SHAPE, encoder_layers=2, decoder_layers=2, kept_decoder_layers=[1])
        assert plan.kept_encoder_layers == (0, 2)
        assert plan.kept_decoder_layers == (1,)
        assert not plan.keeps_everything

    def test_reports_every_problem_at_once(self) -> None:
        with pytest.raises(StudentError) as caught:
            Blueprint.plan(
                SHAPE, width=25, encoder_layers=9, kept_decoder_layers=[1, 0], heads=0, feed_forward_width=33
            )
        message = str(caught.value)
        for part in (
            "width: got 25, accepted 1 to 24",
            "heads: got 0, accepted 1 to 4",
            "feed_forward_width: got 33, accepted 1 to 32",
            "kept_encoder_layers: got 9 layers (0, 1, 2, 3, 4, 5, 6, 7, 8), accepted at least one, numbers from 0 to 2",
            "kept_decoder_layers: got 2 layers (1, 0)",
        ):
            assert part in message

    def test_reports_in_chinese(self) -> None:
        set_language("zh")
        with pytest.raises(StudentError, match="width：得到 25，可接受 1 到 24"):
            Blueprint.plan(SHAPE, width=25)

    def test_one_table_needs_a_teacher_with_one(self) -> None:
        plan = Blueprint.plan(dataclasses.replace(SHAPE, ties_inputs=False))
        assert not plan.ties_inputs
        with pytest.raises(StudentError, match="ties_inputs: got True, accepted False"):
            dataclasses.replace(plan, ties_inputs=True)

    @pytest.mark.parametrize("layers", [(), (0, 0), (1, 0), (-1,), (2,)])
    def test_impossible_layers_are_refused(self, layers: tuple[int, ...]) -> None:
        with pytest.raises(StudentError, match="kept_decoder_layers"):
            Blueprint.plan(SHAPE, kept_decoder_layers=layers)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("kept_encoder_heads", (0, 4)),
            ("kept_encoder_heads", (0,)),
            ("kept_decoder_heads", (1, 0)),
            ("kept_encoder_units", ((0, 1),)),
            ("kept_encoder_units", ((0, 1), (0, 1), (0,))),
            ("kept_decoder_units", ((0, 1), (0, 32))),
        ],
    )
    def test_impossible_explicit_sets_are_refused(self, field: str, value: object) -> None:
        plan = Blueprint.plan(SHAPE, heads=2, feed_forward_width=2)
        with pytest.raises(StudentError, match=field):
            dataclasses.replace(plan, **{field: value})

    def test_possible_explicit_sets_pass(self) -> None:
        plan = Blueprint.plan(SHAPE, heads=2, feed_forward_width=2)
        dataclasses.replace(plan, kept_encoder_heads=(1, 3), kept_decoder_units=((0, 31), (4, 5)))


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    shape = TeacherShape(
        vocabulary_size=draw(st.integers(8, 20)), width=draw(st.integers(2, 12)), heads=draw(st.integers(1, 3)),
        head_width=draw(st.integers(1, 4)), feed_forward_width=draw(st.integers(1, 9)),
        encoder_layers=draw(st.integers(1, 3)), decoder_layers=draw(st.integers(1, 3)),
        relative_buckets=4, gated=draw(st.booleans()), ties_head=draw(st.booleans()),
        ties_inputs=draw(st.booleans()),
    )  # fmt: skip
    return Blueprint.plan(
        shape, width=draw(st.integers(1, shape.width)), encoder_layers=draw(st.integers(1, shape.encoder_layers)),
        decoder_layers=draw(st.integers(1, shape.decoder_layers)), heads=draw(st.integers(1, shape.heads)),
        feed_forward_width=draw(st.integers(1, shape.feed_forward_width)), ties_inputs=draw(st.booleans()),
    )  # fmt: skip


class TestParameterCount:
    @settings(max_examples=25)
    @given(blueprints())
    def test_equals_that_of_the_real_model(self, plan: Blueprint) -> None:
        teacher = T5ForConditionalGeneration(config_of(plan.teacher))
        for part, tied in (("encoder.embed_tokens", plan.teacher.ties_inputs), ("lm_head", plan.teacher.ties_head)):
            module = teacher.get_submodule(part)
            if not tied:
                module.weight = type(module.weight)(module.weight.clone())
        assert shape_of(teacher) == plan.teacher
        student = build_student(teacher, plan, initialisation="random").model
        assert plan.parameter_count == sum(parameter.numel() for parameter in student.parameters())
        everything = Blueprint.keep_everything(plan.teacher)
        assert everything.parameter_count == sum(parameter.numel() for parameter in teacher.parameters())

    def test_compression_is_teacher_over_student(self) -> None:
        plan = Blueprint.plan(SHAPE, width=12)
        assert plan.compression_ratio == pytest.approx(
            Blueprint.keep_everything(SHAPE).parameter_count / plan.parameter_count
        )
        assert plan.compression_ratio > 1


class TestRecord:
    @settings(max_examples=25)
    @given(blueprints())
    def test_is_plain_json(self, plan: Blueprint) -> None:
        record = json.loads(json.dumps(plan.to_dict()))
        assert record.keys() == {field.name for field in dataclasses.fields(Blueprint)}
        assert TeacherShape(**record["teacher"]) == plan.teacher

    def test_prints_on_one_line_with_what_was_left_out(self) -> None:
        text = str(Blueprint.plan(SHAPE, width=15, encoder_layers=2))
        assert "\n" not in text
        assert text.startswith("width 15 of 24, encoder layers 2 of 3 (0, 2), decoder layers 2, heads 4 of 4")

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Blueprint.plan(SHAPE).width = 3  # type: ignore[misc]
