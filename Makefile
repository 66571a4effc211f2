# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What one needs every day. All else is a session of noxfile.py: `.venv/bin/nox -l` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help venv demo check test test-slow docs clean

PYTHON ?= python3
NOX := .venv/bin/nox --session
# Many a lab has a certificate authority of its own.
export UV_SYSTEM_CERTS ?= 1

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.stamp  ## the pinned tools in .venv, and .tree, where Ansible finds this folder as a collection
	@mkdir -p .tree/ansible_collections/connectomics
	@ln -sfn ../../.. .tree/ansible_collections/connectomics/cave

# uv is fast, pip knows every index that a lab's pip.conf names: the second does it where the first cannot.
.venv/.stamp: requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or later is needed: make venv PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo '$(PYTHON) cannot make virtual environments: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements/uv.txt
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements/dev.txt \
	  || .venv/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: venv  ## provision, verify and rescue three pretend workstations here
	@$(NOX) demo

check: venv  ## before a commit: style, types, functions alone
	@$(NOX) check

test: venv  ## all that needs no root and no containers
	@$(NOX) test

test-slow: venv  ## the rest: real hosts, containers, attacks, the tarball (needs root, and sh tests/packages.sh)
	@$(NOX) test-slow

docs: venv  ## the documentation site, in .cache/docs/html, and its examples run
	@$(NOX) docs

clean:  ## remove all that these targets made
	rm -rf .ansible .cache .coverage* .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache .tree .venv
	rm -rf changelogs/.plugin-cache.yaml connectomics-cave-*.tar.gz* tests/output
	rm -f tests/integration/inventory tests/integration/integration_config.yml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
