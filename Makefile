# Targets create .venv and install into it if needed; only Python 3.11+ and make are required.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the demonstration needs, and what the tests and the documentation need beside it.
BASE := $(VENV)/.base
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
PIP := --quiet --quiet --disable-pip-version-check --upgrade --upgrade-strategy only-if-needed
# Tests run in one process per core, each with one thread, because torch and FAISS bring an OpenMP runtime each. Each
# takes files from its own end of the suite, as what a file has made once serves all its tests, and then from another's.
TEST_ENV := OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0

.DEFAULT_GOAL := help
.PHONY: help demo docs omniglot cifar-fs test test-slow cuda lowest matrix wheels lint clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(BASE): setup.cfg pyproject.toml fewshot/_version.py
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "==> making $(VENV) and installing fewshot with its dependencies (about two minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP) -e .
	@touch $@

$(STAMP): $(BASE)
	@echo "==> adding what the tests need"
	@$(BIN)/python -m pip install $(PIP) -e '.[test]'
	@touch $@

$(DOCS): $(BASE)
	@echo "==> adding what the documentation needs"
	@$(BIN)/python -m pip install $(PIP) -e '.[docs]'
	@touch $@

docs: $(DOCS)  ## Build the documentation into docs/_build/html (a minute); warnings are errors
	@echo "==> sphinx"
	@$(BIN)/python docs/site/assemble.py docs/_build/source
	@$(BIN)/python -m sphinx -q -W --keep-going -j auto -c docs/site docs/_build/source docs/_build/html
	@echo "open docs/_build/html/index.html"

demo: $(BASE)  ## Train, learn new classes, look them up; write demo/report.html (about 2 minutes)
	@echo "==> fewshot demo"
	@$(BIN)/fewshot demo --out demo

data/omniglot: | $(BASE)
	@$(BIN)/fewshot data omniglot --out $@

omniglot: $(BASE) data/omniglot  ## Train on Omniglot and compare with the published numbers (an hour, downloads)
	@$(BIN)/python benchmarks/omniglot.py

data/cifar_fs: | $(BASE)
	@$(BIN)/fewshot data cifar-fs --out $@

cifar-fs: $(BASE) data/cifar_fs  ## Train on CIFAR-FS and compare (an hour, downloads)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[offline]'
	@$(BIN)/python benchmarks/cifar_fs.py

lint: $(STAMP)  ## Lint and types
	@echo "==> ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@echo "==> mypy"
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary data_prep

test: lint  ## Lint, types and the tests
	@echo "==> pytest"
	@$(TEST_ENV) $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(STAMP)  ## The slow tests: whole runs of the demo, soaks
	@echo "==> pytest, slow tests"
	@$(TEST_ENV) $(BIN)/python -m pytest -n auto --dist worksteal -m slow

cuda: $(STAMP)  ## The tests that compare a GPU with the processor; without a GPU, the processor with itself
	@echo "==> pytest, CUDA"
	@$(TEST_ENV) $(BIN)/python -m pytest tests/test_cuda.py

lowest:  ## The fast tests with the lowest versions that setup.cfg allows (installs several GB into .venv-lowest)
	@test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	@$(PYTHON) tests/lowest.py > $(VENV)-lowest/requirements.txt
	@echo "==> installing the lowest versions"
	@$(VENV)-lowest/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r $(VENV)-lowest/requirements.txt -e .
	@echo "==> pytest, lowest versions"
	@$(TEST_ENV) $(VENV)-lowest/bin/python -m pytest -n auto --dist worksteal -m "not slow"

wheels: $(BASE)  ## Build fewshot-learn and fewshot-runtime, the distribution for devices, into dist/
	@rm -rf build/lib && $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@$(PYTHON) .ci/runtime.py build/runtime
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist ./build/runtime
	@ls -l dist/*.whl

matrix:  ## The fast tests on each Python found, with the lowest and the newest dependencies (hours, several GB each)
	@$(PYTHON) tests/matrix.py $(TESTS)

clean:  ## Remove .venv and caches
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-matrix .mypy_cache .pytest_cache .ruff_cache *.egg-info
