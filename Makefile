# Ringmain: set-up, demo, tests, benchmarks. `make run` and `make test` need nothing else done by hand.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .stamps
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q install
# Processes that share the tests: more than two cores, since many tests wait.
WORKERS ?= 3

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMPS)/run $(STAMPS)/web ## .venv, package, web assets

run: setup ## set up, then the demo: a municipal utility, live in the browser
	@exec $(BIN)/ringmain demo $(ARGS)

test: $(STAMPS)/dev $(STAMPS)/web $(STAMPS)/debian ## lint, format, types, import directions, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	cd web && npm run --silent check
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not soak" $(ARGS)

PART_MINUTES ?=
soak: $(STAMPS)/dev $(STAMPS)/web $(STAMPS)/debian ## the long campaigns; PART_MINUTES=20: go on where the last part stopped
	RINGMAIN_SOAK_PART_MINUTES=$(PART_MINUTES) $(BIN)/python -m pytest -q -m soak $(ARGS)

bench: $(STAMPS)/dev $(STAMPS)/web $(STAMPS)/debian ## every benchmark, one JSON object a row
	-$(PIP) "bytewax==0.21.1" "polars==2.1.0" # peers; their rows are left out without them
	$(BIN)/ringmain bench all --json $(ARGS)

docs: $(STAMPS)/run ## write the generated reference pages anew
	$(BIN)/python -m ringmain.cli.reference docs

format: $(STAMPS)/dev ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMPS)/dev ## write the pinned requirement files anew
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/compile.sh

clean: ## remove everything that set-up made
	rm -rf $(VENV) $(STAMPS) web/node_modules src/ringmain/serve/static build dist

# --- set-up steps: each leaves a stamp, so that the second run costs nothing -------------------------

$(STAMPS)/venv:
	@tools/need-python $(PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/venv requirements/run.txt requirements/demo.txt pyproject.toml
	@echo "installing the package and what it needs (once)"
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --require-hashes --no-deps -r requirements/demo.txt
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/run requirements/dev.txt
	@echo "installing what the tests need (once)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

WEB_SOURCES := $(shell find web -type f -not -path 'web/node_modules/*' -not -path 'web/.vite/*' 2>/dev/null)
$(STAMPS)/web: $(STAMPS)/venv $(WEB_SOURCES)
	@tools/need-node
	@echo "building the page (once)"
	@cd web && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent build
	@touch $@

$(STAMPS)/debian: $(STAMPS)/venv
	@tools/need-debian mosquitto:mosquitto mosquitto_pub:mosquitto-clients chromium:chromium
	@touch $@

.PHONY: help setup run test soak bench docs format lock clean
