"""What a student is shown: the teacher's logits of the real target tokens."""

from typing import Any

import torch

from mtdistill.data.batches import Collator
from mtdistill.data.prepared import PreparedData
from mtdistill.teacher.targets import LiveTargets


def test_logits_of_the_real_tokens_in_their_order(tiny_teacher: Any, tiny_data: PreparedData) -> None:
    model, _ = tiny_teacher
    rows = tiny_data.split("test").to_list()
    batch = Collator(32)(rows)
    logits = LiveTargets(model).logits(batch)
    assert (batch["labels"] == -100).any()
    expected = [model(**Collator(32)([row])).logits[0] for row in rows]  # one by one, without padding
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-4)
    gold = batch["labels"][batch["labels"] != -100]
    assert (logits.argmax(-1) == gold).float().mean() > 0.9  # this teacher knows its corpus


def test_the_teacher_learns_and_drops_nothing(tiny_teacher: Any, tiny_data: PreparedData) -> None:
    model, _ = tiny_teacher
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    targets = LiveTargets(model.train())
    batch = Collator(32)(tiny_data.split("test").to_list())
    first, second = targets.logits(batch), targets.logits(batch)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not model.training
