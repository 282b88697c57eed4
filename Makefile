# Everything sets itself up: a virtual environment from the lock file, then the command.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test kafka lint format bench bench-check bench-restore bench-scale bench-behind simulate simulate-bugs chaos fuzz mutants lock clean

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
	$(BIN)/python benchmarks/suite.py $(if $(ONLY),--only $(ONLY)) $(if $(EVENTS),--events $(EVENTS))

# Whether decoding, aggregating or evaluating got dearer, in instructions; KEEP=1 keeps what is counted. Needs valgrind.
bench-check: $(READY)
	$(BIN)/python benchmarks/check.py $(if $(KEEP),--keep)

# How long a start with a state of 100,000 series takes; making that state takes longer.
bench-restore: $(READY)
	$(BIN)/python benchmarks/restore.py

# Everything that may go wrong, on the in-memory log: make simulate SEEDS=10000, or one again: make simulate SEED=123
SEEDS ?= 10000
simulate: $(READY)
	$(BIN)/python tests/simulation/simulate.py $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --report docs/simulation.md)

# Known bugs that the simulation has to find.
simulate-bugs: $(READY)
	$(BIN)/python tests/simulation/bugs.py

# Everything that may go wrong, on a real Kafka: make chaos ONLY=F3,F6 SEED=2, or all of it in short: SHORT=1
chaos: $(READY)
	$(BIN)/python tests/chaos/run.py $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(SHORT),--short)

# What it costs to add and to remove a replica: 1 to 8 processes on one broker, and back.
bench-scale: $(READY)
	$(BIN)/python benchmarks/scale.py

# What it costs in memory that one of eight partitions is a day behind the others.
bench-behind: $(READY)
	$(BIN)/python benchmarks/behind.py

# Bytes near to real ones, of all formats: make fuzz SECONDS=600, or of one: make fuzz FORMAT=otlp
SECONDS ?= 600
fuzz: $(READY)
	$(BIN)/python tests/fuzz/run.py $(FORMAT) --seconds $(SECONDS) --inputs 1000000000 $(if $(SEED),--seed $(SEED))

mutants: $(READY)
	$(BIN)/python tests/mutants/run.py

# Pins every dependency with its hashes.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --generate-hashes --universal --no-emit-index-url --no-annotate --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras -c requirements.lock --generate-hashes --universal --no-emit-index-url --no-annotate --no-header -q -o requirements-run.lock

# uv only installs; it takes a few seconds where pip takes half a minute. Compiled once here, not at every start of a
# process: not everybody lets Python write bytecode.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q evaluator
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
