# make help        what there is
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that run tests; many tests start several more.
WORKERS ?= 2

.PHONY: help setup demo test lint types bench dashboards screenshots audit ci clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, train, calibrate, stream background then signal; see demo/report.png"
	@echo "make test    run the tests, two at a time (WORKERS=2); TEST=tests/unit/test_window.py for some"
	@echo "make setup   install into $(VENV)"
	@echo "make lint    ruff and the import contracts"
	@echo "make types   mypy, strict"
	@echo "make bench   speed, latency, honesty of the null, physics on the bundled events (after make demo)"
	@echo "make dashboards  write Grafana's JSON from deploy/grafana/*.py"
	@echo "make screenshots  draw the live page's pictures in docs/ from a real run"
	@echo "make audit   ask PyPI for known vulnerabilities of what is installed"
	@echo "make ci      lint, types, test, demo"
	@echo "make clean   remove $(VENV), demo/ and caches"

setup: $(STAMP)

# torch first and pinned: a later install must not replace it by another build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nplm-stream needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/stream-demo $(DEMO)

test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(TEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/bench-throughput nplm
	$(BIN)/bench-throughput embed
	$(BIN)/bench-throughput stream --repeat 1
	$(BIN)/bench-latency
	$(BIN)/bench-alarms --months 1 --drifting 1 --windows 1000
	$(BIN)/bench-null --windows 200 --toys 500 --calibrations 8
	$(BIN)/bench-physics engines $(BENCH)

dashboards: setup
	$(BIN)/python -m deploy.grafana.generate

screenshots: setup
	$(BIN)/python -m tests.screenshots docs

# Not in ci: it needs pypi.org.
audit: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip-audit
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

ci: lint types test demo

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
