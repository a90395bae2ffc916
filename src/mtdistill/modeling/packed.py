"""A T5 forward pass over packed tokens, for training on a CPU: the sentences one after the other, without padding.

The model is a plain `T5ForConditionalGeneration`; its weights are read, its modules are not called. Without dropout the
result is what its own forward pass gives, up to rounding. Imported by distillation, teacher and training; imports data,
kernels and modeling.sublayers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch
from mtdistill.kernels.attention import Attending
from mtdistill.kernels.numbers import hashed
from mtdistill.modeling import sublayers
from mtdistill.modeling.sublayers import Dropout

# A matrix library prepares code for every shape it meets, about 1 ms each: 30 to 40 numbers of rows instead of hundreds.
ROW_MULTIPLE = 32


@dataclass
class Noise:
    """Where a pass gets its dropout from: every place has a seed of its own, all decided by one.

    Args:
        seed: of the pass, >= 0.
        rate: of dropout, in [0, 1).
    """

    seed: int
    rate: float
    used: int = field(default=0, init=False)

    def dropout(self) -> Dropout | None:
        """For the next place; None at rate 0."""
        return Dropout(self.rate, self._next()) if self.rate > 0 else None

    def happens(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0 and self._next() < probability * 2.0**64

    def _next(self) -> int:
        self.used += 1
        return hashed(self.seed, self.used)


def supports(model: T5ForConditionalGeneration) -> bool:
    """Whether this forward pass covers the model: one table for what the decoder reads and writes, ReLU, on a CPU."""
    config, table = model.config, model.shared.weight
    plain = config.feed_forward_proj == "relu" and getattr(config, "scale_decoder_outputs", True)
    others = (model.decoder.embed_tokens, model.lm_head)
    return bool(plain and all(other.weight is table for other in others) and model.device.type == "cpu")


def decoder_states(model: T5ForConditionalGeneration, batch: PackedBatch, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """What the output head reads, teacher-forced: logits are `states @ model.shared.weight.T`.

    Args:
        model: one that `supports`; dropout and dropped layers only in training mode.
        batch: the sentences.
        dtype: of the matrix products; float64 needs a model of that type.
        seed: of dropout and dropped layers, in [0, 2^64).

    Returns:
        (target tokens, width) in `dtype`, after the final norm and the scale of a tied head.
    """
    config, noise = model.config, Noise(seed, model.config.dropout_rate if model.training else 0.0)
    source, target = _filled(batch.source_ids), _filled(batch.decoder_input_ids(config.decoder_start_token_id))
    x, y = (_dropped(embedded, noise) for embedded in _embedded(model, source, target))
    epsilon, heads = config.layer_norm_epsilon, config.num_heads

    def self_attend(x: Tensor, layer: Any, offsets: Tensor, attending: Attending) -> Tensor:
        inner = layer.SelfAttention
        return sublayers.self_attention(
            x, layer.layer_norm.weight, inner.q.weight, inner.k.weight, inner.v.weight, inner.o.weight, offsets,
            attending, epsilon, dtype, noise.dropout(),
        )  # fmt: skip

    def feed_forward(x: Tensor, layer: Any) -> Tensor:
        inner = layer.DenseReluDense
        return sublayers.feed_forward(
            x, layer.layer_norm.weight, inner.wi.weight, inner.wo.weight, epsilon, dtype, noise.dropout(),
            noise.dropout(),
        )  # fmt: skip

    attending = Attending(batch.source_starts, batch.source_starts, False, heads)
    offsets = _offsets(model.encoder, batch.source_starts)
    for block in _kept(model.encoder, noise):
        x = self_attend(x, block.layer[0], offsets, attending)
        x = feed_forward(x, block.layer[1])
    states = _dropped(sublayers.norm(x, model.encoder.final_layer_norm.weight, epsilon, dtype), noise)
    attending = Attending(batch.target_starts, batch.target_starts, True, heads)
    crossing = Attending(batch.target_starts, batch.source_starts, False, heads)
    offsets = _offsets(model.decoder, batch.target_starts)
    for block in _kept(model.decoder, noise):
        y = self_attend(y, block.layer[0], offsets, attending)
        inner = block.layer[1].EncDecAttention
        y = sublayers.cross_attention(
            y, block.layer[1].layer_norm.weight, states, inner.q.weight, inner.k.weight, inner.v.weight,
            inner.o.weight, crossing, epsilon, dtype, noise.dropout(),
        )  # fmt: skip
        y = feed_forward(y, block.layer[2])
    # The scale of the tied head goes into the gain, where it costs nothing.
    gain = model.decoder.final_layer_norm.weight * config.d_model**-0.5
    return _dropped(sublayers.norm(y, gain, epsilon, dtype), noise)[: len(batch.labels)]


def _filled(ids: Tensor) -> Tensor:
    return functional.pad(ids, (0, -len(ids) % ROW_MULTIPLE))


def _embedded(model: T5ForConditionalGeneration, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    tables = model.encoder.embed_tokens.weight, model.shared.weight
    if tables[0] is not tables[1]:
        return functional.embedding(source, tables[0]), functional.embedding(target, tables[1])
    both = functional.embedding(torch.cat([source, target]), tables[1])  # and so one gradient of the table, not two
    return both[: len(source)], both[len(source) :]


def _dropped(x: Tensor, noise: Noise) -> Tensor:
    dropout = noise.dropout()
    return x if dropout is None else sublayers.dropped(x, dropout)


def _offsets(stack: Any, starts: Tensor) -> Tensor:
    """(heads, longest, longest) position offsets of the stack's self-attention."""
    longest = int(starts.diff().max())
    bias: Tensor = stack.block[0].layer[0].SelfAttention.compute_bias(longest, longest)
    return bias[0].contiguous()


def _kept(stack: Any, noise: Noise) -> Iterator[Any]:
    """The blocks of this pass; in training those with a `drop_rate` may be left out."""
    for block in stack.block:
        if not (stack.training and noise.happens(getattr(block, "drop_rate", 0.0))):
            yield block
