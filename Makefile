# `make` builds the virtual environment and the program; `make demo` sends a file between two processes here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Seconds after which a test run that hangs is ended.
TEST_TIMEOUT ?= 1800

.PHONY: build demo test lint bench netlab matrix dist clean

build: $(STAMP)
	@echo "udpsend is built. Run it:    $(BIN)/udpsend --help"
	@echo "or see it work:              make demo"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "udpsend needs Python 3.11 or newer; '$(PYTHON)' is not that. Choose another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@# What is there may be another Python's (an editor's, another clone's), which would stay the one that is used.
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m tools.demo

test: $(STAMP)
	timeout --foreground -k 10 $(TEST_TIMEOUT) $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m tools.bench

# Needs root, nftables, iproute2, mosquitto, coturn and miniupnpd; RUNS times each pair of networks.
RUNS ?= 20
JOBS ?= $(shell nproc)
netlab: $(STAMP)
	$(BIN)/python -m tools.netlab check
	$(BIN)/python -m tools.netlab matrix --runs $(RUNS) --jobs $(JOBS)
	$(BIN)/python -m tools.netlab changes

# The congestion control in the simulator: 192 links, 80 minutes of processor time.
matrix: $(STAMP)
	$(BIN)/python -m tools.matrix --jobs $(JOBS)

dist: $(STAMP)
	$(BIN)/python -m hatchling build -d dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find udpsend tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
