"""Would a good run of a preset be taken for one with loss spikes, or one that diverges? As many updates as it has, in minutes.

    python benchmarks/false_alarms.py conservative --student RUN      # a trained student of about that size
    python benchmarks/false_alarms.py quick --student RUN --runs 40

Training sentences, 16,000 of them if there are so many, are given to the student once, with dropout, under the objective
that a run of the preset ends with. From these losses as many updates as the whole run has are put together, batch by batch
and epoch by epoch as the trainer would draw them, and handed to the detectors. The student does not learn meanwhile, which
the detectors would not see either: they look at fifty updates at a time. Prints how often a spike is seen if so many
updates in a row have to be high; the detector's own choice for the preset is marked. Then how far above its lowest level
the loss gets, and in how many runs that is taken for divergence.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console

from mtdistill.config import apply_overrides
from mtdistill.data.batches import Batches, PackedRows, token_lengths
from mtdistill.display import Display
from mtdistill.distillation.budget import pairs_per_epoch, training_rows, training_schedule
from mtdistill.distillation.losses import forward_kl, gold_loss, temperature_at
from mtdistill.distillation.materials import prepare_materials
from mtdistill.distillation.pseudo_rows import with_pseudo_targets
from mtdistill.health.series import DIVERGENCE_RATIOS, WINDOW, loss_spike, updates_of_a_spike
from mtdistill.modeling import use_dropout
from mtdistill.modeling.padded import teacher_forced_logits
from mtdistill.presets import load_preset
from mtdistill.student.bundle import load_student
from mtdistill.teacher.targets import LiveTargets
from mtdistill.training.schedule import Schedule

ROWS = 64
SENTENCES = 16_000


def main() -> None:
    """Score the sentences, replay the run, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--student", type=Path, required=True, help="run folder or student_best.pt")
    parser.add_argument("--output", default="train_process", help="where prepared data lies, or is put")
    parser.add_argument("--runs", type=int, default=1, help="put together, each in an order of its own")
    arguments = parser.parse_args()
    display = Display(Console())
    config = apply_overrides(load_preset(arguments.preset).config, [f"output={arguments.output}"])
    materials = prepare_materials(config, display)
    model = load_student(arguments.student).model
    rows, kd = training_rows(materials.data, config.training), config.kd
    schedule = training_schedule(config.training, pairs_per_epoch(config, len(rows)))
    temperature = temperature_at(1.0, kd.temperature, kd.final_temperature)
    rows = with_pseudo_targets(config, materials, rows, display)
    wanted = schedule.updates(len(rows))
    rows = rows.shuffle(seed=schedule.seed).select(range(min(len(rows), SENTENCES)))
    packed = PackedRows(rows, schedule.max_sequence_length)
    targets = LiveTargets(materials.teacher.model)
    use_dropout(model, config.training.dropout)
    model.train()
    tokens = token_lengths(rows)[:, 1].clip(max=schedule.max_sequence_length)
    losses = np.zeros(len(rows))
    torch.manual_seed(schedule.seed)
    with display.bar("sentences", len(rows)) as bar, torch.no_grad():
        for first in range(0, len(rows), ROWS):
            batch = packed.batch(list(range(first, min(first + ROWS, len(rows)))))
            logits = teacher_forced_logits(model, batch, start_id=model.config.decoder_start_token_id)
            divergence = forward_kl(logits, targets.states(batch) @ targets.head.T, temperature=temperature)
            gold = gold_loss(logits, batch.labels, label_smoothing=kd.label_smoothing)
            each = kd.alpha * temperature**2 * divergence + kd.beta * gold
            losses[first : first + ROWS] = [
                part.sum().item() for part in each.split(batch.target_starts.diff().tolist())
            ]
            bar.advance_to(first + len(batch))
    per_token = [
        [
            losses[batch].sum() / tokens[batch].sum()
            for batch in itertools.islice(_batches(len(rows), schedule, seed), wanted)
        ]
        for seed in range(1, arguments.runs + 1)
    ]
    per_update = tokens.mean() * schedule.batch_size * schedule.gradient_accumulation
    chosen = updates_of_a_spike(per_update)
    display.say(f"{arguments.runs} x {wanted:,} updates of {per_update:.0f} target tokens on average")
    for in_a_row in range(1, 7):
        recent = WINDOW + in_a_row
        count = sum(
            bool(loss_spike(run[max(0, end - recent) : end], in_a_row)) for run in per_token for end in range(wanted)
        )
        display.say(f"{in_a_row} in a row: {count} spikes{'  <- the detector' if in_a_row == chosen else ''}")
    for count, ratio in DIVERGENCE_RATIOS.items():
        highest = sorted(_highest_ratio(run, count) for run in per_token)
        display.say(
            f"median of {count} updates over the lowest: {median(highest):.2f}, at most {highest[-1]:.2f}; "
            f"{sum(found > ratio for found in highest)} runs above {ratio}"
        )


def _batches(sentences: int, schedule: Schedule, seed: int) -> Iterator[list[int]]:
    order = Batches(sentences, schedule.batch_size * schedule.gradient_accumulation, seed)
    for epoch in itertools.count():
        order.set_epoch(epoch)
        yield from order


def _highest_ratio(run: list[float], count: int) -> float:
    """How far the median of so many updates gets above the lowest median of `WINDOW` before it."""
    lowest, highest = float("inf"), 0.0
    for end in range(WINDOW, len(run) + 1):
        highest = max(highest, median(run[end - count : end]) / lowest)
        lowest = min(lowest, median(run[end - WINDOW : end]))
    return highest


if __name__ == "__main__":
    main()
