"""T5 models as this project uses them: the configuration of our own, reading a folder, and faster training on CPUs.

The fast kernels change no parameter name and, in float32, no result beyond rounding; they remove what a profile of
bfloat16 training on a CPU showed to cost more than the matrix products: repeated casts, a norm in seven passes, and
dropout that draws one random number for every element. Imported by teacher, student and distillation.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention, T5Block, T5DenseActDense, T5LayerNorm

from mtdistill.errors import CheckpointError
from mtdistill.messages import tr


def t5_config(vocabulary_size: int, *, encoder_layers: int, decoder_layers: int, width: int = 256, heads: int = 8,
              head_width: int = 32, feed_forward_width: int = 1024, dropout: float = 0.1,
              max_tokens: int = 32) -> T5Config:  # fmt: skip
    """Our T5: ReLU feed-forward, tied embeddings, relative positions resolved up to the training length.

    Args:
        vocabulary_size: pieces of the tokenizer.
        encoder_layers: blocks of the encoder.
        decoder_layers: blocks of the decoder.
        width: of the residual stream.
        heads: of every attention.
        head_width: of one head; heads * head_width need not be the width.
        feed_forward_width: inner width of the feed-forward layers.
        dropout: rate in [0, 1).
        max_tokens: longest sequence of the training.
    """
    return T5Config(
        vocab_size=vocabulary_size,
        d_model=width,
        num_heads=heads,
        d_kv=head_width,
        d_ff=feed_forward_width,
        num_layers=encoder_layers,
        num_decoder_layers=decoder_layers,
        dropout_rate=dropout,
        feed_forward_proj="relu",
        # Not below the number of buckets: T5 spaces them by the logarithm of distance / 16, and 16 / 16 has none.
        relative_attention_max_distance=max(max_tokens, 32),
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,  # not a field of T5Config in transformers 5, yet generation needs it
    )


def load_model(folder: Path) -> T5ForConditionalGeneration:
    """The T5 model of a Hugging Face folder, float32, in evaluation mode.

    Raises:
        CheckpointError: the folder is missing, damaged, incomplete, or holds another architecture.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if config.model_type != "t5":
            raise _other_architecture(folder, config.model_type)
        model, info = T5ForConditionalGeneration.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except CheckpointError:
        raise
    except Exception as error:  # transformers, safetensors and json each raise their own for a damaged file
        raise _unreadable(folder, f"{type(error).__name__}: {error}") from error
    if info["missing_keys"]:  # transformers only warns, and goes on with random weights
        names = sorted(info["missing_keys"])
        raise _unreadable(folder, tr(en=f"{len(names)} weights are missing, such as {names[0]}",
                                     zh=f"缺少 {len(names)} 个权重，例如 {names[0]}"))  # fmt: skip
    return model.eval()


def use_fast_kernels(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """Make training of this model faster, in place; saving, loading and evaluation are unaffected.

    Attention weights get no dropout: it costs a fifth of a step on a CPU and brought no quality we could measure.
    """
    # The default leaves out the causal mask and has its kernel add it; ours reads the mask.
    model.set_attn_implementation("eager")
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, ByteDropout(child.p).train(child.training))
        if type(module) is T5LayerNorm:
            module.__class__ = _FusedNorm
        elif type(module) is T5DenseActDense:
            module.__class__ = _DenseActDense
        elif type(module) is T5Attention:
            module.__class__ = _Attention
    for block in model.decoder.block:
        block.layer[1].EncDecAttention.reads_encoder = True
    return model


def use_layer_drop(model: T5ForConditionalGeneration, rate: float) -> T5ForConditionalGeneration:
    """Skip whole blocks at random in training, in place; every stack's first block, which owns the bias, stays.

    Regularises on small data, and makes a model that loses little when layers are taken out for a student
    (LayerDrop, Fan et al. 2020, arXiv:1909.11556). One draw for a whole batch, so a skipped block also costs nothing.

    Args:
        model: changed in place.
        rate: chance in [0, 1) that a block is skipped.
    """
    for stack in (model.encoder, model.decoder):
        for block in list(stack.block)[1:]:
            block.__class__ = _DroppableBlock
            block.drop_rate = rate
    return model


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The type matrix products run in now: autocast's where it is on, else the tensor's own."""
    if torch.is_autocast_enabled(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype


class ByteDropout(nn.Module):
    """Dropout that compares one random byte per element: a single 64-bit draw serves eight elements.

    The rate is rounded to a multiple of 1/256, and survivors are scaled by the rounded rate, so the expectation is
    exact (in bfloat16: up to the rounding of that factor).

    Args:
        rate: share of the elements that become 0, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = min(round(rate * 256), 255)

    def extra_repr(self) -> str:
        """The rate as it is applied."""
        return f"rate={self.threshold}/256"

    def forward(self, values: Tensor) -> Tensor:
        """Values of the same shape and type; unchanged outside training."""
        if not self.training or self.threshold == 0:
            return values
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64, device=values.device)
        words.random_(torch.iinfo(torch.int64).min, None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.threshold
        # Through uint8, because the conversion of bool is not vectorised; as a factor, because masked_fill is not.
        factor = kept.view(torch.uint8).to(values.dtype).mul_(256 / (256 - self.threshold))
        dropped: Tensor = values * factor
        return dropped


class _RmsNorm(torch.autograd.Function):
    """x * weight / sqrt(mean(x^2) + eps), computed in float32 and handed on in the type of the next product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse_rms = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse_rms)
        return (x * inverse_rms).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, weight, inverse_rms = ctx.saved_tensors
        normed = x * inverse_rms
        gradient = gradients[0].to(normed.dtype)
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = (gradient * normed).flatten(0, -2).sum(0)
        gradient = gradient * weight
        along = (gradient * normed).mean(-1, keepdim=True)
        return gradient.sub_(normed.mul_(along)).mul_(inverse_rms).to(x.dtype), weight_gradient, None, None


class _FusedNorm(T5LayerNorm):  # type: ignore[misc]
    def forward(self, hidden_states: Tensor) -> Tensor:
        dtype = autocast_dtype(hidden_states)
        normed: Tensor = _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
        return normed


class _DenseActDense(T5DenseActDense):  # type: ignore[misc]
    def forward(self, hidden_states: Tensor) -> Tensor:
        # The parent casts to the weights' float32, which autocast would only cast back.
        return self.wo(self.dropout(self.act(self.wi(hidden_states))))  # type: ignore[no-any-return]


class _Attention(T5Attention):  # type: ignore[misc]
    reads_encoder = False  # cross-attention has no position bias; transformers passes zeros

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, key_value_states: Tensor | None = None,
                position_bias: Tensor | None = None, past_key_values: Any = None, **options: Any) -> Any:  # fmt: skip
        if past_key_values is not None or not self.training:
            return super().forward(
                hidden_states, mask=mask, key_value_states=key_value_states, position_bias=position_bias,
                past_key_values=past_key_values, **options,
            )  # fmt: skip
        keys_from = hidden_states if key_value_states is None else key_value_states
        batch, target_len, _ = hidden_states.shape
        source_len = keys_from.shape[1]
        if position_bias is None and self.has_relative_attention_bias:
            position_bias = self.compute_bias(target_len, source_len, device=hidden_states.device)

        def heads(projected: Tensor) -> Tensor:  # (batch * heads, len, head width)
            split = projected.view(batch, -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)
            return split.reshape(batch * self.n_heads, -1, self.key_value_proj_dim)

        query, key, value = heads(self.q(hidden_states)), heads(self.k(keys_from)), heads(self.v(keys_from))
        with torch.autocast(query.device.type, enabled=False):
            scores = torch.bmm(query, key.transpose(1, 2)).view(batch, self.n_heads, target_len, source_len)
            offsets = None if self.reads_encoder else position_bias
            if mask is not None:
                offsets = mask if offsets is None else offsets + mask
            if offsets is not None:
                scores = scores + offsets.to(scores.dtype)
            weights = torch.softmax(scores, dim=-1).view(batch * self.n_heads, target_len, source_len)
            mixed = torch.bmm(weights, value).view(batch, self.n_heads, target_len, self.key_value_proj_dim)
        return self.o(mixed.transpose(1, 2).reshape(batch, target_len, -1)), position_bias, None


class _DroppableBlock(T5Block):  # type: ignore[misc]
    drop_rate = 0.0

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, position_bias: Any = None,
                encoder_hidden_states: Any = None, encoder_attention_mask: Any = None,
                encoder_decoder_position_bias: Any = None, **options: Any) -> Any:  # fmt: skip
        if self.training and torch.rand(()).item() < self.drop_rate:
            return hidden_states, position_bias, encoder_decoder_position_bias
        return super().forward(hidden_states, attention_mask, position_bias, encoder_hidden_states,
                               encoder_attention_mask, encoder_decoder_position_bias, **options)  # fmt: skip


def _other_architecture(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        tr(
            en=f"this architecture is not supported: got {name!r} in {folder}, accepted 't5'. "
            "Use a T5-architecture model, or train one with: mtdistill teacher train",
            zh=f"不支持这种模型结构：{folder} 中是 {name!r}，只接受 't5'。"
            "请使用 T5 结构的模型，或用 mtdistill teacher train 训练一个",
        )
    )


def _unreadable(folder: Path, detail: str) -> CheckpointError:
    return CheckpointError(
        tr(
            en=f"the model could not be read: got {folder} ({detail}), accepted a Hugging Face folder with a T5 model. "
            "Check the path, or copy the folder again.",
            zh=f"无法读取模型：得到 {folder}（{detail}），需要含有 T5 模型的 Hugging Face 文件夹。"
            "请检查路径，或重新复制该文件夹。",
        )
    )
