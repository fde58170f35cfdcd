# make demo     run the flights example, kill a shard in the middle, compare the result
# make test     run the tests, a few at the same time (make TESTS='tests/core -x' test: only some of them, with options of pytest)
# make test-long  the tests that take minutes, too: long chaos, more seeds, more examples
# make check    everything a change must pass: format, lint, types, layers, tests, simulation
# make clean    remove what was built (data/ and out/ are yours and stay)
#
# Set-up goes into .venv, from the lock files, and is done once. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
TESTS ?=

# Tests start hundreds of processes. Each would compile what it imports, where that is not kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long check clean

demo: $(VENV)/runtime.stamp
	$(BIN)/python -m shardfun.examples.flights.demo

test: $(VENV)/dev.stamp
	$(PYTEST) $(TESTS)

test-long: $(VENV)/dev.stamp
	$(PYTEST) --long $(TESTS)

check: $(VENV)/dev.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find shardfun tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# A set-up that was cut short leaves no stamp, and is done again.
$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: expected Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing); try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: expected the modules venv and ensurepip of '$(PYTHON)'; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# setuptools is among the hashed packages, so that the last step needs no network. It is what makes the command and the kinds of
# ingress and egress known, hence again when pyproject.toml changes.
$(VENV)/runtime.stamp: requirements.lock pyproject.toml $(VENV)/created.stamp
	@echo "installing what shardfun needs"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/runtime.stamp
	@echo "installing what its tests need"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
