# Palimpsest. `make` lists the targets; `make run` and `make test` are the two that a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core that may be used, four at most: each holds the bundled model.
SIDE_BY_SIDE = --dist worksteal --numprocesses $(shell $(BIN)/python -c 'import os; print(min(4, len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))))')
APT := $(shell command -v apt-get 2>/dev/null)
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test lint test-slow test-gpu train report bench docker clean browser

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Palimpsest needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Use: make PYTHON=python3.12 run"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements-dev.txt
	@touch $@ $(VENV)/.run

run: $(VENV)/.run ## install what is missing and start the program on http://127.0.0.1:7860
	@$(BIN)/python -m app chat

browser: # Debian's chromium for the browser tests, where it is missing and may be installed
	@command -v chromium >/dev/null 2>&1 || { \
	  if [ -n "$(APT)" ] && { [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; }; then \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	  fi; } || true
	@command -v chromium >/dev/null 2>&1 || echo "chromium is missing: the browser tests will be skipped"

test: $(VENV)/.dev browser ## all that CI runs: ruff, mypy, pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

lint: $(VENV)/.dev ## only ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(VENV)/.dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE)

test-gpu: $(VENV)/.dev ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

train: $(VENV)/.run ## train the bundled model again (about 110 minutes on 2 cores)
	$(BIN)/python -m app train bundled

report: $(VENV)/.run ## measure the bundled model: the table of its card
	$(BIN)/python -m app train bundled --report

bench: $(VENV)/.run ## measure memory, gate, chains, answers and SERAC: the tables of docs/results.md (tens of minutes)
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.gate --world 400
	$(BIN)/python -m benchmarks.multihop
	$(BIN)/python -m benchmarks.answers
	$(BIN)/python -m benchmarks.serac

docker: ## build and start the container, data kept in the volume "palimpsest"
	docker build -t palimpsest . && docker run --rm -p 127.0.0.1:7860:7860 -v palimpsest:/data palimpsest

clean: ## remove the environment and caches (not your data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
