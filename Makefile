# From a bare clone: `make demo` shows a model being made, `make test` proves the promises. Both do all set-up they need, say what
# they are doing, resume where they were interrupted, and start at once the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup jars base-model demo test test-quick soak bench lint format clean

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
  command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
EXTRAS := trainer,feedback,audit,local-judge,s3,dev-stack,dev
KEY := $(shell cat pyproject.toml constraints.txt | (sha256sum 2>/dev/null || shasum -a 256) | cut -c1-16)
INSTALLED := $(VENV)/.installed-$(KEY)
# So many processes share the files of tests, each with servers of its own. Tests with servers mostly wait: two processes left a third
# of two cores idle. Tests without servers compute.
SIDE_BY_SIDE := --dist loadfile --numprocesses
# What Python and pytest compile is kept in __pycache__, whatever the surroundings say: each process of tests would compile all of it again.
export PYTHONDONTWRITEBYTECODE :=
SAY := @printf '\033[1m==> %s\033[0m\n'

help:
	@echo "make demo        one job from its request to a registered model, on real Kafka and PostgreSQL"
	@echo "make test        all tests, with real Kafka and PostgreSQL"
	@echo "make test-quick  the tests that need no servers: units and the contract"
	@echo "make soak        the tests of reliability in their long form: a million events, any bytes for an hour, servers that die (about two hours)"
	@echo "make bench       how fast the chassis is, as ratios, measured on this machine (about a quarter of an hour)"
	@echo "make bench BENCH=edge  the same of answers over HTTP (some minutes)"
	@echo "make lint        style, types, import rules, compatibility"
	@echo "make format      mend the style"
	@echo "make setup       only the set-up: $(VENV) with all packages"
	@echo "make clean       remove what runs left behind (var/, caches); $(VENV) and the user's cache stay"

setup: $(INSTALLED)

$(INSTALLED):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later found: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	$(SAY) "virtual environment $(VENV) ($$($(PYTHON) --version))"
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(SAY) "packages, as pinned in constraints.txt (the first time several GB and minutes, in silence: torch)"
	@$(RUN) -m pip install --quiet --progress-bar off --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@rm -f $(VENV)/.installed-* && touch $@

jars: setup
	@$(RUN) -m services.devstack.aot

base-model: setup
	@$(RUN) -m services.demo.base_model

demo: setup jars base-model
	$(SAY) "demo"
	@$(VENV)/bin/neuroweaver demo $(DEMO)

test: setup jars
	$(SAY) "tests"
	@$(RUN) -m pytest $(or $(TESTS),$(SIDE_BY_SIDE) 3)

test-quick: setup
	$(SAY) "tests without servers"
	@$(RUN) -m pytest $(SIDE_BY_SIDE) 2 --hypothesis-profile=quick tests/unit tests/contract

soak: setup jars
	$(SAY) "soak"
	@$(RUN) -m pytest $(SIDE_BY_SIDE) 2 --hypothesis-profile=long --timeout 7200 -m hypothesis tests/unit tests/contract tests/integration/chassis
	@$(RUN) -m tests.simulation.soak
	@$(RUN) -m tests.fuzz.soak --hours 1
	@$(RUN) -m tests.faults.soak $(SOAK)

bench: setup jars
	$(SAY) "benchmarks"
	@$(RUN) -m benchmarks $(BENCH)

lint: setup
	$(SAY) "ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	$(SAY) "mypy"
	@$(VENV)/bin/mypy
	$(SAY) "import rules"
	@$(VENV)/bin/lint-imports
	$(SAY) "compatibility with what was released"
	@$(RUN) -m schemas.evolution.history --check && echo "compatible"

format: setup
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	@if [ -x $(VENV)/bin/neuroweaver ]; then $(VENV)/bin/neuroweaver down; fi
	rm -rf var build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find schemas services examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
