# Mailstead: `make up` runs it, `make test` tests it; both install into .venv what is missing.
# PYTHON chooses the interpreter (3.11 to 3.13), PYTEST adds arguments: make test PYTEST="-k move -x"

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?=
# Two workers on two cores, a file to a worker: expensive fixtures are made once; a database and a Valkey per worker.
WORKERS ?= 2
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help up test soak check format bench fuzz lock clean

help:
	@echo "make up      run Mailstead here, in the foreground (Ctrl-C stops it)"
	@echo "make test    run the whole test suite"
	@echo "make check   lint, format, types, import contracts, templates, migrations"
	@echo "make format  let the linter put the code in order"
	@echo "make soak    the long tests: thousands of messages while everything is killed, about half an hour"
	@echo "make bench   measure, beside Postfix and Dovecot when they are installed"
	@echo "make fuzz    look for input that breaks a parser, SECONDS=60 for each of them"
	@echo "make lock    resolve the dependencies of pyproject.toml anew"
	@echo "make clean   remove .venv and caches (never the data directory)"

up: $(VENV)/.installed
	@exec $(BIN)/python manage.py up

test: $(VENV)/.installed-dev
	@.ci/programs
	@$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(PYTEST)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/djlint --quiet --lint templates
	MAILSTEAD_SECRET_KEY=check $(BIN)/mypy
	MAILSTEAD_SECRET_KEY=check $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m soak -s $(PYTEST)

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.bench

fuzz: $(VENV)/.installed-fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(FUZZ)

lock: $(VENV)/.installed-dev
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" --group dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" --group pyproject.toml:fuzz -o requirements-fuzz.lock

clean:
	rm -rf $(VENV) .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps keep the second start instant: pip is asked only when the lock has changed.
$(VENV)/.installed: requirements.lock | $(BIN)/python
	@echo "installing what Mailstead needs into $(VENV), about half a minute …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock | $(BIN)/python
	@echo "installing what Mailstead and its tests need into $(VENV), about a minute …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-fuzz: requirements-fuzz.lock $(VENV)/.installed-dev
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@touch $@

$(BIN)/python:
	@set -e; chosen=; \
	for each in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	    if $$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then chosen=$$each; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "Mailstead needs Python 3.11, 3.12 or 3.13; this is $$(python3 --version 2>&1 || echo 'a machine without python3')." >&2; \
	    echo "On Debian 12: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3.12 up" >&2; exit 1; \
	fi; \
	if ! $$chosen -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$chosen lacks its venv module. On Debian: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	$$chosen -m venv --clear $(VENV)
