# make demo   a whole network on this machine
# make help   everything else

# Bytecode is kept between runs even where the environment says not to: starting is three times as fast.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PY := $(BIN)/python
FLOOR := 95
FLOOR_ROOMS := protocol ledger chain
# measured on these rooms' own tests alone: tracing slows the others, which run models and processes
SYSTEM := end_to_end localnet updates doctor redteam engines cli
# tests of real models and whole processes together; a target of their own, because they take minutes
BESIDE := --numprocesses $(shell nproc) --maxprocesses 4 --dist loadfile
# files of tests side by side; each worker has a Redis and an engine of its own

# a Subtensor node whose sudo key is //Alice, as on a development chain; docs/subtensor.md says what else it must be
NODE = $(or $(TARGON_TEST_SUBTENSOR),$(error TARGON_TEST_SUBTENSOR is missing: expected the address of a test node, \
  as in TARGON_TEST_SUBTENSOR=ws://127.0.0.1:9944 make test-chain; its sudo key must be //Alice, as on a development chain (docs/subtensor.md)))

.PHONY: help demo test test-system test-chain test-engines test-operations mutation check format bench bench-gateway vectors lock clean setup

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: .venv/run.stamp ## Run a whole network here: chain, verifiers, provers, cheats (minutes; needs no GPU)
	@$(BIN)/targon localnet $(ARGS)

test: .venv/develop.stamp ## Run the tests of every room, and hold protocol/, ledger/ and chain/ to 95% line coverage
ifdef ARGS
	@$(PY) -m pytest $(ARGS)
else
	@$(PY) -m pytest $(BESIDE) $(FLOOR_ROOMS:%=--cov=targon.%) --cov-report= $(FLOOR_ROOMS:%=tests/%)
	@set -e; for room in $(FLOOR_ROOMS); do \
	  echo "Line coverage of $$room/ by its own tests, at least $(FLOOR)%:"; \
	  $(PY) -m coverage report --include="src/targon/$$room/*" --fail-under=$(FLOOR); \
	done
	@$(PY) -m pytest $(BESIDE) $(FLOOR_ROOMS:%=--ignore=tests/%) $(SYSTEM:%=--ignore=tests/%)
endif

test-system: .venv/develop.stamp ## Test real models, commands, whole networks, updates, the doctor and the red team (minutes)
	@$(PY) -m pytest $(or $(ARGS),$(SYSTEM:%=tests/%))

test-chain: .venv/develop.stamp ## Test against a Subtensor node (minutes): TARGON_TEST_SUBTENSOR=ws://127.0.0.1:9944 make test-chain
	@TARGON_TEST_SUBTENSOR=$(NODE) $(PY) -m pytest $(or $(ARGS),-k subtensor tests/chain)

test-engines: .venv/develop.stamp .venv-engines/engines.stamp ## Test against real engines here: vLLM, llama.cpp (minutes; 2.5 GB of disk)
	@$(PY) -m pytest $(or $(ARGS),live)

test-operations: .venv/develop.stamp .venv-operations/operations.stamp ## Test how nodes are run: PM2, systemd units, Docker files (minutes)
	@$(PY) -m pytest $(or $(ARGS),operations)

mutation: .venv/develop.stamp ## Weaken every check, one at a time, and see that a test fails each time (minutes)
	@$(PY) scripts/weakenings.py $(ARGS)

check: .venv/develop.stamp ## Check style, types, imports between rooms, dependencies and vectors
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry src
	@$(PY) -m targon.protocol.vectors --check vectors

format: .venv/develop.stamp ## Put the code in form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: .venv/develop.stamp ## Measure, and print a table with this machine's description
	@$(PY) -m benchmarks $(ARGS)

bench-gateway: .venv/develop.stamp .venv-gateways/gateways.stamp ## Measure the gateway beside LiteLLM and sglang-router (minutes; needs wrk; 0.8 GB of disk)
	@$(PY) -m benchmarks gateway $(ARGS)

vectors: .venv/develop.stamp ## Write the conformance vectors again, after a rule has changed
	@$(PY) -m targon.protocol.vectors --write vectors

lock: .venv/develop.stamp ## Write constraints.txt again, from what is installed in .venv
	@$(PY) scripts/lock.py

setup: .venv/develop.stamp ## Set up .venv for running and developing, and nothing else

.venv/%.stamp: constraints.txt pyproject.toml scripts/setup.py
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $*

.venv-engines/%.stamp: constraints-engines.txt pyproject.toml scripts/setup.py
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $*

.venv-operations/%.stamp: constraints-operations.txt operations/package.json operations/package-lock.json pyproject.toml scripts/setup.py
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $*

.venv-gateways/%.stamp: constraints-gateways.txt pyproject.toml scripts/setup.py
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $*

clean: ## Remove what make made in this folder (not logs, wallets or converted models elsewhere)
	rm -rf .venv .venv-engines .venv-operations .venv-gateways .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find src tests live operations neurons benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
