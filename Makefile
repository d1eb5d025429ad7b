# `make PYTHON=python3.12 ...` chooses the interpreter, ARGS="..." is passed on.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: reproduce test test-backends bench

reproduce: .venv/installed
	$(BIN)/python reproduce.py $(ARGS)

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# What computes, on JAX and torch: the tests of the experiments, and several processes.
# JAX keeps what it compiled for one test for the next ones; threads of torch would wait for each other.
test-backends: .venv/backends-installed
	@export JAX_COMPILATION_CACHE_DIR=$$(mktemp -d) JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.3 OMP_NUM_THREADS=1; \
	trap 'rm -r $$JAX_COMPILATION_CACHE_DIR' EXIT; \
	for backend in jax torch; do \
	echo "== $$backend"; \
	KERAS_BACKEND=$$backend $(BIN)/python -m pytest -n 2 --dist loadfile \
	$(patsubst %/train.py,tests/%,$(wildcard */train.py)) tests/test_parallel.py $(ARGS) \
	|| exit 1; done

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

.venv/backends-installed: .venv/installed tests/requirements-backends.txt
	$(BIN)/pip install --disable-pip-version-check --quiet -r tests/requirements-backends.txt
	@touch $@
