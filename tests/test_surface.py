import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "mtdistill").rglob("*.py"))
MAX_LINES = 300
HEAVY = {"torch", "transformers", "datasets", "ctranslate2", "sacrebleu"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_modules_are_found() -> None:
    assert SOURCE / "mtdistill" / "errors.py" in MODULES
    assert len(MODULES) >= 15


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_is_short_and_has_a_subject(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: look for a second noun in it"
    assert module.name not in ("utils.py", "helpers.py", "misc.py", "common.py")


@pytest.mark.parametrize("module", ["mtdistill", "mtdistill.cli", "mtdistill.config", "mtdistill.presets"])
def test_an_import_that_must_be_quick_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_the_changelog_is_about_this_version() -> None:
    headings = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["version"]


def checked(constraints: str) -> set[str]:
    """Names of the packages whose files are compared with checksums."""
    return set(re.findall(r"^(\S+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", constraints, re.MULTILINE))


def test_the_constraints_pin_every_declared_package_and_name_no_place() -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "torch-version.txt")]
    pins = dict(re.findall(r"^([^#\s]+)==(.*?)(?: \\)?$", "".join(texts), re.MULTILINE))
    assert pins.keys() - checked(texts[0]) == {"torch"}
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values())  # no path, no URL, no +cpu
    extras = PROJECT["optional-dependencies"].values()
    declared = [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)]
    assert {re.split(r"[<>=]", requirement)[0] for requirement in declared} - pins.keys() == set()


def test_ci_runs_what_the_readme_tells_people_to_run() -> None:
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
