# Complete from nothing but Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=
KILLS_FLAGS ?=
SOAK_FLAGS ?=
LONG ?= tests
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
BENCH := OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

.PHONY: demo test test-long lint bench bench-large kills soak clean

demo: $(VENV)/ready          ## build an atlas of packaged photographs, look at it, serve it
	$(BIN)/unitscope demo $(DEMO_FLAGS)

test: lint                   ## linters, types, import contracts, and all tests but the longest
	$(TESTS) -m "not long"

test-long: $(VENV)/ready     ## every family of models, ten of each fault of a cluster
	$(TESTS) -m long $(LONG)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/bench-ready    ## minutes: tables of ratios, and benchmarks/results/*.json
	$(BENCH).scan
	$(BENCH).workers
	$(BENCH).decode
	$(BENCH).patches --vectors 100000
	$(BENCH).catalogue 100000
	$(BENCH).million 10000
	$(BENCH).million 100000
	$(BENCH).questions --images 10000,100000
	$(BENCH).pages --images 10000,100000
	$(BENCH).project
	$(BIN)/unitscope demo --no-serve --dir build/bench/demo
	$(BENCH).optimise --atlas build/bench/demo/atlas --units 1
	$(BENCH).live --atlas build/bench/demo/atlas

bench-large: $(VENV)/bench-ready  ## the million: about an hour and 30 GB of disk
	$(BENCH).patches --vectors 1000000
	$(BENCH).catalogue 1000000
	$(BENCH).million 10000
	$(BENCH).million 100000
	$(BENCH).million 1000000
	$(BENCH).million 1000000 --segments 7
	$(BENCH).questions --images 10000,100000,1000000,1000000-7
	$(BENCH).pages --images 1000000

$(VENV)/bench-ready: $(VENV)/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps zennit-crp==0.6.0 zennit==0.4.6 pandas==3.1.1
	touch $@

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	touch $@

kills: $(VENV)/ready         ## 200 kills of workers, drivers, servers and heads; goes on where it was
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills $(KILLS_FLAGS)

soak: $(VENV)/ready          ## ten minutes of 50 clients on this machine, while the atlas grows
	$(BENCH).soak $(SOAK_FLAGS)

clean:
	rm -rf $(VENV) demo
