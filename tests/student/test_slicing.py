import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

from mtdistill.errors import StudentError
from mtdistill.student.blueprint import Blueprint
from mtdistill.student.moments import Moments, measure_moments
from mtdistill.student.projection import Projection
from mtdistill.student.slicing import INITIALISATIONS, build_student, fill, shape_of

Batches = list[tuple[Tensor, Tensor, Tensor]]
MakeTeacher = Callable[..., T5ForConditionalGeneration]


@torch.no_grad()
def collected(model: T5ForConditionalGeneration, batches: Batches, part: Callable[[Seq2SeqLMOutput], Tensor]) -> Tensor:
    """A part of what the model gives for the real target tokens of all batches."""
    return torch.cat(
        [
            part(model(input_ids=source, attention_mask=mask, labels=labels, output_hidden_states=True))[labels != -100]
            for source, mask, labels in batches
        ]
    )


def logits_of(model: T5ForConditionalGeneration, batches: Batches) -> Tensor:
    return collected(model, batches, lambda output: output.logits)


def last_states(model: T5ForConditionalGeneration, batches: Batches) -> Tensor:
    return collected(model, batches, lambda output: output.decoder_hidden_states[-1])


def error(student: T5ForConditionalGeneration, teacher: T5ForConditionalGeneration, batches: Batches) -> float:
    """Largest difference of a logit in units of the largest logit."""
    expected = logits_of(teacher, batches)
    return ((logits_of(student, batches) - expected).abs().max() / expected.abs().max()).item()


def confine_stream(teacher: T5ForConditionalGeneration, dimensions: int) -> None:
    """Make everything that writes the stream write into one random subspace, in place."""
    width = teacher.config.d_model
    subspace = torch.linalg.qr(torch.randn(width, dimensions, generator=torch.Generator().manual_seed(5))).Q
    projector = subspace @ subspace.T
    done = set()
    for name, parameter in teacher.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            parameter.data = projector @ parameter.data
        elif name.endswith(("shared.weight", "embed_tokens.weight")) and parameter not in done:
            parameter.data = parameter.data @ projector
            done.add(parameter)


def random_rotation(moment: Tensor, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.linalg.qr(torch.randn(len(moment), width, generator=generator, dtype=moment.dtype)).Q


kinds = pytest.mark.parametrize(
    "kind",
    [
        {},
        {"gated": True},
        {"ties_head": False},
        {"ties_inputs": False},
        {"ties_head": False, "ties_inputs": False, "gated": True},
        {"scales_output": False},
        {"scales_output": False, "ties_head": False},
    ],
    ids=lambda kind: "-".join(f"{name}={value}" for name, value in kind.items()) or "plain",
)


class TestKeepingEverything:
    @kinds
    @pytest.mark.parametrize("constant_final_gain", [True, False])
    def test_says_what_the_teacher_says(
        self, make_teacher: MakeTeacher, batches: Batches, kind: dict[str, bool], constant_final_gain: bool
    ) -> None:
        teacher = make_teacher(constant_final_gain=constant_final_gain, **kind)
        build = build_student(teacher, Blueprint.keep_everything(shape_of(teacher)), measure_moments(teacher, batches))
        assert error(build.model, teacher, batches) < 1e-5
        assert list(build.kept_energy.values()) == pytest.approx([1.0] * 15)

    def test_also_where_the_head_is_the_table_of_the_source(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        """What transformers makes of a target table of its own; the student then has three tables."""
        teacher = make_teacher()
        teacher.decoder.embed_tokens.weight = torch.nn.Parameter(torch.randn(40, 24))
        plan = Blueprint.keep_everything(shape_of(teacher))
        build = build_student(teacher, plan, measure_moments(teacher, batches))
        assert error(build.model, teacher, batches) < 1e-5

    @kinds
    def test_survives_any_rotation(self, make_teacher: MakeTeacher, batches: Batches, kind: dict[str, bool],
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        teacher = make_teacher(**kind)
        # One direction more than the stream uses, so that the basis is chosen and not the identity.
        confine_stream(teacher, 23)
        monkeypatch.setitem(INITIALISATIONS, "slice", lambda moment, width: main_and_turned(moment, width))
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=23), measure_moments(teacher, batches))
        assert error(build.model, teacher, batches) < 1e-5


def main_and_turned(moment: Tensor, width: int) -> Tensor:
    main = torch.linalg.eigh(moment).eigenvectors[:, -width:]
    return main @ random_rotation(torch.eye(width, dtype=moment.dtype), width)


class TestWidth:
    @kinds
    def test_a_stream_in_a_subspace_is_reproduced_exactly(
        self, make_teacher: MakeTeacher, batches: Batches, kind: dict[str, bool]
    ) -> None:
        teacher = make_teacher(**kind)
        confine_stream(teacher, 13)
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=13), measure_moments(teacher, batches))
        assert build.model.config.d_model == 13
        assert error(build.model, teacher, batches) < 1e-4
        assert min(build.kept_energy.values()) > 1 - 1e-9

    @pytest.mark.parametrize("kind", [{}, {"ties_head": False}, {"gated": True}], ids=str)
    def test_with_a_source_table_each_stack_has_a_subspace_of_its_own(
        self, make_teacher: MakeTeacher, batches: Batches, kind: dict[str, bool]
    ) -> None:
        """The embeddings have 8 dimensions, and each stack writes into 5 that the other does not use: 18 together."""
        teacher = make_teacher(**kind)
        directions = torch.linalg.qr(torch.randn(24, 18, generator=torch.Generator().manual_seed(5))).Q
        parts = {"shared": [*range(8)], "encoder": [*range(13)], "decoder": [*range(8), *range(13, 18)]}
        into = {stack: directions[:, part] @ directions[:, part].T for stack, part in parts.items()}
        for name, parameter in teacher.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.data = into[name.split(".")[0]] @ parameter.data
        teacher.shared.weight.data = teacher.shared.weight @ into["shared"]
        moments, shape = measure_moments(teacher, batches), shape_of(teacher)
        separate, joint = (
            build_student(teacher, Blueprint.plan(shape, width=13, ties_inputs=ties_inputs), moments).model
            for ties_inputs in (False, True)
        )
        assert error(separate, teacher, batches) < 1e-4 < 0.01 < error(joint, teacher, batches)

    def test_the_subspace_needs_the_norm_gain(
        self, make_teacher: MakeTeacher, batches: Batches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teacher = make_teacher()
        confine_stream(teacher, 13)
        monkeypatch.setattr(Projection, "_norm_gain", lambda self, norm: 1.0)
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=13), measure_moments(teacher, batches))
        assert error(build.model, teacher, batches) > 0.1

    def test_norm_gains_restore_the_length(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=15), measure_moments(teacher, batches))
        for name, share in build.kept_energy.items():
            if name != "decoder.final_layer_norm":
                gain = build.model.get_submodule(name).weight
                assert gain.tolist() == pytest.approx([math.sqrt(24 / 15 * share)] * 15)

    @pytest.mark.parametrize("initialisation", ["slice", "select"])
    @pytest.mark.parametrize("width", [1, 7, 15, 23])
    def test_any_width_runs(self, make_teacher: MakeTeacher, batches: Batches, width: int, initialisation: str) -> None:
        teacher = make_teacher()
        build = build_student(
            teacher, Blueprint.plan(shape_of(teacher), width=width), measure_moments(teacher, batches), initialisation
        )
        assert build.model.shared.weight.shape == (40, width)
        assert logits_of(build.model, batches).isfinite().all()
        assert all(0 < share <= 1 + 1e-9 for share in build.kept_energy.values())

    def test_slice_keeps_more_energy_than_select(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        plan, moments = Blueprint.plan(shape_of(teacher), width=12), measure_moments(teacher, batches)
        energy = {
            name: sum(build_student(teacher, plan, moments, name).kept_energy.values()) for name in ("slice", "select")
        }
        assert energy["slice"] > 1.2 * energy["select"]

    def test_select_copies_channels(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        student = build_student(
            teacher, Blueprint.plan(shape_of(teacher), width=9), measure_moments(teacher, batches), "select"
        ).model
        columns = teacher.shared.weight.T.tolist()
        chosen = [columns.index(column) for column in student.shared.weight.T.tolist()]
        assert chosen == sorted(set(chosen))
        assert chosen != list(range(9)), "the strongest channels, not the first"

    def test_a_tied_head_gets_the_best_gain_of_each_channel(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher(constant_final_gain=False)
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=20), measure_moments(teacher, batches))
        final = build.model.decoder.final_layer_norm.weight
        best = error(build.model, teacher, batches)
        final.data.fill_(final.mean())
        assert best < error(build.model, teacher, batches)


class TestReadout:
    """What takes the teacher's last states to those of the student."""

    @kinds
    @pytest.mark.parametrize("constant_final_gain", [True, False])
    def test_is_exact_where_the_student_is(
        self, make_teacher: MakeTeacher, batches: Batches, kind: dict[str, bool], constant_final_gain: bool
    ) -> None:
        """For a teacher whose stream has fewer dimensions than its width: as many are kept."""
        teacher = make_teacher(constant_final_gain=constant_final_gain, **kind)
        confine_stream(teacher, 12)
        plan = Blueprint.plan(shape_of(teacher), width=12)
        build = build_student(teacher, plan, measure_moments(teacher, batches))
        assert build.readout is not None
        assert build.readout.shape == (24, 12)
        found = last_states(teacher, batches) @ build.readout
        torch.testing.assert_close(
            functional.normalize(found), functional.normalize(last_states(build.model, batches)), atol=1e-4, rtol=0
        )

    def test_is_close_where_little_is_lost(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=20), measure_moments(teacher, batches))
        assert build.readout is not None
        found = last_states(teacher, batches) @ build.readout
        similarity = functional.cosine_similarity(found, last_states(build.model, batches))
        assert 0.9 < similarity.mean() < 0.9999

    def test_a_silent_channel_is_left_out(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        teacher.decoder.final_layer_norm.weight.data[3] = 0
        build = build_student(teacher, Blueprint.plan(shape_of(teacher), width=20), measure_moments(teacher, batches))
        assert build.readout is not None
        assert build.readout.isfinite().all()
        assert not build.readout[3].any()

    def test_noise_has_none(self, make_teacher: MakeTeacher) -> None:
        teacher = make_teacher()
        assert build_student(teacher, Blueprint.plan(shape_of(teacher)), None, "random").readout is None


class TestPartsLeftOut:
    def test_explicit_layers_are_those_of_the_teacher(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        plan = Blueprint.plan(shape_of(teacher), kept_encoder_layers=[1], kept_decoder_layers=[0, 2])
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        # Its own drop of layers, weights untouched: the bias table of block 0 moves to what is block 0 now.
        expected = make_teacher()
        table = expected.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        expected.encoder.block = torch.nn.ModuleList([expected.encoder.block[1]])
        first = expected.encoder.block[0].layer[0].SelfAttention
        first.relative_attention_bias, first.has_relative_attention_bias = table, True
        expected.decoder.block = torch.nn.ModuleList([expected.decoder.block[0], expected.decoder.block[2]])
        assert error(student, expected, batches) < 1e-5

    def test_moments_of_dropped_layers_are_not_looked_at(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        plan = Blueprint.plan(shape_of(teacher), width=11, kept_decoder_layers=[0, 2])
        moments = measure_moments(teacher, batches)
        spoilt = Moments(
            {n: m * math.nan if n.startswith("decoder.block.1.") else m for n, m in moments.streams.items()},
            {n: m * math.nan if n.startswith("decoder.block.1.") else m for n, m in moments.inner.items()},
        )
        expected = logits_of(build_student(teacher, plan, moments).model, batches)
        assert torch.equal(logits_of(build_student(teacher, plan, spoilt).model, batches), expected)

    @pytest.mark.parametrize("gated", [False, True])
    def test_units_that_write_nothing_are_the_ones_left_out(
        self, make_teacher: MakeTeacher, batches: Batches, gated: bool
    ) -> None:
        teacher = make_teacher(gated=gated)
        for number, (name, parameter) in enumerate(teacher.named_parameters()):
            if name.endswith("wo.weight"):
                silent = torch.randperm(32, generator=torch.Generator().manual_seed(number))[:12]
                parameter.data[:, silent] = 0
        plan = Blueprint.plan(shape_of(teacher), feed_forward_width=20)
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        assert student.config.d_ff == 20
        assert error(student, teacher, batches) < 1e-5

    def test_units_that_never_fire_are_left_out_however_large_their_weights(
        self, make_teacher: MakeTeacher, batches: Batches
    ) -> None:
        teacher = make_teacher()
        for name, parameter in teacher.named_parameters():
            if name.endswith("wi.weight"):
                parameter.data[5:17] = 0
            elif name.endswith("wo.weight"):
                parameter.data[:, 5:17] *= 100
        plan = Blueprint.plan(shape_of(teacher), feed_forward_width=20)
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        assert error(student, teacher, batches) < 1e-5

    def test_heads_that_write_nothing_are_the_ones_left_out(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        for name, parameter in teacher.named_parameters():
            # Self-attention shares its heads within a stack; attention to the source may differ by layer.
            if name.endswith("SelfAttention.o.weight"):
                silent = 1 if name.startswith("encoder") else 2
            elif name.endswith("EncDecAttention.o.weight"):
                silent = int(name.split(".")[2])
            else:
                continue
            parameter.data[:, 5 * silent : 5 * silent + 5] = 0
        plan = Blueprint.plan(shape_of(teacher), heads=3)
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        assert student.config.num_heads == 3
        assert error(student, teacher, batches) < 1e-5

    @pytest.mark.parametrize("initialisation", ["slice", "select"])
    def test_channels_that_no_word_has_stay_silent(
        self, make_teacher: MakeTeacher, batches: Batches, initialisation: str
    ) -> None:
        teacher = make_teacher()
        teacher.shared.weight.data[:, 5] = 0
        moments = measure_moments(teacher, batches)
        for width in (teacher.config.d_model, 20):
            plan = Blueprint.plan(shape_of(teacher), width=width)
            assert logits_of(build_student(teacher, plan, moments, initialisation).model, batches).isfinite().all()

    def test_a_layer_that_writes_nothing_has_no_say_in_the_choice_of_heads(
        self, make_teacher: MakeTeacher, batches: Batches
    ) -> None:
        teacher = make_teacher()
        plan = Blueprint.plan(shape_of(teacher), heads=3)
        teacher.encoder.block[0].layer[0].SelfAttention.o.weight.data[:] = 0
        weight = teacher.encoder.block[1].layer[0].SelfAttention.o.weight
        weight.data[:, 5:10] = 0  # the second head, which is the one to go
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        ours = student.encoder.block[1].layer[0].SelfAttention.o.weight
        assert ours.view(ours.shape[0], 3, 5).abs().sum((0, 2)).gt(0).all()

    def test_units_that_are_all_dead_are_copied(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        teacher.encoder.block[1].layer[1].DenseReluDense.wi.weight.data[:] = 0
        plan = Blueprint.plan(shape_of(teacher), feed_forward_width=20)
        assert (
            logits_of(build_student(teacher, plan, measure_moments(teacher, batches)).model, batches).isfinite().all()
        )

    def test_explicit_heads_and_units_win(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        plan = dataclasses.replace(
            Blueprint.plan(shape_of(teacher), heads=2, feed_forward_width=3),
            kept_encoder_heads=(0, 3),
            kept_decoder_heads=(1, 2),
            kept_encoder_units=((0, 1, 2), (29, 30, 31)),
            kept_decoder_units=((0, 1, 2), (3, 4, 5), (6, 7, 8)),
        )
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        for stack, heads in (("encoder", [0, 3]), ("decoder", [1, 2])):
            table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            assert torch.equal(student.get_parameter(table), teacher.get_parameter(table)[:, heads])
        wi, norm = "encoder.block.1.layer.1.DenseReluDense.wi.weight", "encoder.block.1.layer.1.layer_norm.weight"
        read = teacher.get_parameter(wi)[29:] * teacher.get_parameter(norm)
        torch.testing.assert_close(student.get_parameter(wi), read)

    def test_compensation_makes_up_for_units_that_repeat_others(
        self, make_teacher: MakeTeacher, batches: Batches
    ) -> None:
        teacher = make_teacher()
        for name, parameter in teacher.named_parameters():
            if name.endswith("wi.weight"):
                parameter.data[16:] = 0.9 * parameter.data[:16]
        plan = Blueprint.plan(shape_of(teacher), feed_forward_width=16)
        plan = dataclasses.replace(
            plan, kept_encoder_units=(tuple(range(16)),) * 2, kept_decoder_units=(tuple(range(16)),) * 3
        )
        moments = measure_moments(teacher, batches)
        compensated = build_student(teacher, plan, moments, compensates=True).model
        plain = build_student(teacher, plan, moments, compensates=False).model
        assert error(compensated, teacher, batches) < 0.02 < 0.1 < error(plain, teacher, batches)


class TestFiles:
    @kinds
    @pytest.mark.parametrize("ties_inputs", [True, False])
    def test_round_trip_keeps_the_logits(
        self, make_teacher: MakeTeacher, batches: Batches, tmp_path: Path, kind: dict[str, bool], ties_inputs: bool
    ) -> None:
        teacher = make_teacher(**kind)
        plan = Blueprint.plan(
            shape_of(teacher), width=15, decoder_layers=2, heads=3, feed_forward_width=21, ties_inputs=ties_inputs
        )
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        student.save_pretrained(tmp_path)
        again = T5ForConditionalGeneration.from_pretrained(tmp_path)
        assert torch.equal(logits_of(again, batches), logits_of(student, batches))
        assert sum(p.numel() for p in again.parameters()) == plan.parameter_count

    def test_student_stays_tied_and_teacher_unchanged(self, make_teacher: MakeTeacher, batches: Batches) -> None:
        teacher = make_teacher()
        teacher.generation_config.max_new_tokens = 77
        before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
        plan = Blueprint.plan(shape_of(teacher), width=15)
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        assert shape_of(student).ties_head
        assert shape_of(student).ties_inputs
        assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())
        assert teacher.config.d_model == 24
        assert student.config.d_kv == 5
        assert student.generation_config.max_new_tokens == 77
        assert not student.training


class TestRandom:
    def test_needs_no_moments_and_depends_on_the_seed_alone(self, make_teacher: MakeTeacher) -> None:
        teacher = make_teacher()
        plan = Blueprint.plan(shape_of(teacher), width=15)

        def table(seed: int) -> Tensor:
            return build_student(teacher, plan, initialisation="random", seed=seed).model.shared.weight

        state = torch.random.get_rng_state()
        assert torch.equal(table(1), table(1))
        assert not torch.equal(table(1), table(2))
        assert torch.equal(torch.random.get_rng_state(), state)


class TestErrors:
    def test_unknown_initialisation(self, make_teacher: MakeTeacher) -> None:
        teacher = make_teacher()
        with pytest.raises(StudentError, match="got initialisation 'cut', accepted slice, select, random"):
            build_student(teacher, Blueprint.keep_everything(shape_of(teacher)), None, "cut")

    @pytest.mark.parametrize("initialisation", ["slice", "select"])
    def test_moments_are_needed(self, make_teacher: MakeTeacher, initialisation: str) -> None:
        teacher = make_teacher()
        with pytest.raises(StudentError, match=f"got no moments, '{initialisation}' needs them"):
            build_student(teacher, Blueprint.keep_everything(shape_of(teacher)), None, initialisation)

    def test_blueprint_of_another_teacher(self, make_teacher: MakeTeacher) -> None:
        plan = Blueprint.keep_everything(shape_of(make_teacher(width=16)))
        with pytest.raises(StudentError, match=r"the blueprint is for .*width=16.*the teacher is .*width=24"):
            build_student(make_teacher(), plan, initialisation="random")

    def test_every_unfilled_weight_is_listed(self, make_teacher: MakeTeacher) -> None:
        student = make_teacher()
        weights = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
        missing = ["decoder.block.2.layer.2.DenseReluDense.wo.weight", "shared.weight"]
        for name in missing:
            del weights[name]
        weights["encoder.final_layer_norm.weight"] = torch.ones(3)
        weights["lm_head.weight"] = torch.ones(40, 24)
        with pytest.raises(StudentError, match="4 weights of the student were not filled") as caught:
            fill(student, weights)
        for name in (*missing, "encoder.final_layer_norm.weight: (3,), (24,)", "lm_head.weight: (40, 24), -"):
            assert name in str(caught.value)
