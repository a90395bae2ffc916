from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.student.moments import measure_moments

Batches = list[tuple[Tensor, Tensor, Tensor]]
MakeTeacher = Callable[..., T5ForConditionalGeneration]


def test_first_norms_see_the_embeddings_of_real_tokens(make_teacher: MakeTeacher, batches: Batches) -> None:
    teacher = make_teacher()
    moments = measure_moments(teacher, batches)
    read = {
        "encoder": torch.cat([source[mask.bool()] for source, mask, _ in batches]),
        "decoder": torch.cat([teacher._shift_right(labels)[labels != -100] for _, _, labels in batches]),
    }
    for stack, ids in read.items():
        rows = teacher.shared.weight[ids].detach().double()
        expected = rows.T @ rows / rows.square().sum()
        torch.testing.assert_close(moments.streams[f"{stack}.block.0.layer.0.layer_norm"], expected)
        assert moments.tokens[stack] == len(ids)


def test_every_norm_and_projection_is_there(make_teacher: MakeTeacher, batches: Batches) -> None:
    moments = measure_moments(make_teacher(), batches)
    assert len(moments.streams) == (2 * 2 + 1) + (3 * 3 + 1)
    assert len(moments.inner) == 2 * 2 + 3 * 3
    for moment in moments.streams.values():
        assert moment.dtype == torch.float64
        assert moment.trace().item() == pytest.approx(1.0)
        torch.testing.assert_close(moment, moment.T)


def test_inner_moments_give_the_energy_that_a_layer_writes(make_teacher: MakeTeacher, batches: Batches) -> None:
    teacher = make_teacher(gated=True)
    moments = measure_moments(teacher, batches)
    name = "decoder.block.1.layer.2.DenseReluDense.wo"
    written: list[Tensor] = []
    teacher.get_submodule(name).register_forward_hook(lambda module, inputs, output: written.append(output))
    with torch.no_grad():
        for source, mask, labels in batches:
            teacher(input_ids=source, attention_mask=mask, labels=labels)
    real = torch.cat([output[labels != -100] for output, (_, _, labels) in zip(written, batches, strict=True)])
    weight = teacher.get_parameter(f"{name}.weight").detach().double()
    assert (weight @ moments.inner[name] @ weight.T).trace().item() == pytest.approx(
        real.square().sum(-1).mean().item(), rel=1e-4
    )


def test_padding_has_no_influence(make_teacher: MakeTeacher, batches: Batches) -> None:
    teacher = make_teacher()
    padded = [
        (
            torch.nn.functional.pad(source.where(mask.bool(), 9), (0, 4), value=7),
            torch.nn.functional.pad(mask, (0, 4)),
            torch.nn.functional.pad(labels, (0, 3), value=-100),
        )
        for source, mask, labels in batches
    ]
    expected, found = measure_moments(teacher, batches), measure_moments(teacher, padded)
    torch.testing.assert_close(found.streams, expected.streams, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.inner, expected.inner, rtol=1e-4, atol=1e-6)


def test_batches_add_up(make_teacher: MakeTeacher, batches: Batches) -> None:
    teacher = make_teacher()
    rows = [tuple(part[row : row + 1] for part in batch) for batch in batches for row in range(len(batch[0]))]
    expected, found = measure_moments(teacher, batches), measure_moments(teacher, rows)
    torch.testing.assert_close(found.streams, expected.streams, rtol=1e-4, atol=1e-6)


def test_leaves_the_teacher_as_it_was(make_teacher: MakeTeacher, batches: Batches) -> None:
    teacher = make_teacher().train()
    first, second = measure_moments(teacher, batches), measure_moments(teacher, batches)
    torch.testing.assert_close(first.streams, second.streams, rtol=0, atol=0)  # without dropout, although in training
    assert teacher.training
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_reports_progress(make_teacher: MakeTeacher, batches: Batches) -> None:
    done: list[int] = []
    measure_moments(make_teacher(), batches, progress=done.append)
    assert done == [1, 2]
