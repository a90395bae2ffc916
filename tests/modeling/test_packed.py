"""The packed forward pass is that of transformers, without its padding; dropout and dropped layers follow the seed."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mtdistill.data.batches import IGNORED_LABEL, PackedBatch
from mtdistill.modeling import t5_config, use_layer_drop
from mtdistill.modeling.packed import ROW_MULTIPLE, Noise, decoder_states, supports

VOCABULARY = 50
Make = Callable[..., T5ForConditionalGeneration]
Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm of transformers rounds to float32 on its way, whatever the type of the model."""

    def forward(norm: T5LayerNorm, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)

    monkeypatch.setattr(T5LayerNorm, "forward", forward)


def batch_of(lengths: list[tuple[int, int]], seed: int = 0) -> PackedBatch:
    generator = torch.Generator().manual_seed(seed)
    sources, targets = (torch.tensor([0, *side]).cumsum(0) for side in zip(*lengths, strict=True))
    source_ids, labels = (
        torch.randint(2, VOCABULARY, (int(ends[-1]),), generator=generator) for ends in (sources, targets)
    )
    return PackedBatch(source_ids, sources, labels, targets, torch.arange(len(lengths)))


def sentences(batch: PackedBatch) -> Iterator[slice]:
    """Rows of each sentence's target tokens."""
    for first, end in zip(batch.target_starts[:-1].tolist(), batch.target_starts[1:].tolist(), strict=True):
        yield slice(first, end)


def our_logits(model: T5ForConditionalGeneration, batch: PackedBatch, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return decoder_states(model, batch, dtype, seed) @ model.shared.weight.to(dtype).T


def stock_logits(model: T5ForConditionalGeneration, batch: PackedBatch) -> Tensor:
    """What transformers gives for the padded batch, (target tokens, vocabulary)."""
    input_ids, attention_mask, labels = batch.padded()
    output = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
    logits: Tensor = output.logits[labels != IGNORED_LABEL]
    return logits


def gradients_of(model: T5ForConditionalGeneration, logits: Tensor, labels: Tensor) -> Gradients:
    model.zero_grad()
    functional.cross_entropy(logits.double(), labels).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def with_source_table(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """The model, with other rows for the source than for the target."""
    model.encoder.embed_tokens.weight = nn.Parameter(model.shared.weight.detach().flip(0))
    return model


class TestAgainstTransformers:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
    def test_logits_and_all_gradients_are_the_stock_ones(
        self, make: Make, packed: PackedBatch, dtype: torch.dtype, tolerance: float, training: bool, tied: bool
    ) -> None:
        model = (make() if tied else with_source_table(make())).to(dtype).train(training)
        expected = stock_logits(model, packed)
        wanted = gradients_of(model, expected, packed.labels)
        logits = our_logits(model, packed, dtype)
        gradients = gradients_of(model, logits, packed.labels)
        torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
        assert {*gradients} == {*wanted} == {name for name, _ in model.named_parameters()}
        for name, gradient in wanted.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=tolerance, atol=tolerance / 10, msg=name)

    @given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.integers(0, 1000))
    @settings(max_examples=20)
    def test_at_any_lengths(self, lengths: list[tuple[int, int]], seed: int) -> None:
        torch.manual_seed(seed)
        config = t5_config(VOCABULARY, encoder_layers=1, decoder_layers=2, width=10, heads=2, head_width=3,
                           feed_forward_width=12, dropout=0.3)  # fmt: skip
        model, batch = T5ForConditionalGeneration(config).double().eval(), batch_of(lengths, seed)
        with torch.no_grad():
            logits, expected = our_logits(model, batch, torch.float64), stock_logits(model, batch)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("tokens", [ROW_MULTIPLE - 1, ROW_MULTIPLE, ROW_MULTIPLE + 1])
    def test_where_rows_are_filled_up_or_not(self, make: Make, tokens: int) -> None:
        model, batch = make().double().eval(), batch_of([(5, 9), (tokens - 5, tokens - 9)])
        states = decoder_states(model, batch, torch.float64)
        assert states.shape == (tokens, 24)
        torch.testing.assert_close(our_logits(model, batch, torch.float64), stock_logits(model, batch))

    def test_stacks_of_unlike_depth_and_another_start_token(self, packed: PackedBatch) -> None:
        torch.manual_seed(2)
        config = t5_config(VOCABULARY, encoder_layers=3, decoder_layers=1, width=8, heads=1, head_width=8,
                           feed_forward_width=9)  # fmt: skip
        config.decoder_start_token_id = 7
        model = T5ForConditionalGeneration(config).double().eval()
        torch.testing.assert_close(our_logits(model, packed, torch.float64), stock_logits(model, packed))

    def test_in_bfloat16_the_result_is_close(self, make: Make, packed: PackedBatch) -> None:
        model = make().train()
        expected = our_logits(model, packed, torch.float32)
        wanted = gradients_of(model, expected, packed.labels)
        states = decoder_states(model, packed, torch.bfloat16)
        logits = our_logits(model, packed, torch.bfloat16)
        gradients = gradients_of(model, logits, packed.labels)
        assert states.dtype == torch.bfloat16
        assert (logits - expected).abs().mean() < 0.02 * expected.abs().mean()
        assert {*gradients} == {*wanted}
        for name, gradient in wanted.items():
            assert gradients[name].dtype == torch.float32
            assert nn.functional.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0) > 0.98, name

    def test_a_frozen_weight_gets_no_gradient(self, make: Make, packed: PackedBatch) -> None:
        model = make().train()
        model.decoder.final_layer_norm.weight.requires_grad_(requires_grad=False)
        model.encoder.block[1].layer[0].SelfAttention.q.weight.requires_grad_(requires_grad=False)
        gradients = gradients_of(model, our_logits(model, packed, torch.float32), packed.labels)
        missing = {name for name, _ in model.named_parameters()} - {*gradients}
        assert missing == {"decoder.final_layer_norm.weight", "encoder.block.1.layer.0.SelfAttention.q.weight"}

    def test_gradients_of_two_passes_add_up(self, make: Make, packed: PackedBatch) -> None:
        model = make().double().train()

        def passed(*parts: PackedBatch) -> Gradients:
            model.zero_grad()
            for part in parts:
                logits = our_logits(model, part, torch.float64)
                functional.cross_entropy(logits, part.labels, reduction="sum").backward()
            return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

        whole, halves = passed(packed), passed(packed.part(0, 1), packed.part(1, len(packed)))
        for name, gradient in whole.items():
            torch.testing.assert_close(halves[name], gradient, rtol=1e-9, atol=1e-10, msg=name)

    def test_the_weights_are_left_alone(self, make: Make, packed: PackedBatch) -> None:
        model = make(dropout=0.2).train()
        before = copy.deepcopy(model.state_dict())
        gradients_of(model, our_logits(model, packed, torch.bfloat16), packed.labels)
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


class TestLeakage:
    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    def test_a_later_target_token_has_no_influence(self, make: Make, packed: PackedBatch, dropout: float) -> None:
        model = make(dropout=dropout).double().train()
        with torch.no_grad():
            old = decoder_states(model, packed, torch.float64, seed=4)
            for rows in sentences(packed):
                for position in range(rows.start, rows.stop):
                    labels = packed.labels.clone()
                    labels[position] = (labels[position] + 7) % VOCABULARY
                    batch = PackedBatch(
                        packed.source_ids, packed.source_starts, labels, packed.target_starts, packed.rows
                    )
                    new = decoder_states(model, batch, torch.float64, seed=4)
                    changed = (new != old).any(dim=1).nonzero().flatten().tolist()
                    # A label is read by the next position of its own sentence, and by all after that.
                    assert changed == list(range(position + 1, rows.stop))

    def test_a_source_token_reaches_its_own_sentence_only(self, make: Make, packed: PackedBatch) -> None:
        model = make().double().eval()
        with torch.no_grad():
            old = decoder_states(model, packed, torch.float64)
            for sentence, rows in enumerate(sentences(packed)):
                source_ids = packed.source_ids.clone()
                place = packed.source_starts[sentence + 1] - 1
                source_ids[place] = (source_ids[place] + 7) % VOCABULARY
                batch = PackedBatch(source_ids, packed.source_starts, packed.labels, packed.target_starts, packed.rows)
                new = decoder_states(model, batch, torch.float64)
                changed = (new != old).any(dim=1).nonzero().flatten().tolist()
                assert changed == list(range(rows.start, rows.stop))

    def test_a_sentence_does_not_depend_on_the_others(self, make: Make, packed: PackedBatch) -> None:
        model = make().double().eval()
        with torch.no_grad():
            together = decoder_states(model, packed, torch.float64)
            for sentence, rows in enumerate(sentences(packed)):
                alone = decoder_states(model, packed.part(sentence, sentence + 1), torch.float64)
                torch.testing.assert_close(alone, together[rows], rtol=1e-9, atol=1e-11)


class TestDropout:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_follows_the_seed(self, make: Make, packed: PackedBatch, dtype: torch.dtype) -> None:
        model = make(dropout=0.3).train()
        first = decoder_states(model, packed, dtype, seed=5)
        torch.manual_seed(1)  # of no importance
        assert torch.equal(decoder_states(model, packed, dtype, seed=5), first)
        assert not torch.equal(decoder_states(model, packed, dtype, seed=6), first)

    def test_outside_training_there_is_none(self, make: Make, packed: PackedBatch) -> None:
        model = make(dropout=0.3).double().eval()
        states = decoder_states(model, packed, torch.float64, seed=5)
        assert torch.equal(states, decoder_states(model, packed, torch.float64, seed=6))
        torch.testing.assert_close(our_logits(model, packed, torch.float64), stock_logits(model, packed))

    def test_at_rate_zero_training_makes_no_difference(self, make: Make, packed: PackedBatch) -> None:
        model = make()
        trained, evaluated = (decoder_states(model.train(mode), packed, torch.float32, 3) for mode in (True, False))
        assert torch.equal(trained, evaluated)

    def test_the_share_that_is_dropped_at_the_end(self, make: Make) -> None:
        batch = batch_of([(9, 30)] * 20)
        states = decoder_states(make(dropout=0.25).train(), batch, torch.float32, seed=1)
        share = (states == 0).double().mean().item()
        assert abs(share - 0.25) < 5 * (0.25 * 0.75 / states.numel()) ** 0.5

    def test_the_gradient_is_the_slope_of_the_loss_with_the_same_mask(self, make: Make, packed: PackedBatch) -> None:
        model = make(dropout=0.3).double().train()
        gradients = gradients_of(model, our_logits(model, packed, torch.float64, seed=9), packed.labels)
        torch.manual_seed(0)
        weights = dict(model.named_parameters())
        for name, gradient in gradients.items():
            direction, step = torch.randn_like(gradient), 1e-6
            losses = []
            with torch.no_grad():
                for sign in (1, -1):
                    weights[name].add_(direction, alpha=sign * step)
                    logits = our_logits(model, packed, torch.float64, seed=9)
                    losses.append(functional.cross_entropy(logits, packed.labels).item())
                    weights[name].add_(direction, alpha=-sign * step)
            slope = (losses[0] - losses[1]) / (2 * step)
            assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-5, abs=1e-7), name

    def test_every_place_has_a_seed_of_its_own(self, make: Make, packed: PackedBatch,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        made = []
        original = Noise.dropout
        monkeypatch.setattr(Noise, "dropout", lambda noise: made.append(original(noise)) or made[-1])
        decoder_states(make(dropout=0.3, layers=2).train(), packed, torch.float32, seed=3)
        # Both embeddings and both final norms; 3 places in a block of the encoder, 4 in one of the decoder.
        assert len(made) == 4 + 2 * 3 + 2 * 4
        assert len({dropout.seed for dropout in made}) == len(made)
        assert {dropout.rate for dropout in made} == {0.3}


class TestNoise:
    @pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
    def test_any_seed_of_64_bits(self, seed: int) -> None:
        dropouts = [Noise(seed, 0.1).dropout() for _ in range(2)]
        assert dropouts[0] == dropouts[1]
        assert dropouts[0] is not None
        assert 0 <= dropouts[0].seed < 2**64

    def test_all_64_bits_are_used(self) -> None:
        noise = Noise(5, 0.1)
        seeds = [dropout.seed for dropout in (noise.dropout() for _ in range(400)) if dropout is not None]
        for bit in range(64):
            assert abs(sum(seed >> bit & 1 for seed in seeds) - 200) < 60, bit

    @pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
    def test_things_happen_as_often_as_they_should(self, probability: float) -> None:
        noise, draws = Noise(3, 0.0), 4000
        share = sum(noise.happens(probability) for _ in range(draws)) / draws
        assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / draws)

    def test_at_rate_zero_there_is_no_dropout(self) -> None:
        assert Noise(3, 0.0).dropout() is None


class TestLayerDrop:
    def test_a_skipped_block_is_as_if_it_was_not_there(self, make: Make, packed: PackedBatch) -> None:
        skipping, short = use_layer_drop(make(layers=3), 1.0).train(), make(layers=3)
        for stack in (short.encoder, short.decoder):
            del stack.block[1:]
        expected = our_logits(short, packed, torch.float32)
        wanted = gradients_of(short, expected, packed.labels)
        logits = our_logits(skipping, packed, torch.float32)
        gradients = gradients_of(skipping, logits, packed.labels)
        assert torch.equal(logits, expected)
        assert {*gradients} == {*wanted}

    def test_outside_training_no_block_is_skipped(self, make: Make, packed: PackedBatch) -> None:
        model, plain = use_layer_drop(make(layers=3), 1.0).eval(), make(layers=3).eval()
        assert torch.equal(*(decoder_states(each, packed, torch.float32, 2) for each in (model, plain)))

    def test_it_follows_the_seed_at_the_rate(self, make: Make) -> None:
        # With one block that may go in each stack there are four results; how often each comes says how often it goes.
        model, batch = use_layer_drop(make(layers=2), 0.25).train(), batch_of([(2, 2)])
        with torch.no_grad():
            results = [tuple(decoder_states(model, batch, torch.float32, seed)[1].tolist()) for seed in range(300)]
            again = [tuple(decoder_states(model, batch, torch.float32, seed)[1].tolist()) for seed in range(10)]
            whole = tuple(decoder_states(model.eval(), batch, torch.float32)[1].tolist())
        assert results[:10] == again
        assert len({*results}) == 4
        share = results.count(whole) / len(results)
        assert abs(share - 0.75**2) < 5 * (0.75**2 * (1 - 0.75**2) / len(results)) ** 0.5


class TestSupports:
    def test_our_models(self, make: Make) -> None:
        assert supports(make())
        assert supports(use_layer_drop(make(), 0.1))

    def test_not_a_gated_feed_forward(self, make: Make) -> None:
        assert not supports(make(feed_forward_proj="gated-gelu"))

    def test_not_another_activation(self, make: Make) -> None:
        assert not supports(make(feed_forward_proj="gelu"))

    def test_not_an_output_head_of_its_own(self, make: Make) -> None:
        model = make()
        model.lm_head.weight = nn.Parameter(model.shared.weight.detach().clone())
        assert not supports(model)

    def test_a_source_table_of_its_own(self, make: Make) -> None:
        assert supports(with_source_table(make()))

    def test_not_a_target_table_of_its_own(self, make: Make) -> None:
        model = make()
        model.decoder.embed_tokens.weight = nn.Parameter(model.shared.weight.detach().clone())
        assert not supports(model)

    def test_not_an_output_head_without_scale(self, make: Make) -> None:
        model = make()
        model.config.scale_decoder_outputs = False
        assert not supports(model)

    def test_not_another_device(self, make: Make) -> None:
        assert not supports(make().to("meta"))
