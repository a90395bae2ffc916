"""Health checks on the numbers of training: losses, gradient norms, how far weights moved.

Each is a pure function that returns the figures behind an alarm, or None. An update sees few sentences, padded ones
even of one length, so single losses say little: medians are compared, which also keeps one bad update from raising the
bar for the next; what needs precision looks at validation losses, of the same sentences every time. Imported by
health.monitor; imports health.finding.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median, pstdev

from mtdistill.health.finding import Figures

WINDOW = 50  # updates that the present is compared with
FEW_UPDATES = 25  # what a median of the past needs at least
SPIKE_DEVIATIONS = 6.0
SPIKE_RATIO = 1.5
LEVEL_TOKENS = 150  # target tokens an update that windows are made for; with fewer they are longer
SPIKE_TOKENS = 750  # target tokens that a spike lasts at least: five updates of conservative
FEWEST_HIGH = 3  # in a row: in 40 runs of quick put together from its sentences, two came 9 times, three never
EXPLOSION_RATIO = 10.0
RECENT = 20
# Times the lowest level, by the number of updates whose median is there: of 40 such runs of quick the highest reached 1.91
# and 1.46 (benchmarks/false_alarms.py).
DIVERGENCE_RATIOS = {RECENT: 2.2, WINDOW: 1.6}
NOT_FALLEN = 0.98
OSCILLATION_RATIO = 3.0
MAX_DRIFT = 1.0
EARLY, EARLY_UPDATES = 0.1, 2000  # share of a run, but no more: weights go on moving in long ones, which is no fault
DEAD_CHANGE = 1e-6
OVERFIT_RATIO = 1.05
OVERFIT_EVALUATIONS = 3
BALANCE = 30.0  # good runs of our presets: 7 to 12
HARD_TARGETS = 0.2
ENTROPY_RATIO = 0.5
NEGLIGIBLE = 1e-4  # nats: rounding, in a student that is the whole teacher and learns from it alone

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def non_finite(value: float) -> Figures | None:
    """A loss or a gradient norm that is infinite or no number."""
    return None if math.isfinite(value) else {"value": value}


def updates_of_a_spike(tokens_per_update: float) -> int:
    """How many losses in a row have to be high: three at least, and more where few tokens make the loss of an update noisy.

    Args:
        tokens_per_update: target tokens, mean.
    """
    return max(FEWEST_HIGH, math.ceil(SPIKE_TOKENS / max(1.0, tokens_per_update)))


def lengthening(tokens_per_update: float) -> int:
    """How many times as long the windows of the level of the loss are where updates have few tokens, and losses much noise.

    Args:
        tokens_per_update: target tokens, mean.
    """
    return max(1, math.ceil(LEVEL_TOKENS / max(1.0, tokens_per_update)))


def loss_spike(losses: Sequence[float], in_a_row: int = FEWEST_HIGH) -> Figures | None:
    """The last losses all far above those before: by 6 robust deviations and by half.

    One high loss is a hard batch; several in a row keep batches of very short sentences from alarming.

    Args:
        losses: of single updates, the last one at the end.
        in_a_row: how many have to be high, see `updates_of_a_spike`.
    """
    past, last = losses[-WINDOW - in_a_row : -in_a_row], losses[-in_a_row:]
    if len(past) < FEW_UPDATES:
        return None
    middle = median(past)
    deviation = _MAD_TO_DEVIATION * median(abs(loss - middle) for loss in past)
    limit = max(middle + SPIKE_DEVIATIONS * deviation, middle * SPIKE_RATIO, NEGLIGIBLE)
    return {"loss": last[-1], "usual": middle, "limit": limit} if min(last) > limit else None


def gradient_explosion(norm: float, past: Sequence[float], max_norm: float) -> Figures | None:
    """A gradient more than ten times as large as usual, and large enough to be cut.

    Args:
        norm: L2, before clipping.
        past: norms of the last updates.
        max_norm: what gradients are cut to.
    """
    if len(past) < FEW_UPDATES:
        return None
    usual = median(past[-WINDOW:])
    limit = max(EXPLOSION_RATIO * usual, max_norm)
    return {"norm": norm, "usual": usual, "limit": limit} if norm > limit else None


def loss_diverging(losses: Sequence[float], lowest: float, longer: int = 1) -> Figures | None:
    """The loss has left the level it had reached, and stays away: far for some updates, or less far for more.

    Args:
        losses: of single updates.
        lowest: the lowest level so far: the loss before training, or a median of `WINDOW` losses; infinite: not known.
        longer: see `lengthening`; the level is of as many windows.
    """
    for updates, ratio in ((longer * window, ratio) for window, ratio in DIVERGENCE_RATIOS.items()):
        limit = ratio * max(lowest, NEGLIGIBLE)
        if len(losses) >= updates and (now := median(losses[-updates:])) > limit:
            return {"loss": now, "lowest": lowest, "limit": limit, "updates": updates}
    return None


def loss_not_falling(validation: Sequence[float]) -> Figures | None:
    """No evaluation so far has found the loss below where it was before training; `limit` 1 and more: it has risen.

    Args:
        validation: loss on the same validation sentences, before training and at every evaluation.
    """
    if len(validation) < 2:
        return None
    start, best = validation[0], min(validation[1:])
    limit = max(NOT_FALLEN * start, NEGLIGIBLE)
    return {"start": start, "loss": best, "limit": limit} if best > limit else None


def loss_oscillating(losses: Sequence[float]) -> Figures | None:
    """The loss swings three times as much as before, and does not fall.

    Args:
        losses: of single updates; the last `WINDOW` are compared with the `WINDOW` before.
    """
    if len(losses) < 2 * WINDOW:
        return None
    before, now = losses[-2 * WINDOW : -WINDOW], losses[-WINDOW:]
    if min(fmean(before), fmean(now)) <= NEGLIGIBLE:
        return None
    swing, usual = pstdev(now) / fmean(now), pstdev(before) / fmean(before)
    fell = fmean(now) < fmean(before)
    return {"swing": swing, "usual": usual} if swing > OSCILLATION_RATIO * usual and not fell else None


def initialisation_destroyed(drift: float, update: int, updates: int) -> Figures | None:
    """Weights have moved by more than their own size in the first tenth of the run, 2,000 updates at most.

    A good run of a sliced student ends at about half of that.

    Args:
        drift: ||weights - first weights|| / ||first weights||, median over the matrices.
        update: how many were made.
        updates: of the whole run.
    """
    is_early = update <= min(EARLY * updates, EARLY_UPDATES)
    return {"drift": drift, "limit": MAX_DRIFT} if is_early and drift > MAX_DRIFT else None


def dead_updates(change: float, updates: int) -> Figures | None:
    """Weights that do not move although they should.

    Args:
        change: ||weights now - weights before|| / ||weights before||, median over the matrices.
        updates: made in between with a learning rate that moves weights; 0: no judgement.
    """
    return {"change": change, "updates": updates, "limit": DEAD_CHANGE} if updates and change < DEAD_CHANGE else None


def overfitting(training: Sequence[float], validation: Sequence[float]) -> Figures | None:
    """Three evaluations in a row the validation loss is 5 % above its best, while the training loss falls.

    Args:
        training: mean loss since the evaluation before, one per evaluation.
        validation: the same objective on validation sentences.
    """
    if len(validation) <= OVERFIT_EVALUATIONS:
        return None
    best, recent = min(validation), validation[-OVERFIT_EVALUATIONS:]
    risen = min(recent) > OVERFIT_RATIO * best
    fallen = training[-1] < training[-OVERFIT_EVALUATIONS - 1]
    return {"validation_loss": recent[-1], "best": best, "training_loss": training[-1]} if risen and fallen else None


def unbalanced_gradients(kd: float, gold: float) -> Figures | None:
    """One part of the objective pulls thirty times as hard as the other, which then does not count.

    Args:
        kd: norm of the gradient of alpha x T² x KL; a part that is switched off by its weight is None's business.
        gold: of beta x cross-entropy.
    """
    low, high = sorted((kd, gold))
    return {"kd_norm": kd, "gold_norm": gold, "limit": BALANCE} if high > BALANCE * low else None


def hard_targets(softened: float, plain: float) -> Figures | None:
    """The temperature leaves only the most likely word of the teacher's distribution, so that it says no more than a label.

    Args:
        softened: entropy of the teacher's distribution at the temperature of the objective, nats, mean over tokens.
        plain: at temperature 1.
    """
    limit = HARD_TARGETS * plain
    return {"softened": softened, "plain": plain, "limit": limit} if softened < limit else None


def entropy_collapse(student: float, teacher: float, progress: float) -> Figures | None:
    """The student is far more certain than its teacher about the same prefixes, after the first tenth of the run.

    Args:
        student: mean entropy of the next-token distribution, nats.
        teacher: of the teacher's.
        progress: share of the run that is done.
    """
    collapsed = progress > EARLY and student < ENTROPY_RATIO * teacher
    return (
        {"student_entropy": student, "teacher_entropy": teacher, "limit": ENTROPY_RATIO * teacher}
        if collapsed
        else None
    )
