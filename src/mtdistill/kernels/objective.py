"""The distillation objective of a chunk of tokens and its gradient, row by row, while the row is in the cache.

Imported by training; imports kernels.numbers. What the numbers mean: `mtdistill.distillation.losses`.
"""

import numpy as np
from torch import Tensor

from mtdistill.kernels.numbers import Array, array, compiled, exponential, highest, load, number, scratch, store


def objective_gradient(logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, *, temperature: float,
                       kd_weight: float, gold_weight: float, label_smoothing: float) -> tuple[float, float]:  # fmt: skip
    """Replace logits by the gradient of the weighted loss, and return the two losses as sums over the tokens.

    Args:
        logits: (tokens, vocabulary) of the student; overwritten.
        teacher_logits: likewise, or None: no teacher.
        labels: (tokens,) int64 gold ids.
        temperature: > 0, of the divergence.
        kd_weight: weight of the divergence, its factor temperature^2 included.
        gold_weight: weight of the cross-entropy.
        label_smoothing: in [0, 1).

    Returns:
        Divergence KL(teacher || student) at the temperature, and smoothed cross-entropy; nats, summed over tokens.
    """
    teacher = logits[:0] if teacher_logits is None else teacher_logits
    kd, gold = _rows(array(logits), array(teacher), array(labels), 1 / temperature, kd_weight, gold_weight,
                     label_smoothing)  # fmt: skip
    return float(kd), float(gold)


@compiled
def _rows(logits: Array, teacher: Array, labels: Array, coldness: float, kd_weight: float, gold_weight: float,
          label_smoothing: float) -> tuple[float, float]:  # fmt: skip
    tokens, vocabulary = logits.shape
    with_teacher = len(teacher) > 0
    sharp, soft, target = scratch(logits, vocabulary), scratch(logits, vocabulary), scratch(logits, vocabulary)
    cold, spread = number(logits, coldness), number(logits, gold_weight * label_smoothing / vocabulary)
    kd_sum = gold_sum = 0.0
    for token in range(tokens):
        row, label = logits[token], labels[token]
        top, total = highest(row), number(logits, 0)
        for word in range(vocabulary):
            total += load(row[word])
        label_logit = load(row[label])
        sharp_sum, soft_sum, target_sum = number(logits, 0), number(logits, 0), number(logits, 0)
        if with_teacher:
            teacher_row = teacher[token]
            teacher_top, cross = highest(teacher_row), number(logits, 0)
            for word in range(vocabulary):
                below, teacher_below = load(row[word]) - top, load(teacher_row[word]) - teacher_top
                sharp[word] = exponential(below)
                soft[word] = exponential(below * cold)
                target[word] = exponential(teacher_below * cold)
                sharp_sum += sharp[word]
                soft_sum += soft[word]
                target_sum += target[word]
                cross += target[word] * (teacher_below - below)
            kd_sum += cross * cold / target_sum - np.log(target_sum) + np.log(soft_sum)
        else:
            for word in range(vocabulary):
                sharp[word] = exponential(load(row[word]) - top)
                sharp_sum += sharp[word]
        sharp_share = number(logits, gold_weight) / sharp_sum
        label_slope = sharp[label] * sharp_share - spread - number(logits, gold_weight * (1 - label_smoothing))
        # A teacher of weight 0 is reported, but its slopes stay out: 0 times one that is not finite would not be 0.
        if with_teacher and kd_weight > 0:
            soft_share = number(logits, kd_weight * coldness) / soft_sum
            target_share = number(logits, kd_weight * coldness) / target_sum
            for word in range(vocabulary):
                slope = sharp[word] * sharp_share + soft[word] * soft_share - target[word] * target_share
                store(row, word, slope - spread)
            label_slope += soft[label] * soft_share - target[label] * target_share
        else:
            for word in range(vocabulary):
                store(row, word, sharp[word] * sharp_share - spread)
        store(row, label, label_slope)
        # The smoothing term reads every logit even at weight 0, so that one that is not finite always shows.
        log_sum = top + np.log(sharp_sum)
        gold_sum += log_sum - (1 - label_smoothing) * label_logit - label_smoothing * (total / vocabulary)
    return kd_sum, gold_sum
