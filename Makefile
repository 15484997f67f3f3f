# Two commands for a fresh machine: `make run` (install, train on sample data) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test test-unit test-processes test-deploy test-gpu test-numerics test-browser test-cluster test-slurm-new lint hooks generate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.engine: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[engine]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.engine $@

sample-data: $(VENV)/.engine
	$(BIN)/python -m rtdetr_slurm.data.sample sample-data

run: sample-data ## install, then train on generated images on this machine
	$(BIN)/rtdetr-slurm submit specs/quickstart.yaml --site local --follow

test: lint test-unit test-processes test-deploy test-numerics test-browser test-cluster ## install all that the tests need, then run them

lint: $(VENV)/.dev ## ruff, mypy, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m rtdetr_slurm.spec.generate --check

hooks: $(VENV)/.dev ## run `make lint` before every commit
	$(BIN)/pre-commit install

test-unit: $(VENV)/.dev ## fast tests, no cluster
	$(BIN)/pytest -n 2 --dist loadfile tests/unit

test-processes: $(VENV)/.dev ## whole runs on this machine: ranks, chain runner, and who dies first
	$(BIN)/pytest -n 2 --dist loadfile tests/processes

test-deploy: $(VENV)/.dev ## TensorRT engines, built for GPUs that are elsewhere
	$(BIN)/pytest -n 2 --dist loadfile tests/deploy

test-gpu: $(VENV)/.dev ## training and engines on a GPU, where there is one; no part of `make test`
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/pytest tests/gpu; else echo "test-gpu: torch sees no CUDA device; nothing was tested"; fi

test-numerics: $(VENV)/.dev ## the engine against published implementations, in float64
	$(BIN)/pytest -n 2 --dist loadfile tests/numerics

test-browser: $(VENV)/.dev ## reports in a real Chromium (root on Debian; skipped elsewhere)
	$(BIN)/pytest tests/browser

test-cluster: $(VENV)/.dev ## a real Slurm with real Apptainer (root on Debian; skipped elsewhere)
	$(BIN)/pytest -n 2 --dist loadfile tests/cluster

test-slurm-new: $(VENV)/.dev ## the cluster tests once more, on a newer Slurm (Debian trixie's)
	RTDETR_TEST_SLURM=trixie $(BIN)/pytest -n 2 --dist loadfile tests/cluster

generate: $(VENV)/.dev ## rewrite schemas/, specs/<action>.yaml and docs/spec.md from the models
	$(BIN)/python -m rtdetr_slurm.spec.generate

clean: ## remove the environment and what `make run` made
	rm -rf $(VENV) sample-data runs
