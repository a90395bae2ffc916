"""Where the teacher's states come from: live, stored, or whichever takes less time and fits the disk."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from rich.console import Console

from mtdistill.config import RunConfig
from mtdistill.data.batches import PackedRows
from mtdistill.display import Display
from mtdistill.distillation import targets as module
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.targets import SPARE_BYTES, cache_root, choose_targets, free_bytes, stored_targets
from mtdistill.health.journal import Journal, read_findings
from mtdistill.teacher.cache_manifest import verify_cache
from mtdistill.teacher.state_cache import CachedTargets, cache_bytes
from mtdistill.teacher.targets import LiveTargets, TargetSource
from mtdistill.training.engine import Engine

Choose = Callable[..., TargetSource]


@pytest.fixture
def rows(materials: Materials) -> datasets.Dataset:
    return materials.data.split("train").select(range(30))


@pytest.fixture
def choose(make_run: Callable[..., RunConfig], materials: Materials, rows: datasets.Dataset, tmp_path: Path) -> Choose:
    def make(*overrides: str, engine: Engine | None = None, display: Display | None = None) -> TargetSource:
        config = make_run(tmp_path, *overrides)
        return choose_targets(config, materials.teacher.model, rows, engine or Engine(), display or Display())

    return make


@pytest.mark.parametrize(
    ("wish", "epochs", "kind"),
    [
        ("live", 1, LiveTargets), ("live", 20, LiveTargets), ("cached", 1, CachedTargets), ("cached", 20, CachedTargets),
        ("auto", 1, LiveTargets), ("auto", 2, CachedTargets), ("auto", 20, CachedTargets),
    ],
)  # fmt: skip
def test_the_settings_decide(choose: Choose, tmp_path: Path, wish: str, epochs: int, kind: type) -> None:
    targets = choose(f"teacher.targets={wish}", f"training.epochs={epochs}")
    assert type(targets) is kind
    assert (tmp_path / "cache").exists() == (kind is CachedTargets)


def test_auto_is_the_default(choose: Choose) -> None:
    assert isinstance(choose("training.epochs=1"), LiveTargets)
    assert isinstance(choose("training.epochs=3"), CachedTargets)
    turns = ("teacher.pseudo_targets=2", "teacher.pseudo_targets_take_turns=true")
    assert isinstance(choose("training.epochs=3", *turns), LiveTargets)  # no pair more than once
    assert isinstance(choose("training.epochs=4", *turns), CachedTargets)


@pytest.mark.parametrize(("more", "kind"), [(-SPARE_BYTES, LiveTargets), (0, LiveTargets), (1, CachedTargets)])
def test_auto_stores_nothing_where_the_disk_is_short(
    choose: Choose, rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, kind: type
) -> None:
    asked: list[Path] = []
    size = cache_bytes(rows, 7, 16)
    monkeypatch.setattr(module, "free_bytes", lambda folder: asked.append(folder) or size + SPARE_BYTES + more)
    targets = choose("training.epochs=3", "training.max_sequence_length=7")
    assert type(targets) is kind
    assert asked == [tmp_path / "cache"]


def test_auto_goes_on_with_what_an_earlier_run_has_stored(
    choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = "training.epochs=3"
    assert isinstance(choose(several), CachedTargets)
    monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    assert isinstance(choose(several), CachedTargets)
    assert isinstance(choose("training.epochs=1"), LiveTargets)
    assert isinstance(choose(several, engine=Engine(bfloat16=True)), LiveTargets)  # those are other states
    for manifest in (tmp_path / "cache").glob("*/manifest.json"):
        manifest.unlink()
    assert isinstance(choose(several), LiveTargets)  # what is only begun wants room


def test_whoever_wants_a_cache_is_not_asked_about_the_disk(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    assert isinstance(choose("teacher.targets=cached"), CachedTargets)


def test_the_cache_is_whole_said_aloud_and_used_again(
    choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: datasets.Dataset
) -> None:
    display = Display(Console(record=True, width=500, file=(tmp_path / "console").open("w", encoding="utf-8")))
    first = choose("teacher.targets=cached", display=display)
    assert isinstance(first, CachedTargets)
    [folder] = (tmp_path / "cache").iterdir()
    assert verify_cache(folder).rows == len(rows)
    assert f"teacher states: {folder} (" in display.console.export_text()

    monkeypatch.setattr(LiveTargets, "states", None)  # nothing is computed
    second = choose("teacher.targets=cached", "kd.temperature=7", "training.seed=5")
    batch = PackedRows(rows, 32).batch([4, 29, 0])
    assert torch.equal(first.states(batch), second.states(batch))
    assert [folder] == list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("watched", [True, False])
def test_a_damaged_cache_is_told_and_computed_again(
    make_run: Callable[..., RunConfig], materials: Materials, rows: datasets.Dataset, tmp_path: Path, watched: bool
) -> None:
    config, screen = make_run(tmp_path), Console(file=io.StringIO(), width=500)
    journal = Journal(tmp_path / "health.jsonl") if watched else None
    teacher = materials.teacher.model

    def states() -> torch.Tensor:
        found = stored_targets(config, teacher, rows, Engine(), Display(screen), journal)
        return found.states(PackedRows(rows, 32).batch([4, 29, 0]))

    sound = states()
    [shard] = (tmp_path / "cache").glob("*/states-*.npy")
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    assert torch.equal(states(), sound)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    if journal is None:
        assert shard.name in said
    else:
        [finding] = read_findings(tmp_path / "health.jsonl")
        assert (finding.check, finding.example, finding.action) == ("damaged_cache", shard.name, "rebuilt")


@pytest.mark.parametrize("other", ["training.max_sequence_length=6", "bfloat16"])
def test_another_limit_or_number_format_is_another_cache(choose: Choose, tmp_path: Path, other: str) -> None:
    choose("teacher.targets=cached")
    if other == "bfloat16":
        targets = choose("teacher.targets=cached", engine=Engine(bfloat16=True))
        assert targets.head.dtype == torch.bfloat16
    else:
        choose("teacher.targets=cached", other)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("limit", [32, 6])
def test_stored_and_live_states_are_the_same(choose: Choose, rows: datasets.Dataset, limit: int) -> None:
    length = f"training.max_sequence_length={limit}"
    live, stored = (choose(f"teacher.targets={wish}", length) for wish in ("live", "cached"))
    batch = PackedRows(rows, limit).batch([7, 2, 28])
    torch.testing.assert_close(stored.states(batch), live.states(batch), rtol=2**-10, atol=1e-5)
    assert torch.equal(stored.head, live.head)


def test_free_disk_of_a_folder_that_will_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=42)

    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    assert free_bytes(tmp_path / "not" / "yet") == free_bytes(tmp_path) == 42
    assert asked == [tmp_path, tmp_path]
    monkeypatch.chdir(tmp_path)
    assert free_bytes(Path("runs/cache")) == 42
    assert asked[-1].resolve() == tmp_path.resolve()


def test_the_folder_of_all_caches_is_in_the_output(make_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    assert cache_root(make_run(tmp_path)) == tmp_path / "cache"
