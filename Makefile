# Two commands set everything up on a fresh machine: `make demo` and `make test`.
# PYTHON=… picks the interpreter (3.11 or newer), JOBS=… how many tests or tasks run side by side, SOAK=… how much
# of the campaigns and long tests `make soak` runs, in percent; with ARGS=… it runs long tests alone.

PYTHON ?= python3
JOBS   ?= 2
SOAK   ?= 10
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Without bytecode each start of a program compiles all of its modules: 0.3 s, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-kvm lint soak soak-campaigns soak-programs bench docs man debian-disk guests clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/ready ## the timebase offset, seen happening, in five acts; Linux is the fifth
	@$(BIN)/chronovisor demo $(ARGS)

test: lint $(VENV)/dev ## types, style, import arrows, then all tests, a sample of each long campaign among them
	@$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not soak and not real_kvm" $(ARGS)

test-kvm: $(VENV)/dev ## the same promises on a real kernel's KVM, inside QEMU (needs Debian's apt and qemu-system-ppc)
	@$(BIN)/pytest -m real_kvm --durations 5 tests/real_kvm $(ARGS)

lint: $(VENV)/dev ## types, style and import arrows alone
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

soak: $(VENV)/dev ## all campaigns, then long tests of whole programs; SOAK=100 is all of them, hours
	@$(MAKE) --no-print-directory --keep-going $(if $(ARGS),,soak-campaigns) soak-programs

soak-campaigns: $(VENV)/dev
	@$(BIN)/chronovisor campaign all --share $(SOAK) --workers $(JOBS) --results build/soak

soak-programs: $(VENV)/dev
	@CHRONOVISOR_SOAK=$(SOAK) $(BIN)/pytest -n $(JOBS) -m soak --durations 0 --durations-min 5 $(ARGS)

bench: $(VENV)/dev ## the figures, against a peer in the same run where there is one
	@$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/docs ## the documentation as a site: build/docs/index.html
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --write-all --quiet --builder html docs build/docs
	@echo "build/docs/index.html"

man: $(VENV)/docs ## a manual page for each command: build/man (man -l build/man/chronovisor-run.1)
	@$(BIN)/sphinx-build --keep-going --write-all --quiet --builder man docs build/man
	@echo "build/man"

debian-disk: $(VENV)/ready ## a disk with Debian for 64-bit Power, in build/ (needs root and Debian's mmdebstrap); PACKAGES="gcc make"
	@$(BIN)/python -m chronovisor.cli.debian_disk build $(PACKAGES)

guests: ## the guests' ELF files, made anew (needs Debian's gcc and gcc-{powerpc64le,powerpc64,aarch64}-linux-gnu)
	@$(MAKE) --no-print-directory -C guests

clean: ## all that was made
	@rm -rf $(VENV) build src/chronovisor/engine/native/code .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "chronovisor needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "this Python cannot make a virtual environment (on Debian: apt-get install python3-venv)"; exit 1; }

$(VENV)/ready: $(BIN)/python pyproject.toml
	@$(PIP) install --editable .
	@touch $@

$(VENV)/docs: $(VENV)/ready
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(VENV)/dev: $(VENV)/ready
	@$(PIP) install --editable '.[dev]'
	@touch $@
