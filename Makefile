# make demo         install into .venv, then distil the reference teacher with the quick preset
# make test         install into .venv, then run all tests
# make check        what CI runs: lint, types, layers, tests; and known holes in dependencies, where the lists can be reached
# make constraints  write down what is installed, with checksums, after an update (needs uv)
#
# Needs Python 3.11 or newer with venv. The versions are those of constraints.txt, checked against its checksums; that of
# torch, whose file depends on the platform, stands in torch-version.txt. It installs much smaller with
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in the environment; graphics cards are not used.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
HOLES := https://pypi.org/pypi/pip/24.0/json
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: venv demo lint test audit check constraints

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt torch-version.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 / 需要 Python 3.11 或更新的版本" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes --no-deps --requirement constraints.txt
	$(PIP) install --no-build-isolation --constraint torch-version.txt --editable ".[tatoeba,dev]"
	touch $@

demo: venv
	$(BIN)/mtdistill distill quick --yes --compare-random

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: venv
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The lists of known holes are asked over the network; where they do not answer there is nothing to check against.
audit: venv
	@if $(BIN)/python -c 'from urllib.request import urlopen; urlopen("$(HOLES)", timeout=20)' 2>/dev/null; then \
		$(BIN)/pip-audit --local --skip-editable --progress-spinner off; \
	else echo "pip-audit skipped: $(HOLES) does not answer"; fi

check: lint test audit

constraints: venv
	$(PIP) freeze --all --exclude-editable --exclude pip --exclude torch | uv pip compile --quiet --generate-hashes --no-deps \
		--no-annotate --python-version 3.11 --custom-compile-command "make constraints" --output-file constraints.txt -
