# The whole workflow; `make help` lists it. PY is the interpreter of the environment to use.
PY ?= .venv/bin/python
SHELL := /bin/bash

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv with everything that development needs
	python3 -m venv .venv
	.venv/bin/pip install -q -e ".[dev]"

check: lint types contracts  ## ruff, mypy --strict, import contracts, shape of the modules
	$(PY) -m pytest -q tests/house

lint:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types:
	$(PY) -m mypy

contracts:
	$(dir $(PY))lint-imports

fix:  ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test:  ## the tests, on an embedded PostgreSQL
	$(PY) -m pytest

faults:  ## kill, cut, stop and crash under load, and check the history; QUICK=1, FAULTS=1,3,20
	$(PY) -m tests.faults.suite $(if $(QUICK),--quick) $(if $(FAULTS),--faults $(FAULTS)) $(if $(JSON),--json $(JSON))

mutations:  ## break the source on purpose: `faults` must notice each time
	$(PY) -m tests.faults.suite --mutations

soak:  ## mixed load with kills: nothing is lost, nothing grows; MINUTES=20 RATE=200
	$(PY) -m tests.faults.soak --minutes $(or $(MINUTES),20) --rate $(or $(RATE),200)

pinned:  ## throughput while a transaction holds an old snapshot; TASKS=200000
	$(PY) -m tests.faults.pinned --tasks $(or $(TASKS),200000)

compare:  ## the same programs on Celery itself and on pgcelery
	$(PY) -m pytest -m real_celery

longer:  ## bad input by the table, security, outages: what the default run has no time for
	$(PY) -m pytest -m "longer and not real_celery"

TIER ?= core
celery-suite:  ## Celery's own integration tests on pgcelery; TIER=core, stretch or all
	$(PY) -m tests.celery_compat.suite --tier $(TIER)

model:  ## the engine and its limits against their models, and breaks of it; ENGINE_SECONDS=90 GATES=2000
	ENGINE_SECONDS=$(or $(ENGINE_SECONDS),90) $(PY) -m pytest -q -s -o timeout=0 -m "slow or model" \
		tests/engine/test_engine_model.py tests/engine/test_engine_mutations.py
	GATES_EXAMPLES=$(or $(GATES),2000) GATES_STEPS=60 $(PY) -m pytest -q -o timeout=0 tests/engine/test_gates_model.py

limits:  ## 100,000 tasks over 1,000 keys, while workers are killed
	LIMITS_TASKS=100000 LIMITS_KEYS=1000 $(PY) -m pytest -q tests/faults/test_limits_under_kills.py

shapes:  ## new canvases drawn at random, on Celery and on pgcelery; SHAPES=500
	SHAPES=$(or $(SHAPES),500) $(PY) -m pytest -q -s -m real_celery tests/celery_compat/test_shapes.py -k random

cov:  ## the tests with coverage
	$(PY) -m coverage run -m pytest
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

bench:  ## pgcelery against its peers, interleaved; BENCH="--quick --only drain"
	$(PY) -m bench run $(BENCH)

growth:  ## what a task costs behind millions of others; GROWTH="--scale 0.1"
	$(PY) -m bench growth $(GROWTH)

ci: check test longer compare celery-suite  ## what CI runs in its own environment

.PHONY: help setup check lint types contracts fix test faults compare longer mutations soak pinned celery-suite model limits shapes cov bench growth ci
