"""Random models whose weights all matter, and packed sentences of very different lengths."""

from collections.abc import Callable

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch
from mtdistill.modeling import t5_config

VOCABULARY = 50
LENGTHS = [(13, 4), (6, 19), (1, 7), (4, 1)]  # distances that share a bucket of the relative positions, and one token
Make = Callable[..., T5ForConditionalGeneration]


@pytest.fixture
def make() -> Make:
    """A random T5 whose norm gains differ, as training leaves them."""

    def make_model(*, dropout: float = 0.0, layers: int = 2, **changes: object) -> T5ForConditionalGeneration:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = t5_config(VOCABULARY, encoder_layers=layers, decoder_layers=layers, width=24, heads=3,
                               head_width=5, feed_forward_width=32, dropout=dropout)  # fmt: skip
            model = T5ForConditionalGeneration(T5Config(**{**config.to_dict(), **changes}))
            for name, parameter in model.named_parameters():
                if "layer_norm" in name:
                    parameter.data.uniform_(0.5, 2.0)
                elif "relative_attention_bias" in name:
                    parameter.data.normal_()
        return model

    return make_model


@pytest.fixture
def packed() -> PackedBatch:
    """Four pairs of different lengths."""
    generator = torch.Generator().manual_seed(1)
    sources, targets = (torch.tensor([0, *lengths]).cumsum(0) for lengths in zip(*LENGTHS, strict=True))
    return PackedBatch(
        torch.randint(2, VOCABULARY, (int(sources[-1]),), generator=generator),
        sources,
        torch.randint(2, VOCABULARY, (int(targets[-1]),), generator=generator),
        targets,
        torch.arange(len(LENGTHS)),
    )
