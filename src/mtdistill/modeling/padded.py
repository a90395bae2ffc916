"""A T5 forward pass through transformers' own modules, for any T5 on any device.

What `mtdistill.modeling.packed` is checked against, and what runs where that does not cover a model. Imported by
distillation, teacher and training; imports data.
"""

import torch
from torch import Tensor, nn

from mtdistill.data.batches import IGNORED_LABEL, PackedBatch


def teacher_forced_logits(model: nn.Module, batch: PackedBatch, pad_id: int = 0, start_id: int = 0) -> Tensor:
    """(target tokens, vocabulary) logits of the next token, given the gold tokens before it; any T5, any device."""
    return teacher_forced(model, batch, pad_id, start_id)[0]


def teacher_forced(model: nn.Module, batch: PackedBatch, pad_id: int = 0, start_id: int = 0) -> tuple[Tensor, Tensor]:
    """`teacher_forced_logits`, and the (target tokens, width) states they come from, without the scale of a tied head."""
    input_ids, attention_mask, labels = batch.padded(pad_id)
    shifted = torch.cat([labels.new_full((len(labels), 1), start_id), labels[:, :-1]], dim=1)
    output = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=shifted.masked_fill(shifted == IGNORED_LABEL, pad_id),
        use_cache=False,
        output_hidden_states=True,
    )
    real = labels != IGNORED_LABEL
    return output.logits[real], output.decoder_hidden_states[-1][real]
