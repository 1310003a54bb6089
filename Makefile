.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
FLOWER := .venv-federated
CONFIG ?= configs/synthetic.toml
POOL := songgraph
MAKE_POOL = $(VENV)/bin/prefect work-pool inspect $(POOL) >/dev/null 2>&1 || \
	$(VENV)/bin/prefect work-pool create $(POOL) --type process
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
SERVER_API := http://127.0.0.1:4200/api

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv and install everything, once

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

federated: $(FLOWER)/installed ## Make .venv-federated, in which the trainer `federated` runs Flower, once

$(FLOWER)/installed: constraints-federated.txt
	test -x $(FLOWER)/bin/python || python3 -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --constraint constraints-federated.txt torch==2.13.0
	$(FLOWER)/bin/python -m pip install --quiet --constraint constraints-federated.txt \
		'flwr[simulation,dp]' torch-geometric lazy-loader numba numpy pyarrow pydantic rich safetensors scipy
	touch $@

train: install ## Run the main job (CONFIG=configs/synthetic.toml)
	@$(PYTHON) -m flows.train --config $(CONFIG)

tune: install ## Search better hyper-parameters (CONFIG=configs/synthetic.toml)
	@$(PYTHON) -m flows.tune --config $(CONFIG)

check: install ## Format, lint, types, and the direction of imports
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# processes beside each other, whose torch threads would wait for each other by spinning
PYTEST := OMP_WAIT_POLICY=PASSIVE $(PYTHON) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

test: install federated ## All tests, those of the trainer `federated` with Flower too
	$(PYTEST) --durations=30

test-fast: install ## The tests that are not marked slow
	$(PYTEST) -m 'not slow'

worker deploy: export PREFECT_API_URL ?= $(SERVER_API)

server: install ## Prefect's server and UI on 127.0.0.1:4200
	$(VENV)/bin/prefect server start --host 127.0.0.1

worker: install ## A worker for the deployments; makes the work pool if needed
	$(MAKE_POOL)
	$(VENV)/bin/prefect worker start --pool $(POOL)

deploy: install ## Deploy train/simple, train/advanced and train/online (needs the server)
	$(MAKE_POOL)
	$(VENV)/bin/prefect --no-prompt deploy --all
	$(VENV)/bin/prefect automation inspect songgraph-crash-silent-runs >/dev/null 2>&1 || \
		$(VENV)/bin/prefect automation create --from-file automations.yaml

tensorboard: install ## Learning curves on 127.0.0.1:6006
	$(VENV)/bin/tensorboard --logdir artifacts/tensorboard --host 127.0.0.1

mlflow: install ## Runs and registered models on 127.0.0.1:5000
	$(VENV)/bin/mlflow ui --backend-store-uri sqlite:///artifacts/mlflow/mlflow.db --host 127.0.0.1

bench: install ## The comparison with PyG, LightGCN, MF, baselines; timings
	$(PYTHON) benchmarks/comparison.py
	$(PYTHON) benchmarks/attention.py
	$(PYTHON) benchmarks/ranking.py
	$(PYTHON) benchmarks/cached_run.py

bench-quick: install ## The same table with fewer rows and epochs, on a small log
	@$(PYTHON) benchmarks/comparison.py --config configs/synthetic.toml --results artifacts/bench-quick \
		--epochs 2 --rows gat pyg-gat lightgcn popularity item-knn-bm25 ease

clean: ## Delete what runs and tools wrote, but not .venv and .venv-federated
	rm -rf artifacts data/graph.pt build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(FLOWER)/*' -prune -exec rm -rf {} +

.PHONY: help install federated train tune check test test-fast server worker deploy tensorboard mlflow bench bench-quick clean
