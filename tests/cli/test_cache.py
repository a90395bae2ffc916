"""The commands around stored teacher states, on a cache made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from mtdistill.files import sha256_of

from .conftest import Run

NAME = "0123456789abcdef"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Results with one cache of two rows, five tokens, width 4."""
    folder = tmp_path / "results" / "cache" / NAME
    folder.mkdir(parents=True)
    np.save(folder / "starts.npy", np.array([0, 2, 5]))
    np.save(folder / "states-00000.npy", np.zeros((5, 4), np.float16))
    files = {path.name: sha256_of(path) for path in folder.glob("*.npy")}
    parts = {"teacher": "feedbeef" * 8, "max_sequence_length": 24}
    manifest = {"identity": NAME, "tokens": 5, "rows": 2, "width": 4, "parts": parts, "sha256": files}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path / "results"


def test_inspect_lists_whole_and_unfinished_caches(run: Run, output: Path) -> None:
    (output / "cache" / "halfway").mkdir()
    called = run("cache", "inspect", "--output", str(output))
    assert called.code == 0
    whole, unfinished = (next(line for line in called.out.splitlines() if name in line) for name in (NAME, "halfway"))
    assert "24" in whole
    assert "feedbeeffeed" in whole
    assert "unfinished" in unfinished


def test_inspect_writes_nothing_and_needs_no_permission_to(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert run("cache", "inspect", "--output", str(output)).code == 0
    assert run("presets", "--no-forecast", "--output", str(output)).code == 0


def test_inspect_says_that_there_is_none(run: Run, tmp_path: Path) -> None:
    called = run("cache", "inspect", "--output", str(tmp_path))
    assert called.code == 0
    assert "no caches" in called.out


def test_verify_finds_a_changed_byte(run: Run, output: Path) -> None:
    assert run("cache", "verify", NAME, "--output", str(output)).code == 0
    shard = output / "cache" / NAME / "states-00000.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    called = run("cache", "verify", NAME, "--output", str(output))
    assert called.code == 2
    assert "states-00000.npy" in called.err


def test_remove_deletes_a_cache_and_nothing_else(run: Run, output: Path) -> None:
    other = output / "cache" / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work", encoding="utf-8")
    refused = run("cache", "remove", "mine", "--output", str(output))
    assert refused.code == 2
    assert "Nothing was deleted" in refused.err
    assert (other / "thesis.txt").is_file()
    assert run("cache", "remove", NAME, "--output", str(output)).code == 0
    assert not (output / "cache" / NAME).exists()


@pytest.mark.parametrize("command", ["verify", "remove"])
def test_a_cache_that_is_not_there(run: Run, tmp_path: Path, command: str) -> None:
    called = run("cache", command, "nowhere", "--output", str(tmp_path))
    assert called.code == 2
    assert "nowhere" in called.err
