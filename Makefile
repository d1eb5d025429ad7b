# `make PYTHON=python3.12 ...` chooses the interpreter, ARGS="..." is passed on.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: reproduce test bench

reproduce: .venv/installed
	$(BIN)/python reproduce.py $(ARGS)

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: .venv/benchmarks-installed
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	"TensorFlow needs Python 3.11 to 3.13: make PYTHON=python3.13, for example")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

.venv/benchmarks-installed: .venv/installed benchmarks/requirements.txt
	$(BIN)/pip install --disable-pip-version-check --quiet -r benchmarks/requirements.txt
	@touch $@
