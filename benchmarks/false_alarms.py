"""Would a good run of a preset be taken for one with loss spikes? As many updates as it has, in minutes.

    python benchmarks/false_alarms.py conservative --student RUN      # a trained student of about that size

Training sentences, 16,000 of them if there are so many, are given to the student once, with dropout, under the objective
of the preset. From these losses as many updates as the whole run has are put together, batch by batch and epoch by epoch
as the trainer would draw them, and handed to the detector. The student does not learn meanwhile, which the detector would
not see either: it looks at fifty updates at a time. Prints how often a spike is seen if so many updates in a row have to be
high; the detector's own choice for the preset is marked.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from mtdistill.config import apply_overrides
from mtdistill.data.batches import LengthBucketBatches, PackedRows, token_lengths
from mtdistill.display import Display
from mtdistill.distillation.budget import training_rows, training_schedule
from mtdistill.distillation.losses import forward_kl, gold_loss
from mtdistill.distillation.materials import prepare_materials
from mtdistill.health.series import WINDOW, loss_spike, updates_of_a_spike
from mtdistill.modeling import use_dropout
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.presets import load_preset
from mtdistill.student.bundle import load_student
from mtdistill.teacher.targets import LiveTargets

ROWS = 64
SENTENCES = 16_000


def main() -> None:
    """Score the sentences, replay the run, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--student", type=Path, required=True, help="run folder or student_best.pt")
    parser.add_argument("--output", default="train_process", help="where prepared data lies, or is put")
    arguments = parser.parse_args()
    display = Display(Console())
    config = apply_overrides(load_preset(arguments.preset).config, [f"output={arguments.output}"])
    materials = prepare_materials(config, display)
    model = load_student(arguments.student).model
    rows, schedule, kd = training_rows(materials.data, config.training), training_schedule(config.training), config.kd
    wanted = schedule.updates(len(rows))
    rows = rows.shuffle(seed=schedule.seed).select(range(min(len(rows), SENTENCES)))
    lengths, packed = token_lengths(rows), PackedRows(rows, schedule.max_sequence_length)
    targets = LiveTargets(materials.teacher.model)
    use_dropout(model, config.training.dropout)
    model.train()
    tokens = lengths[:, 1].clip(max=schedule.max_sequence_length)
    losses = np.zeros(len(rows))
    torch.manual_seed(schedule.seed)
    with display.bar("sentences", len(rows)) as bar, torch.no_grad():
        for first in range(0, len(rows), ROWS):
            batch = packed.batch(list(range(first, min(first + ROWS, len(rows)))))
            logits = teacher_forced_logits(model, batch, start_id=model.config.decoder_start_token_id)
            divergence = forward_kl(logits, targets.states(batch) @ targets.head.T, temperature=kd.temperature)
            gold = gold_loss(logits, batch.labels, label_smoothing=kd.label_smoothing)
            each = kd.alpha * kd.temperature**2 * divergence + kd.beta * gold
            losses[first : first + ROWS] = [
                part.sum().item() for part in each.split(batch.target_starts.diff().tolist())
            ]
            bar.advance_to(first + len(batch))
    order = LengthBucketBatches(lengths, schedule.batch_size, schedule.seed, schedule.gradient_accumulation)
    updates: list[float] = []
    while len(updates) < wanted:
        updates += [losses[batch].sum() / tokens[batch].sum() for batch in order]
        order.set_epoch(order.epoch + 1)
    updates, per_update = updates[:wanted], tokens.sum() / len(order)
    chosen = updates_of_a_spike(per_update)
    display.say(f"{len(updates):,} updates of {per_update:.0f} target tokens on average")
    for in_a_row in range(1, 7):
        recent = WINDOW + in_a_row
        count = sum(bool(loss_spike(updates[max(0, end - recent) : end], in_a_row)) for end in range(len(updates)))
        display.say(f"{in_a_row} in a row: {count} spikes{'  <- the detector' if in_a_row == chosen else ''}")


if __name__ == "__main__":
    main()
