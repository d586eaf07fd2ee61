PYTHON ?= python3
VENV := .venv
HOME_FOLDER := $(if $(OSMF_HOME),$(OSMF_HOME),.osmf)
SETUP := $(VENV)/.set-up
# Two files of tests at a time: more Spark sessions than that do not fit small machines.
TEST_PROCESSES := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# No telemetry of any library, no look at any model hub, nothing bound beyond this machine.
export DAGSTER_HOME := $(CURDIR)/dagster_home
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export HF_HUB_OFFLINE := 1

.PHONY: help setup demo demo-full dev cluster test test-slow test-all torture torture-training lint lock clean

help: ## lists the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(SETUP) ## installs everything into .venv (once)

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed, this is %s: make PYTHON=python3.11 ..." % sys.version.split()[0])'
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 2**30; sys.exit(0 if free > 12 else "%.0f GiB free here, 12 are needed: free some." % free)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements-bootstrap.lock
	$(VENV)/bin/uv pip sync --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --editable .
	@touch $@

$(HOME_FOLDER)/activate: $(SETUP)
	@mkdir -p $(HOME_FOLDER)
	@printf '%s\n' 'source "$(CURDIR)/$(VENV)/bin/activate"' 'cd "$(CURDIR)"' \
	  'export DAGSTER_HOME="$(CURDIR)/dagster_home"' \
	  'export MLFLOW_TRACKING_URI="sqlite:///$(abspath $(HOME_FOLDER))/mlflow.db"' \
	  'export MLFLOW_BACKEND_STORE_URI="$$MLFLOW_TRACKING_URI" MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false' \
	  'export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false' \
	  'export GX_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1' > $@

demo: $(HOME_FOLDER)/activate ## logs to group-aligned pictures, on a simulated market and on real logs
	$(VENV)/bin/osmf demo

demo-full: $(HOME_FOLDER)/activate ## the demo, controls, pictures to serve, and a closed loop of six days
	$(VENV)/bin/osmf demo --full

dev: $(HOME_FOLDER)/activate ## Dagster's pages at http://127.0.0.1:3000
	$(VENV)/bin/dagster dev --host 127.0.0.1

cluster: $(SETUP) ## a Spark master and two workers on this machine, until Ctrl-C (docs/cluster.md)
	@$(VENV)/bin/osmf cluster

test: $(SETUP) ## the quick tests (under 15 minutes)
	$(VENV)/bin/python -m pytest $(TEST_PROCESSES) -m "not slow and not torture"

test-slow: $(SETUP) ## the slow tests, and which of them took longest
	$(VENV)/bin/python -m pytest $(TEST_PROCESSES) --durations 25 -m "slow and not torture"

test-all: $(SETUP) ## the slow tests too
	$(VENV)/bin/python -m pytest $(TEST_PROCESSES) -m "not torture"

torture: $(SETUP) ## replays under other settings, kills, damage, days under the daemon, the tutorial (over an hour)
	$(VENV)/bin/python -m pytest -m torture

torture-training: $(SETUP) ## of these, training's: 24 campaigns of kills and damage, every byte of checkpoints
	$(VENV)/bin/python -m pytest -m torture -rP tests/models

lint: $(SETUP) ## format, lint, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

lock: $(SETUP) ## writes requirements.lock anew from pyproject.toml
	$(VENV)/bin/uv pip compile --quiet --python-version 3.11 --extra dev --extra postgres --generate-hashes --no-emit-index-url --no-annotate --no-header --output-file requirements.lock pyproject.toml
	grep -A 30 '^uv==' requirements.lock | awk 'NR == 1 || /^    --hash/ { print; next } { exit }' > requirements-bootstrap.lock

clean: ## removes what the demo wrote; .venv stays
	rm -rf .osmf
