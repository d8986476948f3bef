# For POSIX make and GNU make 3.81 (macOS) or newer. Each job sets up what it needs; .venv/.current tells that .venv is.

PYTHON ?= python3
QUICKSTART_FLAGS ?=
TORCH_ONLY = --ignore=tests/covariance --ignore=neurovar/covariance --ignore=tests/networks/injection --ignore=neurovar/networks/injection --ignore=tests/networks/modifications --ignore=neurovar/networks/modifications --ignore=tests/networks/training --ignore=neurovar/networks/training --ignore=tests/noise/streaming --ignore=neurovar/noise/streaming --ignore=tests/robustness/attacks --ignore=neurovar/robustness/attacks
FUZZ_FLAGS ?= --files 20000 --seed 0
PIP_INSTALL = bin/python -m pip install -q --disable-pip-version-check

.PHONY: help quickstart test test-brainscore lint format benchmarks fuzz clean

help:
	@echo 'make quickstart       cortex beside a network, into report/  (QUICKSTART_FLAGS=--quick: a minute)'
	@echo 'make test             linters, types, tests, doctests and coverage'
	@echo 'make test-brainscore  the tests that are not slow and need more than torch, on the old versions that Brain-Score pins (Python 3.11 or 3.12)'
	@echo 'make lint             ruff and mypy'
	@echo 'make format           let ruff reformat and fix the code'
	@echo 'make benchmarks       print timings'
	@echo 'make fuzz             load 20,000 spoiled files with every importer  (FUZZ_FLAGS=--files 2000)'
	@echo 'make clean            remove the environments, built files and caches; report/ stays'
	@echo 'The environments are made with $(PYTHON); name another like this: make PYTHON=python3.12 test'

quickstart: .venv/.current
	.venv/bin/neurovar quickstart --output report $(QUICKSTART_FLAGS)

test: lint
	.venv/bin/pytest -n 2 --cov --cov-branch --cov-fail-under=90

# Left out beside the slow tests: what hangs on torch alone, which is the same in both environments, and benchmarks.
test-brainscore: .venv-brainscore/.current
	.venv-brainscore/bin/pytest -n 2 -m 'not slow' --ignore=tests/benchmarks $(TORCH_ONLY)

lint: .venv/.current
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv/.current
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

benchmarks: .venv/.current
	.venv/bin/pytest tests/benchmarks -o python_files='bench_*.py' -o python_functions='bench_*' -s

fuzz: .venv/.current
	.venv/bin/python tests/fuzz/run.py $(FUZZ_FLAGS)

clean:
	rm -rf .venv .venv-brainscore build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.current: .venv/bin/pip pyproject.toml constraints.txt
	.venv/$(PIP_INSTALL) -e '.[dev,pretrained]' -c constraints.txt
	@touch $@

.venv-brainscore/.current: .venv-brainscore/bin/pip pyproject.toml constraints-brainscore.txt
	.venv-brainscore/$(PIP_INSTALL) -e '.[brainscore,pretrained,test]' -c constraints-brainscore.txt
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("expected Python 3.11 or newer, got %d.%d ($(PYTHON)); name another like this: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

.venv-brainscore/bin/pip:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 13) or sys.exit("expected Python 3.11 or 3.12, got %d.%d ($(PYTHON)); name another like this: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv-brainscore
