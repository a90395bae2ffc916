"""Our configuration is a plain T5; a folder is read whole or refused; dropped layers are left out in training only."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch
from mtdistill.errors import CheckpointError
from mtdistill.modeling import load_model, t5_config, use_dropout, use_layer_drop

Make = Callable[..., T5ForConditionalGeneration]


@pytest.fixture
def batch(packed: PackedBatch) -> dict[str, Tensor]:
    """The packed sentences, padded."""
    return dict(zip(("input_ids", "attention_mask", "labels"), packed.padded(), strict=True))


def logits_and_gradients(
    model: T5ForConditionalGeneration, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients


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
        shares = self.count_blocks(use_layer_drop(make(layers=3), 0.25).train(), small, 60)
        assert shares[0] == shares[3] == 1
        assert all(0.55 < share < 0.95 for share in (*shares[1:3], *shares[4:]))

    def test_outside_training_no_block_is_skipped(self, make: Make, batch: dict[str, Tensor]) -> None:
        model = use_layer_drop(make(layers=3), 0.9).eval()
        assert self.count_blocks(model, batch, 3) == [1] * 6
        torch.testing.assert_close(model(**batch).logits, make(layers=3).eval()(**batch).logits, rtol=1e-5, atol=1e-5)

    def test_a_skipped_block_is_as_if_it_was_not_there(self, make: Make, batch: dict[str, Tensor]) -> None:
        skipping, short = use_layer_drop(make(layers=3), 1.0).train(), make(layers=3)
        for stack in (short.encoder, short.decoder):
            del stack.block[1:]
        expected, wanted = logits_and_gradients(short.train(), batch)
        logits, gradients = logits_and_gradients(skipping, batch)
        torch.testing.assert_close(logits, expected)
        assert {*gradients} == {*wanted}

    def test_saved_and_loaded_it_is_a_stock_model(self, make: Make, batch: dict[str, Tensor], tmp_path: Path) -> None:
        skipping = use_layer_drop(make(), 0.5).eval()
        skipping.save_pretrained(str(tmp_path))
        loaded = load_model(tmp_path)
        assert {name: tensor.tolist() for name, tensor in loaded.state_dict().items()} == {
            name: tensor.tolist() for name, tensor in make().state_dict().items()
        }
        assert not any(type(module).__module__.startswith("mtdistill") for module in loaded.modules())
        torch.testing.assert_close(loaded(**batch).logits, skipping(**batch).logits, rtol=1e-5, atol=1e-5)


class TestDropout:
    def outputs(self, rate: float) -> tuple[Tensor, Tensor]:
        """In training and in evaluation mode."""
        torch.manual_seed(0)
        config = t5_config(40, encoder_layers=2, decoder_layers=2, width=16, heads=2, head_width=8, dropout=0.5)
        model = use_dropout(T5ForConditionalGeneration(config), rate)
        ids = torch.arange(2, 12)[None]
        return model.train()(input_ids=ids, labels=ids).logits, model.eval()(input_ids=ids, labels=ids).logits

    def test_none_is_none_at_all(self) -> None:
        trained, evaluated = self.outputs(0.0)
        assert torch.equal(trained, evaluated)

    def test_a_rate_drops(self) -> None:
        trained, evaluated = self.outputs(0.3)
        assert not torch.allclose(trained, evaluated, atol=1e-2)

    def test_attention_weights_are_never_dropped(self) -> None:
        model = use_dropout(
            T5ForConditionalGeneration(t5_config(40, encoder_layers=1, decoder_layers=1, dropout=0.1)), 0.3
        )
        found = [module.dropout for module in model.modules() if type(module).__name__ == "T5Attention"]
        assert found
        assert not any(found)
        assert model.config.dropout_rate == 0.3


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
