"""T5 models as this project uses them: the configuration of our own, reading a folder, and dropping layers.

Imported by student, modeling and modeling.folder.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention, T5Block

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
        raise unreadable(folder, f"{type(error).__name__}: {error}") from error
    if info["missing_keys"]:  # transformers only warns, and goes on with random weights
        names = sorted(info["missing_keys"])
        raise unreadable(folder, tr(en=f"{len(names)} weights are missing, such as {names[0]}",
                                     zh=f"缺少 {len(names)} 个权重，例如 {names[0]}"))  # fmt: skip
    return model.eval()


def use_layer_drop(model: T5ForConditionalGeneration, rate: float) -> T5ForConditionalGeneration:
    """Skip whole blocks at random in training, in place; every stack's first block, which owns the bias, stays.

    Regularises on small data, and makes a model that loses little when layers are taken out for a student
    (LayerDrop, Fan et al. 2020, arXiv:1909.11556). One draw for all sentences of a forward pass, so a skipped block also
    costs nothing.

    Args:
        model: changed in place.
        rate: chance in [0, 1) that a block is skipped.
    """
    for stack in (model.encoder, model.decoder):
        for block in list(stack.block)[1:]:
            block.__class__ = _DroppableBlock
            block.drop_rate = rate
    return model


def use_dropout(model: T5ForConditionalGeneration, rate: float) -> T5ForConditionalGeneration:
    """Set dropout everywhere but on attention weights, where there is none, in place.

    transformers also drops attention weights at `config.dropout_rate`. The kernels do not, and training with either
    means the same.

    Args:
        model: changed in place.
        rate: in [0, 1).
    """
    model.config.dropout_rate = rate
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif isinstance(module, T5Attention):
            module.dropout = 0.0
    return model


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


def unreadable(path: Path, detail: str) -> CheckpointError:
    """The error for a model that is damaged, or no T5."""
    return CheckpointError(
        tr(
            en=f"the model could not be read: got {path} ({detail}), accepted a Hugging Face folder or a student's "
            ".pt with a T5 model, its tokenizer and nothing that runs code. Check the path, or copy it again.",
            zh=f"无法读取模型：{path}（{detail}），需要 Hugging Face 文件夹或学生模型的 .pt，含有 T5 模型及其分词器，"
            "且不含任何可执行代码。请检查路径，或重新复制。",
        )
    )
