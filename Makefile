# Every target does its own set-up, once: a local .venv with what the target needs. Nothing but Python 3.10 or newer
# and make has to be there. Where packages come from is up to pip's own configuration.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# One process for each processor, up to eight; what they share, compiled kernels, is made before.
PARALLEL := --numprocesses auto --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help demo test lint kernels test-slow test-bounds test-engines bench docs example clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.runtime ## Plan a generated DeepSeek-V3 load, before and after. No torch needed.
	@$(BIN)/equipoise demo

test: $(VENV)/.development ## Lint, types, tests and the examples in docstrings and README.
	@$(MAKE) --no-print-directory --jobs 2 lint kernels
	$(BIN)/python -m pytest -rs -m "not slow" $(PARALLEL)

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kernels: $(VENV)/.development
	$(BIN)/equipoise warmup

test-slow: $(VENV)/.development ## Run the tests that compile everything again, or look at very many cases.
	$(BIN)/python -m pytest -rs -m slow $(PARALLEL)

test-bounds: $(VENV)/.development ## Run every native kernel with each index checked; compiles all of them anew.
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/.cache/bounds $(BIN)/python -m pytest -m "not slow" \
	  tests/test_fuzz_layers.py tests/kernels tests/descent tests/bounds tests/test_solver.py tests/test_eplb.py tests/replan

test-engines: $(VENV)/.development ## Run the plug-ins inside the real vLLM, SGLang and vLLM-Ascend; fetches their wheels once.
	$(BIN)/python tests/engines/environments.py

bench: $(VENV)/.development ## Check, then time, against the programs that equipoise is measured by.
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/planning.py

docs: $(VENV)/.docs ## Build the site into .cache/site; every link is checked.
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

example: $(VENV)/.development ## Serve a small real MoE from four processes while its text changes; under three minutes.
	@$(BIN)/python examples/small_moe/run.py

clean: ## Remove the .venv and what tools leave behind.
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
	@echo "Left where they are: kernels that were compiled into your own cache, because the package's folder could not be"
	@echo "written, or into NUMBA_CACHE_DIR. rm -rf ~/.cache/equipoise removes the former (~/Library/Caches on macOS)."

# The stamps say what is installed, so that set-up is not repeated until what it follows from changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "Python 3.10 or newer is needed; name one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) (first run only)" >&2
	$(PIP) install --editable .
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) for the docs (first run only)" >&2
	$(PIP) install --editable '.[docs]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.development: pyproject.toml constraints-dev.txt | $(BIN)/python
	@echo "setting up $(VENV) for development (first run only)" >&2
	$(PIP) install --editable '.[dev]' --constraint constraints-dev.txt
	@touch $@ $(VENV)/.runtime
