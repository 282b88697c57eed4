# Everything sets itself up: a virtual environment from the lock file, then the command.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test kafka lint format bench mutants lock clean

demo: $(READY)
	$(BIN)/evaluator demo

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A broker to try things on, until Ctrl-C: Java and Maven, or Docker. It keeps nothing.
PORT ?= 9092
kafka:
	$(PYTHON) tools/broker/broker.py run --port $(PORT)

bench: $(READY)
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/kafka.py

mutants: $(READY)
	$(BIN)/python tests/mutants/run.py

# Pins every dependency with its hashes.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --universal --no-emit-index-url --no-annotate --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml -c requirements.lock --generate-hashes --universal --no-emit-index-url --no-annotate --no-header -q -o requirements-run.lock

# uv only installs; it takes a few seconds where pip takes half a minute.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
