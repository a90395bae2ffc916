"""Watches a training as it runs: every update, every evaluation; says what is wrong and what has to be done about it.

The checks themselves are pure functions elsewhere in this package; here is what they are given and when, and the ladder
that turns their findings into deeds. Its memory is part of every checkpoint, so that a resumed run judges as an
uninterrupted one. Imported by distillation and training; imports output_checks and its neighbours.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, median
from typing import Any, TypeVar

from mtdistill.files import write_atomically
from mtdistill.health import outputs as output_checks
from mtdistill.health import series
from mtdistill.health.finding import Figures, Finding, Severity
from mtdistill.health.journal import Journal
from mtdistill.health.outputs import Outputs
from mtdistill.health.recovery import AdaptiveClip, Ladder, Step
from mtdistill.output_checks import CHECKS

HEALTH_STATE_FILE = "health.json"
WELL = 1.5  # a state is worth going back to when the loss is within this of its lowest level
RISEN = 1.02  # validation loss over its start: more than standing still
GOOD_TEMPERATURE = 2.0
T = TypeVar("T")


class GoBack(Exception):  # noqa: N818 - a request, not an error
    """Training must go back to an earlier state.

    Args:
        failed_at: update at which the trouble was seen.
        began_at: the last update whose state is probably good.
        lower_rate: whether a lower learning rate can help.
    """

    def __init__(self, failed_at: int, began_at: int, *, lower_rate: bool = True) -> None:
        super().__init__(failed_at, began_at)
        self.failed_at, self.began_at, self.lower_rate = failed_at, began_at, lower_rate


class Stop(Exception):  # noqa: N818 - a request, not an error
    """Training must end as failed, because going back has not helped."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.check)
        self.finding = finding


@dataclass
class Memory:
    """What the judgement of the next update depends on."""

    ladder: Ladder = field(default_factory=Ladder)
    clip: AdaptiveClip = field(default_factory=AdaptiveClip)
    clipping: bool = False  # only after the first sign of trouble: a good run is left as it is
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    lowest: float = math.inf
    since_evaluation: list[float] = field(default_factory=list)
    training_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_success: float = 0.0
    well_at: int = 0  # the last update whose translations were judged and had not collapsed
    temperature: float | None = None  # instead of the objective's
    lines: int = 0


class Monitor:
    """Judges updates and evaluations of one training.

    Args:
        journal: where findings go.
        updates: of the whole run.
        max_norm: what gradients are cut to.
        recover: act on failures; otherwise only a loss or gradient that is not finite ends the training.
        tokens_per_update: target tokens, mean; few make single losses noisy.
    """

    def __init__(self, journal: Journal, updates: int, max_norm: float, *, recover: bool = True,
                 tokens_per_update: float = math.inf) -> None:  # fmt: skip
        self.journal, self.updates, self.max_norm, self.recover = journal, updates, max_norm, recover
        self._spike_updates = series.updates_of_a_spike(tokens_per_update)
        self._longer = series.lengthening(tokens_per_update)
        self._lasting: dict[str, int] = {}  # without recovery: when a failure was last seen
        self.memory = Memory()

    def begin(self, loss: float) -> None:
        """Set the level that the loss of updates starts from.

        Args:
            loss: of the student before training, mean per token over some training sentences.
        """
        self.memory.lowest = loss

    def judge(self, update: int, loss: float, norm: float) -> tuple[Step | None, float]:
        """Whether this update may be made, and how large its gradient may be.

        Args:
            update: its number, from 1.
            loss: mean per token.
            norm: L2 of its gradient, before clipping.

        Returns:
            "skip" or None, and the largest norm.

        Raises:
            GoBack: no single update explains what is seen.
            Stop: nor did going back help.
        """
        memory = self.memory
        name, figures = "non_finite_loss", series.non_finite(loss)
        if figures is None:
            name, figures = "non_finite_gradient", series.non_finite(norm)
        if figures is None:
            name, figures = "gradient_explosion", series.gradient_explosion(norm, memory.norms, self.max_norm)
        if figures is None:
            memory.norms = [*memory.norms, norm][-series.WINDOW :]
            return None, memory.clip.limit(norm, self.max_norm) if memory.clipping else self.max_norm
        memory.clipping = memory.clipping or (self.recover and name == "gradient_explosion")
        if not self.recover and name == "gradient_explosion":
            self._note(name, "warning", update, figures)
            return None, self.max_norm
        step: Step = memory.ladder.bad_update() if self.recover else "stop"
        if step == "skip":
            self._note(name, "failure", update, figures, action="skipped")
            return "skip", self.max_norm
        self._fail(Finding(name, "failure", update, figures), step, began_at=update - memory.ladder.skips_in_a_row)
        raise AssertionError  # _fail never returns with this step

    def updated(self, update: int, loss: float) -> None:
        """Learn from an update that was made.

        Raises:
            GoBack, Stop: see `judge`.
        """
        memory = self.memory
        memory.ladder.good_update(update)
        memory.losses = [*memory.losses, loss][-(1 + self._longer) * series.WINDOW - self._spike_updates :]
        memory.since_evaluation.append(loss)
        if spike := series.loss_spike(memory.losses, self._spike_updates):
            memory.clipping = self.recover
            if not series.loss_spike(memory.losses[:-1], self._spike_updates):  # a spike lasts; it is told of once
                self._note("loss_spike", "warning", update, spike, action="watched" if self.recover else "none")
        if update % series.WINDOW == 0 and (swing := series.loss_oscillating(memory.losses)):
            self._note("loss_oscillating", "warning", update, swing)
        if diverged := series.loss_diverging(memory.losses, memory.lowest, self._longer):
            finding = Finding("loss_diverging", "failure", update, diverged)
            self._fail(
                finding, memory.ladder.failure(), began_at=update - max(2 * series.RECENT, int(diverged["updates"]))
            )
        window = self._longer * series.WINDOW
        if len(memory.losses) >= window:
            memory.lowest = min(memory.lowest, median(memory.losses[-window:]))

    def moved(self, update: int, drift: float, change: float, made: int) -> None:
        """Judge how far the weights are from the first ones and from those of some updates before.

        Args:
            update: how many were made.
            drift: relative to the first weights.
            change: relative to the weights before.
            made: updates in between with a learning rate that moves weights; 0: no judgement.

        Raises:
            GoBack, Stop: see `judge`.
        """
        failure = self.memory.ladder.failure()
        if figures := series.initialisation_destroyed(drift, update, self.updates):
            self._fail(Finding("initialisation_destroyed", "failure", update, figures), failure, began_at=0)
        if figures := series.dead_updates(change, made):
            self._fail(Finding("dead_updates", "failure", update, figures), failure, began_at=update - made - 1)

    def is_well(self) -> bool:
        """Whether now is a state worth going back to: the loss is near its lowest."""
        losses, recent = self.memory.losses, self._longer * series.RECENT
        return len(losses) < recent or median(losses[-recent:]) <= WELL * self.memory.lowest

    def evaluated(self, update: int, outputs: Outputs | None, probed: Any = None) -> None:
        """Judge the translations and the losses of an evaluation.

        Args:
            update: how many were made.
            outputs: what the student wrote; None leaves these checks out.
            probed: see `mtdistill.distillation.probe.Probed`; None likewise.

        Raises:
            GoBack, Stop: see `judge`.
        """
        progress = update / self.updates
        if probed is not None:
            self._probe(update, progress, probed)
        if outputs is None:
            return
        for check in CHECKS:
            if figures := output_checks.failing_check(outputs, check):
                self._note(f"output_{check}", "warning", update, figures)
        for name, found in (
            ("one_output", output_checks.one_output(outputs)),
            ("one_token", output_checks.one_token(outputs)),
        ):
            if found:
                self._note(name, "warning", update, found[0], example=found[1])
        if figures := output_checks.success_under_half(outputs):
            if output_checks.collapsed(outputs, self.memory.best_success):
                finding = Finding("success_under_half", "failure", update, figures)
                self._fail(finding, self.memory.ladder.failure(), began_at=self.memory.well_at)
            else:
                self._note("success_under_half", "warning", update, figures)
        self.memory.best_success = max(self.memory.best_success, outputs.success_rate)
        self.memory.well_at = update

    def save(self, folder: Path) -> None:
        """Write the memory into a checkpoint."""
        self.memory.lines = self.journal.lines
        write_atomically(folder / HEALTH_STATE_FILE, json.dumps(asdict(self.memory)))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; one without a memory begins a new one."""
        path = folder / HEALTH_STATE_FILE
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            stored["ladder"], stored["clip"] = _made(Ladder, stored["ladder"]), _made(AdaptiveClip, stored["clip"])
            self.memory = _made(Memory, stored)
            self.journal.begin(self.memory.lines)

    def _probe(self, update: int, progress: float, probed: Any) -> None:
        memory = self.memory
        memory.validation_losses.append(probed.loss)
        if memory.since_evaluation:
            memory.training_losses.append(fmean(memory.since_evaluation))
            memory.since_evaluation = []
        if figures := series.loss_not_falling(memory.validation_losses):
            if figures["loss"] > RISEN * figures["start"]:
                self._fail(Finding("loss_not_falling", "failure", update, figures), memory.ladder.failure(), began_at=0)
            else:
                self._note("loss_not_falling", "warning", update, figures)
        if figures := series.overfitting(memory.training_losses, memory.validation_losses[1:]):
            self._note("overfitting", "warning", update, figures)
        if figures := series.entropy_collapse(probed.student_entropy, probed.teacher_entropy, progress):
            self._note("entropy_collapse", "warning", update, figures)
        if probed.kd_norm and (figures := series.hard_targets(probed.softened_entropy, probed.teacher_entropy)):
            mend = self.recover and memory.temperature is None
            self._note("hard_targets", "failure", update, figures, action="temperature" if mend else "none")
            if mend:  # losses at another temperature are no measure for those to come
                memory.temperature, memory.lowest, memory.validation_losses = GOOD_TEMPERATURE, math.inf, []
                return
        if not (probed.kd_norm and probed.gold_norm):
            return  # one part is switched off
        if figures := series.unbalanced_gradients(probed.kd_norm, probed.gold_norm):
            self._note("unbalanced_gradients", "warning", update, figures)

    def _note(self, check: str, severity: Severity, update: int, figures: Figures, *, example: str = "",
              action: str = "none") -> None:  # fmt: skip
        self.journal.record(Finding(check, severity, update, figures, example, action))

    def _fail(self, finding: Finding, step: Step, began_at: int) -> None:
        """Record a failure, and ask for what has to be done."""
        if not self.recover and step == "return":
            seen = self._lasting.get(finding.check, -math.inf)
            self._lasting[finding.check] = finding.update
            if finding.update - seen > series.WINDOW:  # one that lasts is written once
                self.journal.record(finding)
            return
        lower_rate = finding.check != "dead_updates"  # a lower rate would move the weights even less
        action = {"return": "returned" if lower_rate else "restored", "stop": "stopped"}[step]
        finding = Finding(finding.check, finding.severity, finding.update, finding.figures, finding.example, action)
        self.journal.record(finding)
        if step == "stop":
            raise Stop(finding)
        raise GoBack(finding.update, max(0, began_at), lower_rate=lower_rate)


def _made(kind: type[T], stored: Mapping[str, Any]) -> T:
    """An object of a dataclass; what another version has stored beside it is left out."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in stored.items() if name in known})


def relative_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """||after - before|| / ||before||, median over the tensors; 0 where there are none."""
    shares: Sequence[float] = [
        ((after[name] - old).norm() / old.norm().clamp_min(1e-12)).item() for name, old in before.items()
    ]
    return median(shares) if shares else 0.0
