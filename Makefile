# Each target does its own set-up, in .venv; Python 3.11 or later is all that must be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test other-python lint docs generate page mutants proof soak bench growth rapidfire wheel clean

help:
	@echo "make demo    train and evaluate for a minute: real processes, real kills (STORE=path or"
	@echo "             URL=postgresql://user@host/database, the password by PGPASSWORD or ~/.pgpass)"
	@echo "make test    all tests, with coverage"
	@echo "make lint    ruff, types, import rules"
	@echo "make docs    the docs as a site, with all links checked: .site/README.html"
	@echo "make generate"
	@echo "             write what is made from the code: the async stub, the reference, and a stored log"
	@echo "             of event types that are new (LOG=name, if this version has a log)"
	@echo "make page    bundle the page of refold ui from page/src (needs Node.js with npm)"
	@echo "make soak    the long tests, and new examples for all properties (SEED=n, TIMES=n as many,"
	@echo "             EXAMPLES=n of each at least)"
	@echo "make mutants faults put into commands/ and projections/ one by one: which do their own"
	@echo "             tests miss? (SAMPLE=300 for so many of them, SEED=7 for others)"
	@echo "make proof   search the models of the log's order on PostgreSQL and of lost answers, with spin"
	@echo "make bench   refold beside the bare engines and its peers: benchmark.json, benchmark.html"
	@echo "             (URL=postgresql://… for a given server)"
	@echo "make growth  refold on a log that grows to 10,000,000 events: growth.json, docs/images"
	@echo "make rapidfire"
	@echo "             RapidFire AI's own package on refold, in each version that is known, beside the"
	@echo "             same on its own databases"
	@echo "make wheel   build the wheel and run the quick start from it, in a clean environment"

# By way of the environment, so that no command line shows a password.
demo: export REFOLD_STORE = $(or $(value URL),$(value STORE))
# The first process that imports a module keeps its bytecode for those that follow.
demo: export PYTHONDONTWRITEBYTECODE =
demo: $(VENV)/demo $(if $(findstring ://,$(value URL)$(value STORE)),$(VENV)/postgres)
	$(BIN)/python -m examples.demo

test: $(VENV)/test
	$(BIN)/python -m pytest -m "not soak" --numprocesses auto --durations 20 --cov --cov-report=term --cov-report=xml:.coverage.xml
	$(BIN)/python -m coverage report --include='projections/*,commands/*' --fail-under=95

# What chance draws in `make soak`: how many times the examples of `make test`, how many at least,
# and from which seed.
soak: export REFOLD_SOAK := $(or $(TIMES),20)
soak: export REFOLD_EXAMPLES := $(or $(EXAMPLES),0)
soak: export REFOLD_SEED := $(or $(SEED),$(shell date +%s))
soak: $(VENV)/test
	@echo "soak with seed $$REFOLD_SEED: to repeat it," \
		"make soak SEED=$$REFOLD_SEED TIMES=$$REFOLD_SOAK EXAMPLES=$$REFOLD_EXAMPLES"
	$(BIN)/python -m pytest -m "soak or property or loop" --numprocesses auto --hypothesis-profile soak --hypothesis-seed $$REFOLD_SEED

mutants: $(VENV)/test
	$(BIN)/python tools/mutants.py $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

proof: $(VENV)/test
	$(BIN)/python tools/proof.py

bench: export REFOLD_STORE = $(value URL)
bench: $(VENV)/bench
	$(BIN)/python -m benchmarks --json benchmark.json --html benchmark.html

growth: $(VENV)/bench
	$(BIN)/python -m benchmarks.growth

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(VENV)/dev
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d .site.doctrees . .site

# The last one refuses to write over what is there.
generate: $(VENV)/test
	$(BIN)/python tools/async_stub.py
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/stored_logs.py $(LOG)

# Once, here: whoever uses refold gets the bundle.
page: page/node_modules
	cd page && npm run --silent build

page/node_modules: page/package-lock.json
	cd page && npm ci
	touch $@

# It needs Python 3.12, says its package; 3.11 does as well.
RAPIDFIRE_PYTHON = $(firstword $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null) $(PYTHON))
RAPIDFIRE := .venvs/rapidfire-0.16.1 .venvs/rapidfire-0.16.2

rapidfire: $(RAPIDFIRE)
	for venv in $(RAPIDFIRE); do $$venv/bin/python -m pytest tests/test_rapidfire.py tests/test_rapidfire_whole.py || exit 1; done

# Without what it needs for models and GPUs, which is stubbed.
.venvs/rapidfire-%: pyproject.toml
	$(RAPIDFIRE_PYTHON) -m venv $@
	$@/bin/python -m pip --quiet --disable-pip-version-check install 'pip>=25.1'
	$@/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[postgres]' --group other --group rapidfire
	$@/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --ignore-requires-python rapidfireai==$*
	touch $@

wheel: $(VENV)/dev
	rm -rf dist $(VENV)/clean
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist/direct .
	$(BIN)/python tools/check_distributions.py dist
	$(PYTHON) -m venv $(VENV)/clean
	$(VENV)/clean/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	mkdir $(VENV)/clean/project
	cd $(VENV)/clean/project && ../bin/python $(CURDIR)/tools/clashing_project.py
	cd $(VENV)/clean/project && ../bin/python $(CURDIR)/.ci/quickstart $(CURDIR)/README.md
	cd $(VENV)/clean/project && ../bin/refold status --store project.db

# Without torch and a server: what matters is the interpreter.
other-python: $(VENV)/other
	$(BIN)/python -m pytest -m "not soak" -k "not postgres" --numprocesses auto tests/test_store.py tests/test_views.py tests/test_effects.py tests/test_rf_db.py tests/test_faces.py tests/test_stored_logs.py

clean:
	rm -rf $(VENV) .venvs .site .site.doctrees dist build .coverage .coverage.* .pytest_cache .ruff_cache .import_linter_cache

# --- environments: a stamp for each group of packages, renewed when pyproject.toml changes ------

# What takes long says something every few seconds.
ALOUD := $(PYTHON) tools/aloud.py $(VENV)
PIP := $(ALOUD) $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "refold needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(ALOUD) $(PYTHON) -m venv $(VENV)

# Older ones know no groups.
$(VENV)/pip: | $(BIN)/python
	$(PIP) 'pip>=25.1'
	touch $@

# The demo imports a tenth of what it installs; to compile all of it takes longer than the demo.
$(VENV)/demo: OPTIONS := --no-compile
$(VENV)/demo: EXTRAS := [ui]
$(VENV)/other: EXTRAS := [arrow,postgres]
$(VENV)/test $(VENV)/bench $(VENV)/dev: EXTRAS := [all]

$(VENV)/demo $(VENV)/other $(VENV)/test $(VENV)/bench $(VENV)/dev: $(VENV)/%: pyproject.toml $(VENV)/pip
	$(PIP) $(OPTIONS) --editable '.$(EXTRAS)' --group $*
	touch $@

$(VENV)/postgres: pyproject.toml $(VENV)/pip
	$(PIP) --editable '.[postgres]'
	touch $@
