"""A family of students: which shapes, and that nothing is trained twice."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtdistill.config import RunConfig, apply_overrides, dump_toml
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.run_folder import run_folder
from mtdistill.distillation.sweep import family, sweep
from mtdistill.errors import StudentError, TrainingFailedError
from mtdistill.presets import load_preset
from mtdistill.teacher.loading import Teacher, load_teacher


@pytest.fixture(scope="module")
def reference() -> Teacher:
    """Width 256, six encoder layers and four decoder layers."""
    return load_teacher("reference")


class TestFamily:
    def test_every_width_with_every_depth_smallest_first(self, reference: Teacher) -> None:
        members = family(load_preset("balanced").config, reference, [0.5, 0.25], [2, 1])
        assert [member.name for member in members] == [
            "balanced-w64-d1", "balanced-w64-d2", "balanced-w128-d1", "balanced-w128-d2",
        ]  # fmt: skip
        assert [(m.student.resolve_width(256), m.student.decoder_layers) for m in members] == [
            (64, 1), (64, 2), (128, 1), (128, 2),
        ]  # fmt: skip
        assert len({run_folder(member).path for member in members}) == 4

    def test_widths_that_round_to_one_are_one_student(self, reference: Teacher) -> None:
        assert len(family(load_preset("balanced").config, reference, [0.25, 0.25, 0.26], [1, 1])) == 1

    def test_depths_beyond_the_teachers_are_one_student(self, reference: Teacher) -> None:
        base = apply_overrides(load_preset("balanced").config, ["student.encoder_layers=4"])
        assert [member.name for member in family(base, reference, [0.25], [4, 6])] == ["balanced-w64-d4"]

    def test_one_that_cannot_be_is_refused_before_any_is_trained(self, reference: Teacher) -> None:
        with pytest.raises(StudentError, match="got 2 encoder and 4 decoder layers"):
            family(load_preset("balanced").config, reference, [0.25, 0.5], [1, 4])

    def test_a_width_of_the_base_gives_way(self, reference: Teacher) -> None:
        base = apply_overrides(load_preset("balanced").config, ["student.width=40", "name=mine"])
        [member] = family(base, reference, [0.5], [1])
        assert (member.name, member.student.resolve_width(256)) == ("mine-w128-d1", 128)
        assert member.training == base.training
        assert member.kd == base.kd


@pytest.fixture
def members(make_run: Any, materials: Materials, tmp_path: Path) -> list[RunConfig]:
    return family(make_run(tmp_path), materials.teacher, [0.5, 0.75], [1])


@pytest.mark.pipeline
def test_each_is_trained_once(members: list[RunConfig], materials: Materials, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = sweep(members, materials=materials)
    assert list(cards) == ["quick-w8-d1", "quick-w12-d1"]
    small, large = cards.values()
    assert small.student.parameters < large.student.parameters < small.teacher.parameters
    monkeypatch.setattr("mtdistill.distillation.sweep.distill", lambda *_, **__: pytest.fail("trained again"))
    assert sweep(members) == cards


class Distill:
    """Notes what it is asked for; leaves what a run would: settings, and a card that is only its verdict."""

    def __init__(self, fails: str | None = None, *, leaves_card: bool = True) -> None:
        self.fails, self.leaves_card, self.asked = fails, leaves_card, list[tuple[str, bool]]()

    def __call__(self, config: RunConfig, _display: Any, *, materials: Any, resume: bool) -> Any:
        name, folder = str(config.name), run_folder(config).path
        self.asked.append((name, resume))
        folder.mkdir(exist_ok=True)
        (folder / "config.toml").write_text(dump_toml(config))
        failed = self.fails is not None and self.fails in name
        if self.leaves_card or not failed:
            (folder / "report.json").write_text("failed" if failed else "kept")
        if failed:
            raise TrainingFailedError("the loss never fell")
        return SimpleNamespace(report="kept")

    @staticmethod
    def find_card(folder: Path) -> Any:
        report = folder / "report.json"
        return report.read_text() if report.is_file() else None


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Distill]:
    def make(*arguments: Any, **options: Any) -> Distill:
        made = Distill(*arguments, **options)
        monkeypatch.setattr("mtdistill.distillation.sweep.distill", made)
        monkeypatch.setattr("mtdistill.distillation.sweep.find_card", made.find_card)
        return made

    return make


def test_an_interrupted_student_is_gone_on_with(
    members: list[RunConfig], materials: Materials, stub: Callable[..., Distill]
) -> None:
    distill = stub()
    sweep(members, materials=materials)
    (run_folder(members[1]).path / "report.json").unlink()
    sweep(members, materials=materials)
    assert distill.asked == [("quick-w8-d1", False), ("quick-w12-d1", False), ("quick-w12-d1", True)]


def test_other_settings_begin_anew(
    members: list[RunConfig], materials: Materials, stub: Callable[..., Distill]
) -> None:
    distill = stub()
    sweep(members[:1], materials=materials)
    sweep([apply_overrides(members[0], ["training.epochs=7"])], materials=materials)
    assert distill.asked == [("quick-w8-d1", False)] * 2


def test_a_failed_one_does_not_stop_the_others(
    members: list[RunConfig], materials: Materials, stub: Callable[..., Distill]
) -> None:
    stub("w8")
    assert sweep(members, materials=materials) == {"quick-w8-d1": "failed", "quick-w12-d1": "kept"}


def test_one_that_leaves_no_card_does_not_stop_the_others_either(
    members: list[RunConfig], materials: Materials, stub: Callable[..., Distill]
) -> None:
    stub("w8", leaves_card=False)
    assert sweep(members, materials=materials) == {"quick-w12-d1": "kept"}


def test_if_all_fail_it_says_why(members: list[RunConfig], materials: Materials, stub: Callable[..., Distill]) -> None:
    stub("quick", leaves_card=False)
    with pytest.raises(TrainingFailedError, match="never fell"):
        sweep(members, materials=materials)
