"""The fast kernels must be nothing but fast; a folder is read whole or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, T5Config, T5ForConditionalGeneration

from mtdistill.errors import CheckpointError
from mtdistill.modeling import ByteDropout, autocast_dtype, load_model, t5_config, use_fast_kernels, use_layer_drop

VOCABULARY = 50
Make = Callable[..., T5ForConditionalGeneration]


@pytest.fixture
def make() -> Make:
    """A random T5 whose norm gains differ, as training leaves them."""

    def make_model(*, dropout: float = 0.0, gated: bool = False, layers: int = 2) -> T5ForConditionalGeneration:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = t5_config(VOCABULARY, encoder_layers=layers, decoder_layers=layers, width=24, heads=3,
                               head_width=5, feed_forward_width=32, dropout=dropout)  # fmt: skip
            if gated:
                config = T5Config(**{**config.to_dict(), "feed_forward_proj": "gated-gelu"})
            model = T5ForConditionalGeneration(config)
            for name, parameter in model.named_parameters():
                if "layer_norm" in name:
                    parameter.data.uniform_(0.5, 2.0)
                elif "relative_attention_bias" in name:
                    parameter.data.normal_()
        return model

    return make_model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three pairs of different lengths, with distances that share a bucket of the relative positions."""
    generator = torch.Generator().manual_seed(1)
    sources = torch.randint(2, VOCABULARY, (3, 13), generator=generator)
    targets = torch.randint(2, VOCABULARY, (3, 19), generator=generator)
    mask = torch.ones_like(sources)
    for row, (source_len, target_len) in enumerate([(13, 4), (6, 19), (1, 7)]):
        sources[row, source_len:], mask[row, source_len:], targets[row, target_len:] = 0, 0, -100
    return {"input_ids": sources, "attention_mask": mask, "labels": targets}


def logits_and_gradients(
    model: T5ForConditionalGeneration, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients


class TestFastKernels:
    @pytest.mark.parametrize("gated", [False, True])
    @pytest.mark.parametrize("training", [True, False])
    def test_logits_and_all_gradients_are_the_stock_ones(
        self, make: Make, batch: dict[str, Tensor], training: bool, gated: bool
    ) -> None:
        stock, fast = make(gated=gated), use_fast_kernels(make(gated=gated))
        expected, wanted = logits_and_gradients(stock.train(training), batch)
        logits, gradients = logits_and_gradients(fast.train(training), batch)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert {*gradients} == {*wanted} == {name for name, _ in stock.named_parameters()}
        for name, gradient in wanted.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    @pytest.mark.parametrize("training", [True, False])
    def test_a_later_target_token_has_no_influence(self, make: Make, batch: dict[str, Tensor], training: bool) -> None:
        model = use_fast_kernels(make()).train(training)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        before = torch.randint(2, VOCABULARY, (3, 9))
        for position in range(1, 9):
            after = before.clone()
            after[:, position] = (before[:, position] + 7) % VOCABULARY
            old = model(**inputs, decoder_input_ids=before, use_cache=False).logits
            new = model(**inputs, decoder_input_ids=after, use_cache=False).logits
            torch.testing.assert_close(new[:, :position], old[:, :position], rtol=1e-5, atol=1e-6)
            assert not torch.allclose(new[:, position:], old[:, position:])

    def test_source_padding_has_no_influence(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_fast_kernels(make()).train()
        alone = {"input_ids": batch["input_ids"][1:2, :6], "labels": batch["labels"][1:2]}
        padded = {name: tensor[1:2] for name, tensor in batch.items()}
        expected, wanted = logits_and_gradients(model, {**alone, "attention_mask": torch.ones(1, 6)})
        logits, gradients = logits_and_gradients(model, padded)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        for name, gradient in wanted.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("beams", [1, 3])
    def test_generation_is_the_stock_one(
        self, make: Make, batch: dict[str, Tensor], beams: int, training: bool
    ) -> None:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        options = {"num_beams": beams, "max_new_tokens": 12, "return_dict_in_generate": True, "output_logits": True}
        stock, fast = (
            model.train(training).generate(**inputs, **options) for model in (make(), use_fast_kernels(make()))
        )
        assert torch.equal(fast.sequences, stock.sequences)
        torch.testing.assert_close(fast.logits, stock.logits, rtol=1e-4, atol=1e-4)

    def test_attention_weights_can_be_looked_at_in_evaluation(self, make: Make, batch: dict[str, Tensor]) -> None:
        stock, fast = make().eval(), use_fast_kernels(make()).eval()
        stock.set_attn_implementation("eager")
        expected, output = stock(**batch, output_attentions=True), fast(**batch, output_attentions=True)
        for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
            assert len(output[name]) == 2
            torch.testing.assert_close(output[name], expected[name], rtol=1e-4, atol=1e-6)

    def test_nearly_nothing_is_not_blown_up(self, make: Make) -> None:
        stock, fast = make().encoder.final_layer_norm, use_fast_kernels(make()).encoder.final_layer_norm
        for size in (0.0, 1e-5, 1e-3):
            values = torch.linspace(-size, size, 24)[None]
            torch.testing.assert_close(fast(values), stock(values))

    def test_a_frozen_gain_gets_no_gradient(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_fast_kernels(make()).train()
        model.decoder.final_layer_norm.weight.requires_grad_(requires_grad=False)
        _, gradients = logits_and_gradients(model, batch)
        assert "decoder.final_layer_norm.weight" not in gradients
        assert "encoder.final_layer_norm.weight" in gradients

    def test_in_bfloat16_the_result_is_close(self, make: Make, batch: dict[str, Tensor]) -> None:
        expected, wanted = logits_and_gradients(make().train(), batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert autocast_dtype(torch.zeros(1)) == torch.bfloat16
            logits, gradients = logits_and_gradients(use_fast_kernels(make()).train(), batch)
        assert (logits - expected).abs().mean() < 0.02 * expected.abs().mean()
        for name, gradient in wanted.items():
            assert gradients[name].dtype == torch.float32
            assert nn.functional.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0) > 0.98, name

    def test_saved_and_loaded_it_is_a_stock_model(self, make: Make, batch: dict[str, Tensor], tmp_path: Path) -> None:
        fast = use_layer_drop(use_fast_kernels(make()), 0.5).eval()
        fast.save_pretrained(str(tmp_path))
        loaded = load_model(tmp_path)
        assert {name: tensor.tolist() for name, tensor in loaded.state_dict().items()} == {
            name: tensor.tolist() for name, tensor in make().state_dict().items()
        }
        assert not any(type(module).__module__.startswith("mtdistill") for module in loaded.modules())
        torch.testing.assert_close(loaded(**batch).logits, fast(**batch).logits, rtol=1e-5, atol=1e-5)

    def test_dropout_is_replaced_and_twice_is_once(self, make: Make) -> None:
        model = use_fast_kernels(use_fast_kernels(make(dropout=0.25)))
        assert not any(isinstance(module, nn.Dropout) for module in model.modules())
        assert {module.threshold for module in model.modules() if isinstance(module, ByteDropout)} == {64}

    def test_a_model_in_evaluation_mode_stays_in_it(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_fast_kernels(make(dropout=0.5).eval())
        torch.testing.assert_close(model(**batch).logits, make().eval()(**batch).logits, rtol=1e-5, atol=1e-5)

    def test_dropout_acts_in_training(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_fast_kernels(make(dropout=0.5)).train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits)
        run = set()
        dropouts = {name: module for name, module in model.named_modules() if isinstance(module, ByteDropout)}
        for name, module in dropouts.items():
            module.register_forward_hook(lambda *_, name=name: run.add(name))
        model(**batch)
        assert run == {*dropouts}


class TestByteDropout:
    def test_the_rate_and_the_scale_of_survivors(self) -> None:
        torch.manual_seed(0)
        dropout, size = ByteDropout(0.1), 200_003  # not a multiple of eight
        kept = dropout(torch.ones(size))
        rate = 26 / 256
        assert kept.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate))]
        share = (kept == 0).float().mean().item()
        assert abs(share - rate) < 5 * (rate * (1 - rate) / size) ** 0.5
        # No byte of a word is treated differently.
        by_byte = (kept[:200_000].view(-1, 8) == 0).float().mean(0)
        assert (by_byte - rate).abs().max() < 5 * (rate * (1 - rate) / 25_000) ** 0.5

    @pytest.mark.parametrize("rate", [0.004, 0.1, 0.15, 0.5, 0.9])
    def test_the_expectation_is_exact(self, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
        # All 256 values of a byte once: the mean over them is the expectation.
        every_byte = torch.arange(256, dtype=torch.uint8).view(torch.int64)
        monkeypatch.setattr(Tensor, "random_", lambda words, *_: words.copy_(every_byte))
        dropout = ByteDropout(rate)
        assert dropout(torch.ones(256)).double().mean().item() == pytest.approx(1, abs=1e-6)
        assert (dropout(torch.ones(256)) == 0).sum() == round(rate * 256)

    def test_the_gradient_goes_where_the_value_went(self) -> None:
        values = torch.randn(5, 7, requires_grad=True)
        dropped = ByteDropout(0.5)(values)
        dropped.sum().backward()
        assert values.grad is not None
        torch.testing.assert_close(values.grad * values, dropped)
        assert {*values.grad.unique().tolist()} == {0.0, 2.0}

    def test_shape_and_type_are_kept(self) -> None:
        values = torch.ones(3, 1, 5, dtype=torch.bfloat16).transpose(0, 2)
        assert ByteDropout(0.5)(values).shape == values.shape
        assert ByteDropout(0.5)(values).dtype == torch.bfloat16
        assert ByteDropout(0.5)(torch.ones(0, 4)).shape == (0, 4)

    def test_outside_training_and_at_rate_zero_nothing_happens(self) -> None:
        values = torch.randn(100)
        assert ByteDropout(0.5).eval()(values) is values
        assert ByteDropout(0.0)(values) is values

    def test_the_same_seed_drops_the_same(self) -> None:
        draws = []
        for _ in range(2):
            torch.manual_seed(3)
            draws.append(ByteDropout(0.5)(torch.ones(100)))
        assert torch.equal(*draws)
        assert not torch.equal(draws[0], ByteDropout(0.5)(torch.ones(100)))

    def test_a_rate_close_to_one_stays_finite(self) -> None:
        assert ByteDropout(0.999)(torch.ones(10_000)).isfinite().all()


class TestLayerDrop:
    def count_blocks(self, model: T5ForConditionalGeneration, batch: dict[str, Tensor], runs: int) -> list[float]:
        """How often each block of both stacks is run, per forward pass."""
        counts: dict[nn.Module, int] = {}
        for stack in (model.encoder, model.decoder):
            for block in stack.block:
                counts[block] = 0
                feed_forward = block.layer[-1]
                feed_forward.register_forward_hook(lambda *_, block=block: counts.update({block: counts[block] + 1}))
        with torch.no_grad():
            for _ in range(runs):
                model(**batch)
        return [count / runs for count in counts.values()]

    def test_every_block_but_the_first_is_skipped_at_the_rate(self, make: Make, batch: dict[str, Tensor]) -> None:
        torch.manual_seed(0)
        small = {name: tensor[:1, :2] for name, tensor in batch.items()}
        shares = self.count_blocks(use_layer_drop(use_fast_kernels(make(layers=3)), 0.25).train(), small, 60)
        assert shares[0] == shares[3] == 1
        assert all(0.55 < share < 0.95 for share in (*shares[1:3], *shares[4:]))

    def test_outside_training_no_block_is_skipped(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_layer_drop(use_fast_kernels(make(layers=3)), 0.9).eval()
        assert self.count_blocks(model, batch, 3) == [1] * 6
        torch.testing.assert_close(model(**batch).logits, make(layers=3).eval()(**batch).logits, rtol=1e-5, atol=1e-5)

    def test_a_skipped_block_is_as_if_it_was_not_there(self, make: Make, batch: dict[str, Tensor]) -> None:
        skipping, short = (
            use_layer_drop(use_fast_kernels(make(layers=3)), 1.0).train(),
            use_fast_kernels(make(layers=3)),
        )
        for stack in (short.encoder, short.decoder):
            del stack.block[1:]
        expected, wanted = logits_and_gradients(short.train(), batch)
        logits, gradients = logits_and_gradients(skipping, batch)
        torch.testing.assert_close(logits, expected)
        assert {*gradients} == {*wanted}


def test_our_configuration() -> None:
    config = t5_config(100, encoder_layers=3, decoder_layers=2, width=48, heads=4, head_width=7, feed_forward_width=64,
                       dropout=0.2, max_tokens=40)  # fmt: skip
    model = T5ForConditionalGeneration(config)
    assert (len(model.encoder.block), len(model.decoder.block)) == (3, 2)
    assert model.encoder.block[0].layer[0].SelfAttention.q.weight.shape == (28, 48)
    assert model.lm_head.weight is model.shared.weight
    assert config.relative_attention_max_distance == 40
    assert model.encoder.block[1].layer[1].DenseReluDense.dropout.p == 0.2
    assert isinstance(model.encoder.block[1].layer[1].DenseReluDense.act, nn.ReLU)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)


@pytest.mark.parametrize("max_tokens", [4, 8, 16, 17])
def test_a_model_for_short_text_reads_long_text(max_tokens: int) -> None:
    config = t5_config(9, encoder_layers=1, decoder_layers=1, width=8, heads=1, head_width=8, max_tokens=max_tokens)
    ids = torch.ones(1, 60, dtype=torch.long)
    assert T5ForConditionalGeneration(config)(input_ids=ids, labels=ids).loss.isfinite()


class TestLoading:
    @pytest.fixture
    def folder(self, make: Make, tmp_path: Path) -> Path:
        make().save_pretrained(str(tmp_path / "model"))
        return tmp_path / "model"

    def test_a_folder_round_trip(self, make: Make, folder: Path, batch: dict[str, Tensor]) -> None:
        loaded = load_model(folder)
        assert not loaded.training
        assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
        assert loaded.config.decoder_start_token_id == 0
        torch.testing.assert_close(loaded(**batch).logits, make().eval()(**batch).logits)

    def test_a_stored_half_precision_is_widened(self, make: Make, tmp_path: Path) -> None:
        make().to(torch.bfloat16).save_pretrained(str(tmp_path))
        assert {weight.dtype for weight in load_model(tmp_path).parameters()} == {torch.float32}

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"could not be read: got .*nowhere .*accepted a Hugging Face folder"):
            load_model(tmp_path / "nowhere")

    def test_another_architecture(self, tmp_path: Path) -> None:
        BertConfig().save_pretrained(str(tmp_path))
        with pytest.raises(
            CheckpointError, match=r"^this architecture is not supported: got 'bert' in .*, accepted 't5'"
        ):
            load_model(tmp_path)

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"could not be read: got .*OSError"):
            load_model(folder)

    def test_weights_cut_short(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=r"could not be read: got .*Safetensor"):
            load_model(folder)

    def test_a_missing_weight_is_not_made_up(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["decoder.block.1.layer.2.DenseReluDense.wo.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"1 weights are missing, such as decoder\.block\.1\.layer\.2\.Dense"):
            load_model(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "d_ff": 33}))
        with pytest.raises(CheckpointError, match="could not be read: got "):
            load_model(folder)
