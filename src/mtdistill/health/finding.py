"""What a health check has found: a name, figures, and what was done about it.

Imported by distillation, report, training and its neighbours.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["warning", "failure"]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: its name, a key of `mtdistill.health.wording.EXPLANATIONS`.
        severity: "failure" is acted upon; "warning" is only told.
        update: how many updates had been made; 0 before training.
        figures: what was measured, and the limit it crossed.
        example: a translation, a file name, or nothing.
        action: what mtdistill did, a key of `mtdistill.health.wording.ACTIONS`.
    """

    check: str
    severity: Severity
    update: int = 0
    figures: Figures = field(default_factory=dict)
    example: str = ""
    action: str = "none"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a line of health.jsonl."""
        return asdict(self) | {"figures": dict(self.figures)}
