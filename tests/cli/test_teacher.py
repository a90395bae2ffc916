"""`mtdistill teacher train`, and `mtdistill pseudo-targets`: the commands they offer at their end."""

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.distillation.candidates import Search
from mtdistill.presets import load_preset


def settings_of(printed: str) -> RunConfig:
    """What the command in the last line would run with."""
    words = shlex.split(printed.splitlines()[-1])
    assert words[:3] == ["mtdistill", "distill", "balanced"]
    given = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    assert len(words) == 3 + 2 * len(given)
    return apply_overrides(load_preset("balanced").config, given)


@pytest.fixture
def own_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my text.tsv").write_text("你好\thello\n", encoding="utf-8")
    return Path("my text.tsv")


def test_the_teacher_is_distilled_on_the_text_it_learnt_from(
    run: Any, own_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(_data: Any, _recipe: Any, folder: Path, *_: Any, **__: Any) -> Path:
        return folder / "best"

    monkeypatch.setattr("mtdistill.distillation.teacher_run.run_teacher_training", train)
    languages = ("--source-lang", "zh", "--target-lang", "en")
    called = run("teacher", "train", "--data", str(own_text), *languages, "--output", "my runs")
    assert called.code == 0, called.err
    wanted = {"teacher.path": "my runs/teacher-zh-en/best", "output": "my runs", "data.train": f'["{own_text}"]'}
    wanted |= {"data.source_lang": "zh", "data.target_lang": "en"}
    usual = load_preset("balanced").config
    assert settings_of(called.out) == apply_overrides(usual, [f"{key}={value}" for key, value in wanted.items()])


def test_pseudo_targets_are_trained_on_beside_everything_else(
    run: Any, own_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        path = Path("my runs/pseudo-targets.jsonl")

    asked = []

    def make(_config: Any, _path: Path, search: Search, *_: Any, **__: Any) -> Done:
        asked.append(search)
        return Done()

    monkeypatch.setattr("mtdistill.distillation.pseudo_targets.make_pseudo_targets", make)
    extra = f'data.extra=["{own_text}"]'
    wide = ("--beam", "7", "--n-best", "6", "--keep", "3", "--share", "0.5")
    called = run("pseudo-targets", *wide, "--output", "my runs", "--set", extra, "--set", "kd.alpha=0.8")
    assert called.code == 0, called.err
    assert asked == [Search(beam_size=7, n_best=6, kept=3, share=0.5)]
    both = f'data.extra=["{own_text}", "{Done.path}"]'
    usual = load_preset("balanced").config
    assert settings_of(called.out) == apply_overrides(usual, ["output=my runs", both, "kd.alpha=0.8"])
