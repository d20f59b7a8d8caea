# Everything from an empty machine: `make train`. The packages are pinned in constraints.txt and live in .venv.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

python := $(VENV)/bin/python
# A third faster: modules are compiled when they are first imported, so Python must be free to keep what it compiled.
pip := $(python) -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help train test lint
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  make %-7s %s\n", $$1, $$2 }'

train: $(VENV)/.demo  ## train the default experiment; make train ARGS="optimizer=sgd epochs=3" changes it
	@$(python) scripts/train.py $(ARGS)

test: $(VENV)/.dev  ## run every test; make test ARGS="tests/test_floors.py" runs some
	@$(python) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## check style and types
	@$(python) -m ruff check .
	@$(python) -m mypy

# A stamp says that its set is installed as pyproject.toml and constraints.txt want it now.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing what training needs into $(VENV): once, about a minute when downloads are quick ..."
	@$(pip) --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing what the tests need into $(VENV): once, about a minute when downloads are quick ..."
	@$(pip) --editable ".[demo,dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.made:
	@$(PYTHON) -m venv $(VENV)
	@touch $@
