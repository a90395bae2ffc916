"""A T5 model as two ONNX graphs, in the form of Optimum, which transformers.js reads.

The decoder takes keys and values of what it has attended to so far, of the output *and* of the source, and projects
only what is new: at the first step the whole source, after that nothing of it. So one graph without branches serves
every step. Imported by export.onnx; imports decoding.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtdistill.decoding.onnx import OnnxGraph

if TYPE_CHECKING:
    from onnx import ModelProto
    from transformers import T5ForConditionalGeneration

_OPSET = 17  # read by every ONNX Runtime since 1.12
_MASKED = torch.finfo(torch.float32).min


def matrix_names(model: T5ForConditionalGeneration) -> set[str]:
    """Names of the matrices that the graphs multiply by, and of the two embeddings that they look up in."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return linear | {"encoder.embed_tokens", "decoder.embed_tokens"}


def traced_graphs(model: T5ForConditionalGeneration, rounded: Collection[str] = ()) -> dict[OnnxGraph, ModelProto]:
    """Both graphs of a model, float32; each matrix but the embeddings is stored as ``<its name>.weight``, transposed.

    Args:
        model: float32, on the CPU, in evaluation mode; its modules are replaced.
        rounded: embeddings that are stored in 8 bits.
    """
    _prepare_weights(model, rounded)
    return {"encoder_model": _encoder_graph(model), "decoder_model_merged": _decoder_graph(model)}


class _Product(nn.Module):
    """A linear layer whose matrix is stored the way it is multiplied, (inputs, outputs).

    `nn.Linear` would be exported as a constant without a name.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class _RoundedRows(nn.Module):
    """An embedding in 8 bits with one scale per row; the quantiser of ONNX Runtime has one for the whole matrix."""

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.weight = nn.Parameter((weight / scales).round().to(torch.int8), requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        rows, scales = nn.functional.embedding(ids, self.weight), nn.functional.embedding(ids, self.scales)
        return rows.float() * scales


class _Positions(nn.Module):
    """Position offsets of a stack, looked up by distance: no logarithm is left for the graph to compute.

    Args:
        attention: the attention that owns them.
        causal: positions after the query are masked.
    """

    def __init__(self, attention: Any, causal: bool) -> None:
        super().__init__()
        buckets, saturation = attention.relative_attention_num_buckets, attention.relative_attention_max_distance
        self.farthest = max(buckets, saturation)  # from here on all distances share an offset
        distances = torch.arange(-self.farthest, self.farthest + 1)
        places = attention._relative_position_bucket(
            distances, bidirectional=not causal, num_buckets=buckets, max_distance=saturation
        )
        offsets = attention.relative_attention_bias.weight.detach()[places]
        if causal:
            offsets[distances > 0] = _MASKED
        self.offsets = nn.Parameter(offsets, requires_grad=False)

    def forward(self, queries: Any, keys: Any) -> Tensor:
        """(1, heads, queries, keys); the queries are the last of the keys."""
        distances = torch.arange(keys)[None, :] - torch.arange(keys - queries, keys)[:, None]
        rows = distances.clamp(-self.farthest, self.farthest) + self.farthest
        return nn.functional.embedding(rows, self.offsets).permute(2, 0, 1)[None]


class _Encoder(nn.Module):
    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.positions = _Positions(model.encoder.block[0].layer[0].SelfAttention, causal=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(sentences, source tokens, width) states."""
        x: Tensor = self.encoder.embed_tokens(input_ids)
        bias = self.positions(input_ids.shape[1], input_ids.shape[1]) + _padding_bias(attention_mask)
        for block in self.encoder.block:
            attending, feeding = block.layer
            normed = _norm(x, attending.layer_norm)
            x = x + _attend(attending.SelfAttention, normed, *_keys_values(attending.SelfAttention, normed), bias)
            x = x + feeding.DenseReluDense(_norm(x, feeding.layer_norm))
        return _norm(x, self.encoder.final_layer_norm)


class _Decoder(nn.Module):
    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.decoder, self.lm_head = model.decoder, model.lm_head
        self.positions = _Positions(model.decoder.block[0].layer[0].SelfAttention, causal=True)
        self.scale = model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", True) else 1.0

    def forward(self, mask: Tensor, input_ids: Tensor, states: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, and for each layer keys and values of the output so far, then keys and values of the source."""
        x: Tensor = self.decoder.embed_tokens(input_ids)
        bias = self.positions(input_ids.shape[1], past[0].shape[2] + input_ids.shape[1])
        source_bias, new_states = _padding_bias(mask), states[:, past[2].shape[2] :]
        present: list[Tensor] = []
        for index, block in enumerate(self.decoder.block):
            attending, crossing, feeding = block.layer
            normed, before = _norm(x, attending.layer_norm), past[4 * index : 4 * index + 4]
            own = _keys_values(attending.SelfAttention, normed, before[:2])
            x = x + _attend(attending.SelfAttention, normed, *own, bias)
            source = _keys_values(crossing.EncDecAttention, new_states, before[2:])
            x = x + _attend(crossing.EncDecAttention, _norm(x, crossing.layer_norm), *source, source_bias)
            x = x + feeding.DenseReluDense(_norm(x, feeding.layer_norm))
            present += [*own, *source]
        return self.lm_head(_norm(x, self.decoder.final_layer_norm, self.scale)), *present


def _norm(x: Tensor, layer: Any, scale: float = 1.0) -> Tensor:
    # Divided by a root, not multiplied by rsqrt: the form that ONNX Runtime knows to compute as one operation.
    normed: Tensor = layer.weight * scale * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon))
    return normed


def _heads(x: Tensor, attention: Any) -> Tensor:
    """(rows, tokens, heads * head width) to (rows, heads, tokens, head width)."""
    return x.view(x.shape[0], x.shape[1], attention.n_heads, attention.key_value_proj_dim).transpose(1, 2)


def _keys_values(attention: Any, x: Tensor, before: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """Keys and values of `x`, after those from before."""
    keys, values = _heads(attention.k(x), attention), _heads(attention.v(x), attention)
    return (torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)) if before else (keys, values)


def _attend(attention: Any, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    weights = torch.softmax(_heads(attention.q(x), attention) @ keys.transpose(2, 3) + bias, dim=-1)
    mixed = (weights @ values).transpose(1, 2)
    output: Tensor = attention.o(mixed.reshape(mixed.shape[0], mixed.shape[1], attention.inner_dim))
    return output


def _padding_bias(mask: Tensor) -> Tensor:
    return (1 - mask).float()[:, None, None, :] * _MASKED


def _prepare_weights(model: nn.Module, rounded: Collection[str]) -> None:
    """Replace every linear layer, and those embeddings that are `rounded`, by what is to be exported."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, _Product(module))
        elif name in rounded and isinstance(module, nn.Embedding):
            model.set_submodule(name, _RoundedRows(module))


def _encoder_graph(model: T5ForConditionalGeneration) -> ModelProto:
    ids = torch.ones(2, 5, dtype=torch.long)
    source = {0: "batch_size", 1: "encoder_sequence_length"}
    axes = dict.fromkeys(("input_ids", "attention_mask", "last_hidden_state"), source)
    return _traced(_Encoder(model), (ids, ids), ["input_ids", "attention_mask"], ["last_hidden_state"], axes)


def _decoder_graph(model: T5ForConditionalGeneration) -> ModelProto:
    config = model.config
    parts = [
        f"{layer}.{stack}.{part}"
        for layer in range(config.num_decoder_layers)
        for stack in ("decoder", "encoder")
        for part in ("key", "value")
    ]
    # transformers.js begins with a past of 0 in every axis that has a name, but for "batch_size".
    axes = {
        "encoder_attention_mask": {0: "batch_size", 1: "encoder_sequence_length"},
        "input_ids": {0: "batch_size", 1: "decoder_sequence_length"},
        # A name of its own: once the past holds all of the source, these may be left empty.
        "encoder_hidden_states": {0: "batch_size", 1: "encoder_states_length"},
        "logits": {0: "batch_size", 1: "decoder_sequence_length"},
    }
    for part in parts:
        stack = part.split(".")[1]
        axes[f"past_key_values.{part}"] = {0: "batch_size", 2: f"past_{stack}_sequence_length"}
        axes[f"present.{part}"] = {0: "batch_size", 2: f"present_{stack}_sequence_length"}
    past = [torch.zeros(2, config.num_heads, 4 if ".decoder." in part else 3, config.d_kv) for part in parts]
    example = (torch.ones(2, 9, dtype=torch.long), torch.ones(2, 7, dtype=torch.long),
               torch.zeros(2, 9, config.d_model), *past)  # fmt: skip
    inputs = ["encoder_attention_mask", "input_ids", "encoder_hidden_states", *(f"past_key_values.{p}" for p in parts)]
    return _traced(_Decoder(model), example, inputs, ["logits", *(f"present.{part}" for part in parts)], axes)


def _traced(module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str],
            axes: dict[str, dict[int, str]]) -> ModelProto:  # fmt: skip
    import onnx

    with tempfile.TemporaryDirectory() as scratch, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter calls itself old, and sizes that are traced suspicious
        file = Path(scratch) / "graph.onnx"
        torch.onnx.export(
            module, example, file, dynamo=False, opset_version=_OPSET, input_names=inputs, output_names=outputs,
            dynamic_axes=axes,
        )  # fmt: skip
        return onnx.load_model_from_string(file.read_bytes())
