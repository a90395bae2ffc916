"""What is done about a failure in training: the ladder, as a plain state machine.

The first steps cost nothing and repeat as often as needed: a bad update is skipped, a large gradient is cut to what is
usual. When that does not help, training goes back to the last good state, with a lower learning rate and a short
warm-up; every return quarters the rate (halved once, a rate 30 times too high still trains, and badly). After
`MAX_RETURNS` it stops, with the best model kept; `FORGIVEN_AFTER` good updates begin a new count. Imported by
health.monitor.

Going back follows PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1), where batches were left out after it; here the
same ones come again, at a lower rate. Adaptive clipping is that of ZClip (Kumar et al. 2025, arXiv:2504.02507).
"""

import math
from dataclasses import dataclass
from typing import Literal

MAX_RETURNS = 3
MAX_SKIPS_IN_A_ROW = 5
RATE_PER_RETURN = 0.25
REWARM_UPDATES = 20
# How many updates after a return are over before a further failure counts as a new one.
FORGIVEN_AFTER = 2000

Step = Literal["skip", "return", "stop"]


@dataclass
class Ladder:
    """Where a run stands on it; kept in every checkpoint.

    Attributes:
        returns: how often training went back since it was last well for `FORGIVEN_AFTER` updates.
        returned_at: update of the last return; -1 before the first.
        skips_in_a_row: updates skipped without one that was made.
        rate: factor of the learning rate, over all returns.
        rewarm_from: update at which the rate began to rise again; -1: never.
    """

    returns: int = 0
    returned_at: int = -1
    skips_in_a_row: int = 0
    rate: float = 1.0
    rewarm_from: int = -1

    def bad_update(self) -> Step:
        """One that must not be made; too many in a row are no accident."""
        self.skips_in_a_row += 1
        return self.failure() if self.skips_in_a_row >= MAX_SKIPS_IN_A_ROW else "skip"

    def good_update(self, update: int) -> None:
        """One that was made."""
        self.skips_in_a_row = 0
        if self.returns and update - self.returned_at > FORGIVEN_AFTER:
            self.returns = 0

    def failure(self) -> Step:
        """What to do about something that single updates do not explain."""
        return "stop" if self.returns >= MAX_RETURNS else "return"

    def returned(self, failed_at: int, to: int, *, lower_rate: bool = True) -> None:
        """Note a return.

        Args:
            failed_at: update at which the failure was seen.
            to: update that training goes on from.
            lower_rate: whether the learning rate falls.
        """
        self.returns += 1
        self.returned_at, self.rewarm_from, self.skips_in_a_row = failed_at, to, 0
        if lower_rate:
            self.rate *= RATE_PER_RETURN

    def rate_factor(self, update: int) -> float:
        """Of the learning rate in this update, in (0, 1]: the short warm-up after a return."""
        done = update - self.rewarm_from
        return min(1.0, (done + 1) / REWARM_UPDATES) if self.rewarm_from >= 0 and done >= 0 else 1.0


@dataclass
class AdaptiveClip:
    """Cuts a gradient whose norm stands out from those before to about their mean (ZClip).

    Attributes:
        mean: exponential mean of the norms; negative before the first.
        variance: likewise.
        seen: norms so far.
    """

    mean: float = -1.0
    variance: float = 0.0
    seen: int = 0

    DECAY = 0.97
    DEVIATIONS = 2.5
    WARM_UP = 25

    def limit(self, norm: float, max_norm: float) -> float:
        """The norm that this gradient may have, at most `max_norm`; its own where it does not stand out.

        Args:
            norm: finite, before clipping.
            max_norm: what gradients are cut to in any case.
        """
        allowed = max_norm
        deviation = math.sqrt(self.variance)
        if self.seen >= self.WARM_UP and deviation > 0:
            score = (norm - self.mean) / deviation
            if score > self.DEVIATIONS:  # the further out, the closer to the mean
                allowed = min(max_norm, self.mean + self.DEVIATIONS**2 / score * deviation)
        self._learn(min(norm, allowed))
        return allowed

    def _learn(self, norm: float) -> None:
        self.seen += 1
        if self.mean < 0:
            self.mean = norm
            return
        off = norm - self.mean
        self.mean += (1 - self.DECAY) * off
        self.variance = self.DECAY * (self.variance + (1 - self.DECAY) * off * off)
