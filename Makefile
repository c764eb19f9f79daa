# `make help` lists the targets. Everything is installed into .venv; nothing outside the checkout is touched
# (only `make services`, which nobody calls for you, installs system packages).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Tests mostly wait for processes; three at a time keep two cores busy.
TEST_PROCESSES ?= 3

# Debian packages with the real parts: Redis and Sentinel, Prometheus, Alertmanager, PostgreSQL and Docker (the tests
# make images of the former and start a daemon of their own), a browser, fonts for Korean.
SERVICES := redis-server redis-sentinel prometheus prometheus-alertmanager chromium chromium-driver docker.io postgresql \
            poppler-utils fonts-noto-cjk iptables iproute2 faketime

.DEFAULT_GOAL := help
.PHONY: help readiness sabotage test bench bench-lock lint types format services wheel-test dashboards lock clean

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	@echo "installing the locked dependencies into $(VENV) (once; about a minute) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $(STAMP)

readiness: $(STAMP) ## Run the main job on what the machine has, print where the report is
	@$(BIN)/readiness run $(ARGS); status=$$?; \
	case $$status in \
	  0) echo "status 0: every claim is proven" >&2;; \
	  2) echo "status 2: nothing failed, but some claims are open or were not run; the report names each" >&2; status=0;; \
	  1) echo "status 1: a claim or a gate failed; the report names it and how to see it again" >&2;; \
	  3) echo "status 3: the harness itself failed; the line above says where" >&2;; \
	  4) echo "status 4: the input could not be used; the line above says what to change" >&2;; \
	  *) echo "status $$status: the run ended unexpectedly" >&2;; \
	esac; exit $$status

test: $(STAMP) ## Run the tests of this repository (parts that the machine lacks are skipped with the reason)
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(ARGS)

sabotage: $(STAMP) ## Break copies of the system in 60 known ways: do the checks notice? (about an hour; ARGS="--sample 10")
	@$(BIN)/readiness sabotage $(ARGS)

bench: $(STAMP) ## Measure ragworker beside 8 other job queues on one Redis (ARGS="--only ours" needs none of them)
	@$(BIN)/python -m bench.run --install $(ARGS)

lint: $(STAMP) ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict on both packages
	@$(BIN)/mypy

format: $(STAMP) ## Let ruff rewrite the files
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

services: ## Install the real parts with apt (asks for root; never called by itself)
	@if [ "$$(id -u)" = 0 ]; then run=""; else run=sudo; fi; \
	$$run apt-get update -q && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -q --no-install-recommends $(SERVICES)

wheel-test: $(STAMP) ## Build the wheel, install it in an empty environment elsewhere, run `readiness run` from it
	@PYTHON=$(PYTHON) bash .ci/wheel-test

dashboards: $(STAMP) ## Build the committed dashboard JSON from its source
	@$(BIN)/python dashboards/build.py

lock: $(STAMP) ## Resolve requirements.txt anew (every platform and Python, hashed, no index URL)
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/lock/bin/uv pip compile pyproject.toml --extra dev --extra docker --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --output-file requirements.txt --upgrade --quiet

bench-lock: $(STAMP) ## Resolve the peers' environments anew, from bench/requirements-*.in
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@for name in most arq taskiq; do \
	  $(VENV)/lock/bin/uv pip compile bench/requirements-$$name.in --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --output-file bench/requirements-$$name.txt --upgrade --quiet || exit 1; \
	done

clean: ## Remove the environment and caches; runs under reports/ and bench/results/ stay
	@rm -rf $(VENV) bench/.venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
