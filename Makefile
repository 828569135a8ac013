# The README's commands. Everything is made in .venv; nothing outside of this folder is changed.
PYTHON ?= $(shell for p in python$$(cat .python-version) python3.13 python3.12 python3; do $$p -c "" 2>/dev/null && command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
SOURCES := sidecar addons demo tests bench deploy/image
CONTAINERS ?= $(shell command -v docker || command -v podman || echo docker)
COMPOSE ?= docker compose

.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.runtime: requirements.lock pyproject.toml .python-version
	@echo "making $(VENV) from requirements.lock"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 12), "Python 3.12 or later is needed; set PYTHON=/path/to/python3.13"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "adding the tools of requirements-dev.lock"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes --no-deps -r requirements-dev.lock
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

image: ## Build egress-sidecar:latest by docker or podman; BASE_IMAGE and IMAGE_FLAGS are passed on
	DOCKER_BUILDKIT=1 $(CONTAINERS) build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) \
	  $(IMAGE_FLAGS) --tag egress-sidecar:latest .

compose-demo: image ## Allowed, denied, and around the sidecar: a workload under compose, then its events
	@cd deploy/compose && trap '$(COMPOSE) down --volumes --timeout 5' EXIT && $(COMPOSE) up --detach && \
	for url in https://www.example.com/ https://denied.example.com/ https://192.0.2.1/; do \
	  echo "\$$ curl $$url" && $(COMPOSE) exec --no-TTY workload curl -sS --max-time 20 "$$url" </dev/null | head -c 600 && echo; \
	done && $(COMPOSE) logs --no-log-prefix sidecar

fuzz: $(VENV)/.dev ## Fuzz whatever reads bytes, by coverage; MINUTES=5 in all
	$(BIN)/python -m tests.fuzz $(or $(MINUTES),5)

bench: $(VENV)/.dev ## CPU per operation, latency, memory: the sidecar beside its peers; some twelve minutes
	$(BIN)/python -m bench

bench-quick: $(VENV)/.dev ## What decides of it, in less than three minutes; the verdict is the last line
	@$(BIN)/python -m bench --quick

profile: $(VENV)/.dev ## Where the sidecar's time goes: kept-alive requests, new connections, a download
	$(BIN)/python -m bench --profile --seconds 5

lock: ## Refresh the lock files from pyproject.toml
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-header -o requirements.lock pyproject.toml requirements-build.in
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-header --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml requirements-build.in
	echo cyclonedx-bom | $(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-header --no-annotate -c requirements.lock -o deploy/image/sbom.lock -

clean: ## Remove what make has made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help venv demo lint format test-fast test test-heavy test-breaks fuzz bench lock clean image compose-demo
