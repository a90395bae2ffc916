"""T5s of every supported kind, small enough to make on the spot."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from mtdistill.messages import set_language

VOCABULARY = 40


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    set_language("en")
    yield
    set_language(None)


@pytest.fixture
def make_teacher() -> Callable[..., T5ForConditionalGeneration]:
    """A random T5 with unequal norm gains, as training leaves them."""

    def make(*, gated: bool = False, ties_head: bool = True, ties_inputs: bool = True, scales_output: bool = True,
             constant_final_gain: bool = True, width: int = 24) -> T5ForConditionalGeneration:  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = T5Config(
                vocab_size=VOCABULARY, d_model=width, d_kv=5, num_heads=4, d_ff=32, num_layers=2, num_decoder_layers=3,
                feed_forward_proj="gated-gelu" if gated else "relu", decoder_start_token_id=0,
            )  # fmt: skip
            config.scale_decoder_outputs = scales_output
            model = T5ForConditionalGeneration(config)
            for part, tied in (("encoder.embed_tokens", ties_inputs), ("lm_head", ties_head)):
                if not tied:
                    model.get_submodule(part).weight = nn.Parameter(torch.randn(VOCABULARY, width))
            for name, parameter in model.named_parameters():
                if "layer_norm" in name:
                    parameter.data.uniform_(0.5, 2.0)
            if constant_final_gain:
                model.decoder.final_layer_norm.weight.data.fill_(1.3)
        return model.train(False)

    return make


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Two batches of random tokens with padding on both sides of the translation."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for rows in (6, 4):
        source = torch.randint(1, VOCABULARY, (rows, 9), generator=generator)
        target = torch.randint(1, VOCABULARY, (rows, 7), generator=generator)
        source[0, 5:], target[0, 3:], target[1, 6:] = 0, -100, -100
        made.append((source, (source != 0).long(), target))
    return made
