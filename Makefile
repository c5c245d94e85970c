# Everything works from a fresh clone: each target makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= vistudy-data
READY := $(VENV)/.ready

export OMP_NUM_THREADS ?= 1
export PYTHONHASHSEED ?= 0

.PHONY: quickstart test test-cluster bench-engine bench-gpu check lint types contracts bench docs lock clean
.DEFAULT_GOAL := quickstart

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vistudy needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing packages into $(VENV) (about 6 GB with PyTorch's CUDA builds; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

quickstart: $(READY)  ## set up, then the main job: a stability map of a GAN
	$(BIN)/vistudy run study/recipes/quickstart.yaml --store $(STORE)

test: $(READY)  ## set up, then all tests but those that start a cluster of several nodes
	$(BIN)/python -m pytest -q -m "not cluster" --numprocesses 2 --dist worksteal tests/trainables tests/analysis
	$(BIN)/python -m pytest -q -m "not cluster" --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  --ignore tests/trainables --ignore tests/analysis

test-cluster: $(READY)  ## tests with real Ray nodes as processes, and faults in them
	$(BIN)/python -m pytest -q -m cluster

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

check: lint types contracts test  ## what CI runs

bench: $(READY)  ## trials a minute against plain Ray Tune and the bare engine
	$(BIN)/python -m benchmarks.overhead

bench-engine: $(READY)  ## the packed engine against a plain loop, processes and an HFTA-style array
	$(BIN)/python -m benchmarks.engine

bench-gpu:  ## the same on a CUDA device; needs torch, torchvision and numpy alone
	$(PYTHON) -m benchmarks.engine --device cuda --shared 4

docs: $(READY)  ## write generated documentation anew
	$(BIN)/python -m vistudy.study.spec.docs

lock: $(READY)  ## resolve requirements.lock anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --group dev pyproject.toml \
	  --no-header --no-annotate --no-emit-index-url --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
