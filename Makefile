# In a fresh clone `make demo` makes a model, and `make test` runs all tests. Both install what they need, report what they do,
# continue after an interruption, and start at once the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup jars base-model demo test test-quick soak bench lint format clean

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
  command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
EXTRAS := trainer,lm-eval,ray,tensorboard,mlflow,feedback,audit,local-judge,s3,dev-stack,dev
KEY := $(shell cat pyproject.toml constraints.txt | (sha256sum 2>/dev/null || shasum -a 256) | cut -c1-16)
INSTALLED := $(VENV)/.installed-$(KEY)
# The number after this is how many processes share the test files, each with servers of its own. Tests with servers mostly wait, so
# two processes leave a third of two cores idle; tests without servers compute.
SIDE_BY_SIDE := --dist loadfile --numprocesses
# Python and pytest keep compiled files in __pycache__ even if the environment forbids it; otherwise each test process would compile them again.
export PYTHONDONTWRITEBYTECODE :=
SAY := @printf '\033[1m==> %s\033[0m\n'

help:
	@echo "make demo        run one job from its request to a registered model, on real Kafka and PostgreSQL"
	@echo "make test        run all tests, with real Kafka and PostgreSQL"
	@echo "make test-quick  run the tests that need no servers: units and the contract"
	@echo "make soak        run the reliability tests in their long form: a million events, random bytes for an hour, killed servers (about two hours)"
	@echo "make bench       measure the speed of the chassis on this machine, as ratios (about a quarter of an hour)"
	@echo "make bench BENCH=edge  measure the responses over HTTP (some minutes)"
	@echo "make bench BENCH=registry  measure registrations, filtered pages, and served versions against a bare server (about 20 minutes)"
	@echo "make bench BENCH=trainer  measure training against bare TRL, and claims of many queued steps (about an hour)"
	@echo "make lint        check style, types, import rules and compatibility"
	@echo "make format      correct the style"
	@echo "make setup       only install: $(VENV) with all packages"
	@echo "make clean       remove what runs left behind (var/, caches); $(VENV) and the user's cache stay"

setup: $(INSTALLED)

$(INSTALLED):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later found: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	$(SAY) "virtual environment $(VENV) ($$($(PYTHON) --version))"
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(SAY) "packages, as pinned in constraints.txt (the first time several GB and minutes without output, for torch)"
	@$(RUN) -m pip install --quiet --progress-bar off --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@rm -f $(VENV)/.installed-* && touch $@

jars: setup
	@$(RUN) -m services.devstack.aot

base-model: setup
	@$(RUN) -m services.demo.base_model

demo: setup jars base-model
	$(SAY) "demo"
	@$(VENV)/bin/neuroweaver demo $(DEMO)

test: setup jars base-model
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
	$(SAY) "compatibility with released contracts"
	@$(RUN) -m schemas.evolution.history --check && echo "compatible"

format: setup
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	@if [ -x $(VENV)/bin/neuroweaver ]; then $(VENV)/bin/neuroweaver down; fi
	rm -rf var build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find schemas services examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
