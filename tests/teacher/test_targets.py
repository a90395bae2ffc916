"""What a student is shown: the states behind the teacher's logits of the target tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch, PackedRows
from mtdistill.data.prepared import PreparedData
from mtdistill.teacher import targets as module
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.engine import Engine

PLAIN = Engine(fused=False)


def batch_of(data: PreparedData, limit: int = 32) -> PackedBatch:
    rows = PackedRows(data.split("test"), limit)
    return rows.batch(list(range(len(rows))))


def logits_one_by_one(model: T5ForConditionalGeneration, batch: PackedBatch) -> Tensor:
    """Of transformers, without padding."""
    sources = batch.source_ids.split(batch.source_starts.diff().tolist())
    targets = batch.labels.split(batch.target_starts.diff().tolist())
    with torch.no_grad():
        found = [
            model(input_ids=source[None], labels=target[None]).logits[0]
            for source, target in zip(sources, targets, strict=True)
        ]
    return torch.cat(found)


def other_teacher(**changes: Any) -> T5ForConditionalGeneration:
    """Random weights large enough that the head tells words apart, whatever its scale."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = T5Config(vocab_size=400, d_model=16, num_heads=2, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=2,
                          decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **changes)  # fmt: skip
        return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("engine", [Engine(), PLAIN], ids=["fused", "plain"])
@pytest.mark.parametrize("limit", [32, 4])
def test_states_times_head_are_the_logits_in_their_order(
    tiny_teacher: Any, tiny_data: PreparedData, engine: Engine, limit: int
) -> None:
    model, _ = tiny_teacher
    batch = batch_of(tiny_data, limit)
    assert (batch.target_starts.diff() == 4).all() == (limit == 4)  # otherwise there is padding
    targets = LiveTargets(model, engine)
    states = targets.states(batch)
    assert states.shape == (len(batch.labels), 16)
    logits = states @ targets.head.T
    torch.testing.assert_close(logits, logits_one_by_one(model, batch), rtol=1e-4, atol=1e-4)
    if limit == 32:  # this teacher knows its corpus
        assert (logits.argmax(-1) == batch.labels).float().mean() > 0.9


def test_only_a_model_that_the_kernels_cover_goes_through_them(
    tiny_teacher: Any, tiny_data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[T5ForConditionalGeneration] = []
    decoder_states = module.decoder_states

    def recorded(model: T5ForConditionalGeneration, *arguments: Any) -> Tensor:
        calls.append(model)
        return decoder_states(model, *arguments)

    monkeypatch.setattr(module, "decoder_states", recorded)
    model, _ = tiny_teacher
    batch = batch_of(tiny_data)
    LiveTargets(model).states(batch)
    assert calls == [model]
    LiveTargets(model, PLAIN).states(batch)
    LiveTargets(other_teacher(feed_forward_proj="gated-gelu")).states(batch)
    LiveTargets(other_teacher(tie_word_embeddings=False)).states(batch)
    assert calls == [model]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"feed_forward_proj": "gated-gelu"}, id="gated"),
        pytest.param({"tie_word_embeddings": False}, id="untied"),
        pytest.param({"scale_decoder_outputs": False}, id="unscaled"),
        pytest.param({"tie_word_embeddings": False, "scale_decoder_outputs": False}, id="untied, unscaled"),
        pytest.param({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, id="gated, untied"),
        pytest.param({}, id="covered by the kernels"),
    ],
)
def test_other_teachers_give_their_own_logits(changes: dict[str, Any], tiny_data: PreparedData) -> None:
    model = other_teacher(**changes)
    batch = batch_of(tiny_data)
    targets = LiveTargets(model)
    expected = logits_one_by_one(model, batch)
    torch.testing.assert_close(targets.states(batch) @ targets.head.T, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01  # far above the tolerance


@pytest.mark.parametrize("fused", [True, False])
def test_in_bfloat16_states_and_head_have_its_type_and_are_close(
    tiny_teacher: Any, tiny_data: PreparedData, fused: bool
) -> None:
    model, _ = tiny_teacher
    batch = batch_of(tiny_data)
    targets = LiveTargets(model, Engine(fused=fused, bfloat16=True))
    states = targets.states(batch)
    assert states.dtype == targets.head.dtype == torch.bfloat16
    exact = LiveTargets(model).states(batch)
    assert (states.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("engine", [Engine(), PLAIN], ids=["fused", "plain"])
def test_the_teacher_learns_and_drops_nothing(tiny_teacher: Any, tiny_data: PreparedData, engine: Engine) -> None:
    model, _ = tiny_teacher
    model.config.dropout_rate = 0.5
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.5
    targets = LiveTargets(model.train(), engine)
    batch = batch_of(tiny_data)
    first, second = targets.states(batch), targets.states(batch)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not targets.head.requires_grad
    assert not model.training
