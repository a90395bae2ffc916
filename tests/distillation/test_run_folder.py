import errno
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtdistill.config import RunConfig, apply_overrides, read_toml
from mtdistill.distillation.run_folder import (
    locked,
    resume_command,
    resume_run,
    run_folder,
    says_what_the_disk_said,
    start_run,
)
from mtdistill.errors import CacheError, ConfigError
from mtdistill.presets import load_preset


def config_in(folder: Path, *overrides: str) -> RunConfig:
    return apply_overrides(load_preset("quick").config, [f"output={folder}", *overrides])


def test_a_run_starts_with_its_settings_and_surroundings(tmp_path: Path) -> None:
    config = config_in(tmp_path / "new" / "folder", "kd.temperature=4", 'data.train=["a.tsv", "b"]')
    run, older = start_run(config)
    assert older is None
    assert run.path == tmp_path / "new" / "folder" / "distillation-quick"
    assert read_toml(run.path / "config.toml") == config
    surroundings = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    assert surroundings["cores"] >= 1
    assert {"python", "platform", "cpu"} <= surroundings.keys()
    assert {"mtdistill", "torch", "transformers", "ctranslate2"} <= surroundings["packages"].keys()


def test_older_runs_are_kept_each_under_its_own_name(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    kept = []
    for number in range(4):
        run, older = start_run(config)
        (run.path / "note").write_text(str(number), encoding="utf-8")
        os.utime(run.path, (1_000_000, 1_000_000))  # all within the same second
        kept.append(older)
    assert kept[0] is None
    assert [(path / "note").read_text(encoding="utf-8") for path in kept[1:] if path] == ["0", "1", "2"]
    assert all(path and path.name.startswith("distillation-quick-1970011") for path in kept[1:])
    assert (run.path / "note").read_text(encoding="utf-8") == "3"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be written: got .*distillation-quick .*Choose another --output"):
        start_run(config_in(tmp_path / "file"))


def test_resuming_finds_the_run(tmp_path: Path) -> None:
    config = config_in(tmp_path, "kd.temperature=4")
    run, _ = start_run(config)
    assert resume_run(config) == (run, config)


def test_a_run_that_was_moved_is_resumed(tmp_path: Path) -> None:
    start_run(config_in(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    moved = config_in(tmp_path / "b")
    assert resume_run(moved) == (run_folder(moved), moved)


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    start_run(config_in(tmp_path))
    other = config_in(tmp_path, "kd.temperature=4", "training.learning_rate=0.1")
    with pytest.raises(ConfigError, match=r"different now: kd\.temperature, training\.learning_rate\. Use the same"):
        resume_run(other)


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run to resume: got .*distillation-quick"):
        resume_run(config_in(tmp_path))


def test_damaged_settings_are_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    run, _ = start_run(config)
    (run.path / "config.toml").write_text("[training", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        resume_run(config)


def test_the_places_in_a_run(tmp_path: Path) -> None:
    run = run_folder(config_in(tmp_path))
    assert run.best_bundle == run.path / "checkpoints" / "student_best.pt"
    assert run.best_folder == run.path / "checkpoints" / "student_best"
    assert run.report == run.path / "report.json"


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    folder = run_folder(config).path
    with locked(folder):
        with pytest.raises(ConfigError, match="another run is writing"), locked(folder):
            pass
        with locked(run_folder(config_in(tmp_path / "elsewhere")).path):
            pass
    with locked(folder):
        pass


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from mtdistill.config import apply_overrides\n"
        "from mtdistill.distillation.run_folder import locked, run_folder\n"
        "from mtdistill.presets import load_preset\n"
        "with locked(run_folder(apply_overrides(load_preset('quick').config, ['output=' + sys.argv[1]])).path):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another run"), locked(run_folder(config_in(tmp_path)).path):
            pass
        holder.kill()
        holder.wait()
    with locked(run_folder(config_in(tmp_path)).path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_told(tmp_path: Path, number: int) -> None:
    with pytest.raises(ConfigError, match=r"refused to write.*--resume"), says_what_the_disk_said(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(ConfigError, match="No space left"), says_what_the_disk_said(tmp_path):
        raise RuntimeError("write failed: No space left on device (os error 28)")


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), says_what_the_disk_said(tmp_path):
        (tmp_path / "nothing").read_text(encoding="utf-8")
    with pytest.raises(RuntimeError, match="shapes"), says_what_the_disk_said(tmp_path):
        raise RuntimeError("shapes differ")
    with pytest.raises(CacheError, match=r"^stored: No space left on device$"), says_what_the_disk_said(tmp_path):
        raise CacheError("stored: No space left on device")  # worded already


def test_the_command_to_resume_names_what_was_changed(tmp_path: Path) -> None:
    config = config_in(
        tmp_path / "my runs",
        "kd.temperature=4.5",
        'data.train=["a b.tsv"]',
        "training.recovery=false",
        "student.d_ff=none",
    )
    words = shlex.split(resume_command(config))
    assert words[:4] == ["mtdistill", "distill", "quick", "--resume"]
    assert shlex.split(resume_command(config, compare_random=True)) == [*words[:4], "--compare-random", *words[4:]]
    given = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    assert apply_overrides(load_preset("quick").config, given) == config
