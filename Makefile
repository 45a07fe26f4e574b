# The commands of this project; `make help` lists them. Everything runs from .venv, which `make setup` builds.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-servers chaos test-slow fuzz-api bench bench-quick bench-scale bench-vectors lint format clean

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "lookalike needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing lookalike with everything it runs on into $(VENV) (a few minutes the first time)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	@$(PIP) --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.local
	@$(PIP) --group bench
	@touch $@

$(VENV)/.servers: $(VENV)/.dev
	@$(PIP) --group servers
	@touch $@

setup: $(VENV)/.servers ## Build .venv with all extras and groups.

demo: $(VENV)/.local ## Ingest a drawn gallery, search it, write search_result.png, stop everything.
	@$(BIN)/lookalike demo

up: $(VENV)/.local ## Start the whole stack and keep it running until Ctrl-C.
	@$(BIN)/lookalike up

down: $(VENV)/.local ## Stop a stack that was started with --detach.
	@$(BIN)/lookalike down

# Groups of tests that share a stack stay together; most of them wait more than they compute.
PARALLEL := --numprocesses 2 --dist loadgroup --no-loadscope-reorder --durations 50 --durations-min 4

test: $(VENV)/.dev ## Run the tests.
	@$(BIN)/python -m pytest -m 'not servers and not chaos' $(PARALLEL)

test-servers: $(VENV)/.servers ## Run the end-to-end tests against redis-server and a Milvus standalone.
	@$(BIN)/python -m pytest -m servers $(PARALLEL)

chaos: $(VENV)/.dev ## Kill, cut, fill and freeze the parts of a running service; SEED=n for other random faults.
	@$(BIN)/python -m pytest -m chaos $(PARALLEL)

# Both wait much more than they compute, so that three processes keep two cores busy. What takes longest comes first.
test-slow: $(VENV)/.servers ## Run test-servers and chaos together.
	@$(BIN)/python -m pytest -m 'servers or chaos' $(PARALLEL) --numprocesses 3 --loadscope-reorder

fuzz-api: $(VENV)/.dev ## Send requests of every kind to a running service for five minutes; SEED=n for others.
	@FUZZ_S=300 $(BIN)/python -m pytest -rP tests/e2e/test_openapi_fuzz.py

bench: $(VENV)/.bench ## Measure how fast everything is, beside what else there is (25 minutes); ARGS="--help" tells more.
	@PYTHONPATH=bench:tests $(BIN)/python -m speed $(ARGS)

bench-quick: $(VENV)/.dev ## Show ratios of speed, from two minutes of measuring.
	@PYTHONPATH=bench:tests $(BIN)/python -m speed --quick $(ARGS)

bench-scale: $(VENV)/.local ## Measure how ingests grow, up to 1,000,000 files (20 minutes); ARGS="--help" tells more.
	@PYTHONPATH=bench:tests $(BIN)/python -m scale $(ARGS)

bench-vectors: $(VENV)/.servers ## Measure searches by index, on Milvus Lite or a standalone; ARGS="--help" tells more.
	@PYTHONPATH=bench:tests $(BIN)/python -m vectors $(ARGS)

lint: $(VENV)/.dev ## Check formatting, rules, types and import contracts.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code and apply safe fixes.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove .venv and what tools left behind.
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
