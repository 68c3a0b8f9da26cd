# Needs Python 3.11 or newer and the package registry; no compiler, no git, no GPU.
#   make setup            .venv with everything, pinned; a second call does nothing
#   make serve            the server on http://127.0.0.1:8400      ARGS="--port 9000"
#   make test             the suite                                PYTEST="-n 0 tests/samplers -x"
#   make bench NAME=parity                                         JSON=out.json ARGS=--quick
#   PYTHON=python3.12     make .venv with that interpreter

.PHONY: setup serve test matrix bench lint clean
.DEFAULT_GOAL := setup

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
STAMP := .venv/.musiva-setup
ARGS ?=
PYTEST ?= -n 2 --dist loadfile --no-loadscope-reorder
JSON ?= $(NAME).json

setup: $(STAMP)

# torch goes first and alone, by its exact pin: left to the resolver, another package's range
# could pick a newer build, several gigabytes larger.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer on PATH; set PYTHON=" >&2; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) "$$(grep -m1 '^torch==' constraints.txt)"
	$(PIP) "$$(grep -m1 '^setuptools==' constraints.txt)"
	$(PIP) --no-build-isolation -e '.[diffusers,test,dev]'
	@touch $@

serve: setup
	$(BIN)/musiva serve $(ARGS)

test: setup
	$(BIN)/python -m pytest $(PYTEST)

matrix: setup
	$(BIN)/python -m pytest -n 2 -m 'not gpu'

bench: setup
	@test -n "$(NAME)" || { echo "which one? make bench NAME=..." >&2; exit 2; }
	$(BIN)/musiva bench $(NAME) --json $(JSON) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src tests recipes -name __pycache__ -type d -exec rm -rf {} +
