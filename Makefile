# Everything here is short for the commands in the comment above a target; `make help` lists the targets.
#
# Sentinel files in .venv say what is installed, so a second run goes straight to work. They are older than the lock
# files after a change there, and then only the difference is installed.

.POSIX:
.SUFFIXES:
# A Python without bytecode starts three times slower, and Dagster starts one for every run.
unexport PYTHONDONTWRITEBYTECODE
# A virtual environment that is active, or a project of another tool, must not draw the installation to itself.
unexport VIRTUAL_ENV
unexport PYTHONHOME
unexport PYTHONPATH

PYTHON = python3
ARGS =
BIN = .venv/bin
UNIT = pg_bronze_tests/core pg_bronze_tests/scheduling pg_bronze_tests/settings pg_bronze_tests/house

.PHONY: help install demo test test-unit mutants proof planted lint format lock minio postgres clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

# python3 -m venv .venv
# .venv/bin/python -m pip install --require-hashes -r requirements/demo.txt
# .venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
install: .venv/.demo ## create .venv with the commands pg-bronze and dagster

# .venv/bin/pg-bronze demo
demo: .venv/.demo ## PostgreSQL, an S3 server, sample data and Dagster, all in .pg_bronze
	@exec $(BIN)/pg-bronze demo $(ARGS)

# .venv/bin/python -m pip install --require-hashes -r requirements/dev.txt
# .ci/minio
# .ci/postgres
# .venv/bin/python -m pytest -n auto --dist worksteal
test: .venv/.dev minio postgres ## the whole suite, on real servers, a process for each core and one more
	@exec $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# .venv/bin/python -m pytest -n 2 pg_bronze_tests/core pg_bronze_tests/scheduling pg_bronze_tests/settings pg_bronze_tests/house
test-unit: .venv/.dev ## the part of the suite that needs no server, in seconds
	@exec $(BIN)/python -m pytest -n 2 $(UNIT) $(ARGS)

# PYTHONPATH=$PWD/.cache/mutants .venv/bin/python -m mutmut run
# PYTHONPATH=$PWD/.cache/mutants .venv/bin/python -m mutmut results
mutants: .venv/.dev .cache/mutants/installed ## mutation tests of the pure core; lists the mutants that no test detects
	@PYTHONPATH=$$PWD/.cache/mutants $(BIN)/python -m mutmut run $(ARGS)
	@PYTHONPATH=$$PWD/.cache/mutants $(BIN)/python -m mutmut results | sed '/: not checked$$/d'

proof: .venv/.dev minio postgres .cache/dlt/installed ## races, chaos, other servers and planted faults, at most an hour, into docs/proof.md
