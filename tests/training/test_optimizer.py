"""Which rule and which rate every weight gets, and that both rules together look like one optimizer."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.modeling import t5_config
from mtdistill.training.optimizer import build_optimizer

NAMES = ("adamw", "muon")
both = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def model() -> T5ForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = t5_config(
            20, encoder_layers=1, decoder_layers=1, width=8, heads=2, head_width=4, feed_forward_width=12
        )
        model = T5ForConditionalGeneration(config)
    model.decoder.final_layer_norm.weight.requires_grad_(requires_grad=False)
    return model


def kind_of(name: str) -> str:
    if name == "shared.weight":
        return "table"
    return "vector" if "layer_norm" in name or "relative_attention_bias" in name else "matrix"


def give_gradients(model: T5ForConditionalGeneration, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def weights_of(model: T5ForConditionalGeneration) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@both
def test_every_trainable_weight_is_in_one_group(model: T5ForConditionalGeneration, name: Any) -> None:
    optimizer = build_optimizer(model, name, 0.1, 0.5, 4.0)
    names = {id(weight): weight_name for weight_name, weight in model.named_parameters()}
    found = {names[id(weight)]: group for group in optimizer.param_groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    assert {*found} == {*names.values()} - {"decoder.final_layer_norm.weight"}
    expected = {"table": (0.4, 0.0), "vector": (0.1, 0.0), "matrix": (0.1, 0.5)}
    assert {n: (group["lr"], group["weight_decay"]) for n, group in found.items()} == {
        n: pytest.approx(expected[kind_of(n)]) for n in found
    }


@both
def test_an_output_head_of_its_own_is_a_table(model: T5ForConditionalGeneration, name: Any) -> None:
    for module in (model.lm_head, model.decoder.embed_tokens):
        module.weight = torch.nn.Parameter(model.shared.weight.detach().clone())
    optimizer = build_optimizer(model, name, 0.1, 0.5, 4.0)
    [tables] = [group for group in optimizer.param_groups if any(w is model.shared.weight for w in group["params"])]
    assert (tables["lr"], tables["weight_decay"]) == (pytest.approx(0.4), 0.0)
    wanted = (model.shared, model.decoder.embed_tokens, model.lm_head)
    assert {id(weight) for weight in tables["params"]} == {id(module.weight) for module in wanted}
    given = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(given) == sorted({id(weight) for weight in model.parameters() if weight.requires_grad})


@both
def test_one_update_moves_every_weight_by_about_its_rate(model: T5ForConditionalGeneration, name: Any) -> None:
    """The step of Muon is a fifth of Adam's first one, the size that Adam's steps soon have, whatever the shape."""
    optimizer = build_optimizer(model, name, 0.01, 0.0, 4.0)
    before = weights_of(model)
    give_gradients(model, 0)
    optimizer.step()
    for weight_name, weight in weights_of(model).items():
        moved = (weight - before[weight_name]).square().mean().sqrt().item()
        if weight_name == "decoder.final_layer_norm.weight":
            assert moved == 0
            continue
        expected = 0.04 if kind_of(weight_name) == "table" else 0.01
        low, high = (0.15, 0.25) if name == "muon" and kind_of(weight_name) == "matrix" else (0.99, 1.01)
        assert low * expected < moved < high * expected, weight_name


def test_muon_moves_matrices_by_an_orthogonal_step(model: T5ForConditionalGeneration) -> None:
    optimizer = build_optimizer(model, "muon", 0.01, 0.0, 1.0)
    weight = model.encoder.block[0].layer[-1].DenseReluDense.wi.weight
    before = weight.detach().clone()
    give_gradients(model, 0)
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach() - before)
    assert values.max() < 2 * values.min()  # a gradient of noise has a spread of about ten


@both
def test_only_matrices_decay(model: T5ForConditionalGeneration, name: Any) -> None:
    optimizer = build_optimizer(model, name, 0.1, 0.5, 1.0)
    before = weights_of(model)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for weight_name, weight in weights_of(model).items():
        kept = 1 - 0.1 * 0.5 if kind_of(weight_name) == "matrix" else 1.0
        torch.testing.assert_close(weight, before[weight_name] * kept, msg=weight_name)


@both
def test_a_scheduler_reaches_every_group(model: T5ForConditionalGeneration, name: Any) -> None:
    optimizer = build_optimizer(model, name, 0.1, 0.5, 4.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1.0 if update == 0 else 0.0)
    give_gradients(model, 0)
    optimizer.step()
    scheduler.step()
    before = weights_of(model)
    give_gradients(model, 1)
    optimizer.step()
    for weight_name, weight in weights_of(model).items():
        assert torch.equal(weight, before[weight_name]), weight_name


@both
def test_gradients_are_cleared(model: T5ForConditionalGeneration, name: Any) -> None:
    optimizer = build_optimizer(model, name, 0.1, 0.5, 4.0)
    give_gradients(model, 0)
    optimizer.zero_grad()
    assert [n for n, weight in model.named_parameters() if weight.grad is not None] == [
        "decoder.final_layer_norm.weight"
    ]


@both
def test_a_stored_state_goes_on_where_it_stopped(model: T5ForConditionalGeneration, name: Any, tmp_path: Any) -> None:
    optimizer = build_optimizer(model, name, 0.1, 0.5, 4.0)
    for seed in range(3):
        give_gradients(model, seed)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other = copy.deepcopy(model)
    resumed = build_optimizer(other, name, 0.7, 0.0, 1.0)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for each, its_optimizer in ((model, optimizer), (other, resumed)):
        give_gradients(each, 9)
        its_optimizer.step()
    for weight_name, weight in weights_of(model).items():
        assert torch.equal(weights_of(other)[weight_name], weight), weight_name
    # Schedulers change the groups that they see: these must be the ones that are used.
    for group in resumed.param_groups:
        group["lr"] = 0.0
    before = weights_of(other)
    give_gradients(other, 10)
    resumed.step()
    assert all(torch.equal(weight, before[weight_name]) for weight_name, weight in weights_of(other).items())


def test_threads_that_share_the_matrices_move_them_to_the_same_bits(model: T5ForConditionalGeneration) -> None:
    given: list[int] = []

    def by_twos(move: Any, sizes: Any) -> None:
        given[:] = sizes
        order = [*range(len(sizes))]
        for places in (order[1::2], order[::2]):
            move(places)

    shared = copy.deepcopy(model)
    alone, together = (
        build_optimizer(model, "muon", 0.1, 0.5, 4.0),
        build_optimizer(shared, "muon", 0.1, 0.5, 4.0, side_by_side=by_twos),
    )
    for seed in range(3):
        for each, its_optimizer in ((model, alone), (shared, together)):
            give_gradients(each, seed)
            its_optimizer.step()
    matrices = [weight for name, weight in model.named_parameters() if kind_of(name) == "matrix"]
    assert sorted(given) == sorted(weight.numel() for weight in matrices)
    for weight_name, weight in weights_of(model).items():
        assert torch.equal(weights_of(shared)[weight_name], weight), weight_name
