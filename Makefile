# make demo    install into .venv, then distil the reference teacher with the quick preset
# make test    install into .venv, then run all tests
# make check   what CI runs: lint, types, layers, tests
#
# Needs Python 3.11 or newer with venv. The versions are those of constraints.txt. Without an NVIDIA card, torch
# installs much smaller with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in the environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: venv demo lint test check

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 / 需要 Python 3.11 或更新的版本" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable ".[tatoeba,dev]"
	touch $@

demo: venv
	$(BIN)/mtdistill distill quick --yes --compare-random

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: venv
	$(BIN)/python -m pytest

check: lint test
