"""A T5 forward pass through transformers' own modules, for any T5 on any device.

What `mtdistill.modeling.packed` is checked against, and what runs where that does not cover a model. Imported by training.
"""

import torch
from torch import Tensor, nn

from mtdistill.data.batches import IGNORED_LABEL, PackedBatch


def teacher_forced_logits(model: nn.Module, batch: PackedBatch, pad_id: int = 0, start_id: int = 0) -> Tensor:
    """(target tokens, vocabulary) logits of the next token, given the gold tokens before it; any T5, any device."""
    input_ids, attention_mask, labels = batch.padded(pad_id)
    shifted = torch.cat([labels.new_full((len(labels), 1), start_id), labels[:, :-1]], dim=1)
    logits: Tensor = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=shifted.masked_fill(shifted == IGNORED_LABEL, pad_id),
        use_cache=False,
    ).logits
    return logits[labels != IGNORED_LABEL]
