# Two commands on a fresh machine with Python >= 3.11, git and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install demo app model test cover test-long lint clean
install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt hatch_build.py
	$(PYTHON) -c 'import sys; sys.exit("hemotorch needs Python 3.11 or newer; say make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -c 'import ensurepip, venv' || { echo 'this Python has no venv: install python3-venv first (Debian, Ubuntu)'; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train]'
	touch $@

# medicaltorch is what our copy of its network is proved against; its dependencies (torchvision) are not needed for that.
.venv/.dev: .venv/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --no-deps medicaltorch==0.2
	touch $@

demo: .venv/.installed
	$(BIN)/hemotorch demo --out demo

# The app with the demo's scans, which are made if `make demo` has not made them yet. Ctrl-C stops it.
app: .venv/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train,app]'
	test -e demo/data/phantom.json || $(BIN)/hemotorch phantom demo/data --preset demo --layout folder
	$(BIN)/hemotorch serve demo/app --watch demo/data

# The model in the box, anew: hours. DATA is the folder of openly licensed scans that model/sources.py names.
model: .venv/.installed
	$(BIN)/python model/make.py $(if $(DATA),--data '$(DATA)')

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m 'not long'

cover: .venv/.dev
	$(BIN)/python -m pytest -m 'not long' --cov --cov-report=term:skip-covered

test-long: .venv/.dev
	$(BIN)/python -m pytest -m long

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .coverage
