# The README's commands. Everything is made in .venv; nothing outside of this folder is changed.
PYTHON ?= $(shell for p in python$$(cat .python-version) python3.13 python3.12 python3; do $$p -c "" 2>/dev/null && command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
SOURCES := sidecar addons demo tests bench

.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.runtime: requirements.lock pyproject.toml .python-version
	@echo "making $(VENV) from requirements.lock"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 12), "Python 3.12 or later is needed; set PYTHON=/path/to/python3.13"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "adding the tools of requirements-dev.lock"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-dev.lock
	@touch $@

venv: $(VENV)/.runtime ## Make .venv with the `sidecar` command in it

demo: $(VENV)/.runtime ## Watch real clients being allowed, denied and distrusted; nothing leaves the machine
	@$(BIN)/python -m demo

lint: $(VENV)/.dev ## Format check, lint, types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.dev ## Rewrite the sources in the one format
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

test-fast: $(VENV)/.dev ## Unit tests only: the inner loop
	$(BIN)/python -m pytest -q -m "not live and not heavy and not root" -n 2

test: lint ## Everything that needs no image and no browser; within ten minutes
	$(BIN)/python -m pytest -m "not heavy" -n 2 --dist loadfile

test-heavy: $(VENV)/.dev ## What needs images or a browser
	$(BIN)/python -m pytest -m heavy

test-breaks: $(VENV)/.dev ## Break each promise once, in a copy: some test must notice
	$(BIN)/python -m tests.breaks

bench: $(VENV)/.dev ## CPU per operation: plain mitmdump and the sidecar, side by side
	$(BIN)/python -m bench

lock: ## Refresh the lock files from pyproject.toml
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-header -o requirements.lock pyproject.toml requirements-build.in
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-header --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml requirements-build.in

clean: ## Remove what make has made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help venv demo lint format test-fast test test-heavy test-breaks bench lock clean
