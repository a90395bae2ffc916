"""bfloat16 where it is asked for, or where it is faster."""

from typing import Any

import pytest
import torch

from mtdistill.training import precision
from mtdistill.training.precision import WORTHWHILE_GAIN, uses_bfloat16


@pytest.mark.parametrize(("wish", "expected"), [("float32", False), ("bfloat16", True)])
def test_a_wish_is_granted_without_measuring(wish: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(precision, "_seconds")
    assert uses_bfloat16(wish) is expected


@pytest.mark.parametrize(
    ("gain", "expected"), [(WORTHWHILE_GAIN + 0.01, True), (WORTHWHILE_GAIN - 0.01, False), (0.2, False)]
)
def test_auto_takes_what_was_measured_to_be_worthwhile(
    gain: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.float32: gain, torch.bfloat16: 1.0}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    assert uses_bfloat16("auto") is expected


def test_the_measurement_takes_the_fastest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])  # 3, 1 and 2 seconds
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(times))
    assert precision._seconds(torch.float32, repeats=3) == 1.0
