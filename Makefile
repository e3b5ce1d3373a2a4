# `make demo` and `make test` need Python >= 3.11 and make; all else goes into .venv, into
# .venv-federated, which has Flower, and into .venv-newest where there is Python >= 3.12.
.DEFAULT_GOAL := help
.PHONY: help setup setup-federated demo test test-all test-federated test-newest lint bench docs clean

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One stamp for each set of extras, so that an installation is repeated only when a version changes.
DEMO := .venv/.installed-demo
DEV := .venv/.installed-dev
DOCS := .venv/.installed-docs
FEDERATED := .venv-federated/.installed
FLOWER_TESTS := .venv-federated/bin/python -m pytest -n 2 --dist loadfile tests/federated/flower

help: ## Say what can be made.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(DEV) ## Install everything that development needs into .venv.

demo: $(DEMO) ## Run the whole job on a built-in cohort; ends with a table and runs/demo/report.html.
	$(BIN)/gxdistill demo --workdir=runs/demo

test: lint $(FEDERATED) ## Check the code and run the quick tests, and the core's with the newest JAX.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' \
	  --timeout=300 --override-ini=faulthandler_timeout=360
	$(FLOWER_TESTS) -m 'not slow' --timeout=300 --override-ini=faulthandler_timeout=360
	@.ci/newest_jax

test-all: lint $(FEDERATED) ## Check the code and run all tests, and the core's with the newest JAX.
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(FLOWER_TESTS)
	@.ci/newest_jax

test-federated: $(FEDERATED) ## Run the tests that need Flower, the slow ones too, in .venv-federated.
	$(FLOWER_TESTS)

test-newest: ## Run the core's tests with the newest JAX, in .venv-newest.
	@.ci/newest_jax

lint: $(DEV) ## Check lint, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gxdistill benchmarks

bench: $(DEV) ## Check that the tables show the recorded figures.
	$(BIN)/python -m benchmarks.tables --check

docs: $(DOCS) ## Build the documentation's site in site/; begin at site/index.html.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove caches; the environments and runs stay.
	rm -rf .mypy_cache .pytest_cache .ruff_cache build *.egg-info

# A shim may bear a version's name and not run it, and Debian ships Python without venv: try each.
.venv/bin/python:
	@for python in python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    echo "Creating .venv with $$($$python --version)."; exec $$python -m venv .venv; \
	  fi; \
	done; \
	echo "No Python >= 3.11 with the venv module was found. Install one first" \
	  "(on Debian or Ubuntu: apt-get install python3-venv)." >&2; exit 1

$(DEMO): pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[report]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev,dicom,report,sign,tfds]'
	@touch $(DEMO) $@

setup-federated: $(FEDERATED) ## Install the server and the client of a federation over a network.

$(FEDERATED): pyproject.toml constraints-federated.txt | .venv/bin/python
	.venv/bin/python -m venv .venv-federated
	.venv-federated/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-federated.txt -e '.[federated]' pytest pytest-timeout pytest-xdist
	@touch $@

$(DOCS): pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[docs]'
	@touch $@
