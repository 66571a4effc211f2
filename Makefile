# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help packages venv tree lock demo bench test test-long torture molecule lint tables docs release fleet-up fleet-down clean

PYTHON ?= python3
BIN := .venv/bin
N ?= 3

# The checkout, importable as ansible_collections.connectomics.cave.
export PYTHONPATH := $(CURDIR)/.tree:$(CURDIR)/tests:$(CURDIR)/tests/support:$(CURDIR)/tests/slow:$(CURDIR)/extra
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.tree
# Many a lab has a certificate authority of its own.
export UV_SYSTEM_CERTS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages:  ## install the Debian packages of tests/packages.txt that are missing (needs root)
	@sh tests/packages.sh

venv: .venv/.stamp  ## the pinned development tools, in .venv

# uv is fast, pip knows every index that a lab's pip.conf names: the second does it where the first cannot.
.venv/.stamp: requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or later is needed: make venv PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo '$(PYTHON) cannot make virtual environments: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

tree:  ## link .tree/ansible_collections/connectomics/cave to this folder
	@mkdir -p .tree/ansible_collections/connectomics
	@ln -sfn ../../.. .tree/ansible_collections/connectomics/cave

lock: venv  ## lock requirements/dev.in anew (newest versions: UPGRADE=--upgrade)
	$(BIN)/python requirements/lock.py $(UPGRADE)

demo: venv tree  ## provision, verify and rescue three pretend workstations here
	@$(BIN)/python tests/demo.py

test: venv tree  ## all that this machine can run (some of it: STAGES="lint unit")
	@$(BIN)/python tests/run.py $(STAGES)

test-long: venv tree  ## what `make test` leaves out, as it is one more of many alike
	$(BIN)/pytest -m long tests/integration

torture: venv tree  ## every attack on what the collection promises, at full size (shorter: SCALE=0.1)
	@$(BIN)/python -m torture --scale $(or $(SCALE),1) $(ATTACKS)

coverage: venv tree  ## how much of plugins/ the unit and integration tests run, on the managed side as well
	@$(BIN)/python tests/run_coverage.py

matrix: venv tree  ## every ansible-core by every managed Python by every Debian (needs root; one: CORE=2.19)
	@$(BIN)/python tests/run_matrix.py $(if $(CORE),--core $(CORE))

molecule: venv tree  ## all scenarios in containers (needs root; one: SCENARIO=rotate)
	$(BIN)/python tests/run_molecule.py test $(if $(SCENARIO),--scenario-name $(SCENARIO),--all)

bench: venv tree  ## measure against what one would write instead (needs root; some: SERIES="rotation unchanged")
	@$(BIN)/python -m bench $(SERIES)

lint: venv tree  ## the linters alone
	@$(BIN)/python tests/run.py lint

tables: venv  ## the tables of variables in the READMEs, from the role's argument_specs
	@$(BIN)/python docs/role_tables.py

docs: venv tree  ## the documentation site, in .cache/docs/html
	@mkdir -p .cache/docs/rst && chmod go-w .cache/docs/rst
	@$(BIN)/antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --cleanup everything \
	  --dest-dir .cache/docs/rst connectomics.cave
	@$(BIN)/sphinx-build -q -W --keep-going -c docs -d .cache/docs/doctrees .cache/docs/rst .cache/docs/html
	@echo .cache/docs/html/index.html

release: venv tree  ## the tarball of the last commit, signed (GPG_KEY=name) and checked
	@$(BIN)/python tools/release.py $(if $(GPG_KEY),--key $(GPG_KEY))

fleet-up: venv tree  ## N real SSH hosts on this machine (needs root)
	$(BIN)/python tests/slow/fleet/fleet.py up --hosts $(N)

fleet-down: venv  ## take them down
	$(BIN)/python tests/slow/fleet/fleet.py down

clean:  ## remove all that these targets made
	rm -rf .ansible .cache .coverage* .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache .tree .venv
	rm -rf changelogs/.plugin-cache.yaml connectomics-cave-*.tar.gz* tests/output
	rm -f tests/integration/inventory tests/integration/integration_config.yml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
