"""Process options, each in a process of its own."""

import os
import subprocess
import sys

import pytest

POLARS_DEFAULT = "dirty_decay_ms:500,muzzy_decay_ms:1000"
RETURN_AT_ONCE = "dirty_decay_ms:0,muzzy_decay_ms:0"


def run(code, **variables):
    """Run the code in a new process and return what it prints."""
    environ = {name: value for name, value in os.environ.items() if name != "_RJEM_MALLOC_CONF"} | variables
    done = subprocess.run(
        [sys.executable, "-c", f"import gc, os, sys\n{code}"], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_the_module_changes_nothing():
    code = (
        "before = dict(os.environ)\n"
        "from pg_bronze.settings import process\n"
        "print(os.environ == before, gc.get_freeze_count())"
    )

    assert run(code) == "True 0"


@pytest.mark.parametrize(
    "inherited, options",
    [
        ({}, RETURN_AT_ONCE),
        ({"_RJEM_MALLOC_CONF": POLARS_DEFAULT}, RETURN_AT_ONCE),
        ({"_RJEM_MALLOC_CONF": f"{POLARS_DEFAULT},{POLARS_DEFAULT}"}, RETURN_AT_ONCE),
        ({"_RJEM_MALLOC_CONF": "narenas:1"}, "narenas:1"),
    ],
    ids=["not set", "set by Polars in the parent process", "set in two parent processes", "chosen by the user"],
)
def test_the_allocator_options_are_set_unless_the_user_chose_others(inherited, options):
    code = (
        "from pg_bronze.settings.process import tune_process\n"
        "tune_process()\n"
        "print(os.environ['_RJEM_MALLOC_CONF'], 'polars' in sys.modules)"
    )

    assert run(code, **inherited) == f"{options} False"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_off_in_the_block_and_as_before_after_it(enabled):
    """A command that runs for months must collect garbage, also after an import failed."""
    code = (
        "from contextlib import suppress\n"
        "from pg_bronze.settings.process import without_collector\n"
        f"gc.{'enable' if enabled else 'disable'}()\n"
        "with suppress(ImportError), without_collector():\n"
        "    print(gc.isenabled(), end=' ')\n"
        "    raise ImportError\n"
        "print(gc.isenabled())"
    )

    assert run(code) == f"False {enabled}"


def test_objects_that_exist_are_excluded_from_garbage_collection():
    """Collecting the modules of Dagster again and again is a third of the CPU time of a run worker."""
    code = (
        "from pg_bronze.settings.process import tune_process\n"
        "objects = len(gc.get_objects())\n"
        "tune_process()\n"
        "print(gc.get_freeze_count() >= 0.9 * objects)"
    )

    assert run(code) == "True"


def test_what_is_created_after_the_first_call_is_collected_despite_a_second_one():
    """`pg-bronze run` kept the definitions of every batch in memory, 80 kB for each table."""
    code = (
        "from pg_bronze.settings.process import tune_process\n"
        "tune_process()\n"
        "frozen = gc.get_freeze_count()\n"
        "later = [[] for _ in range(1000)]\n"
        "tune_process()\n"
        "print(gc.get_freeze_count() == frozen)"
    )

    assert run(code) == "True"


def test_the_collections_at_exit_do_not_traverse_what_was_created_since():
    """Each of them takes 15 ms after a `pg-bronze tick` with 500 tables."""
    code = (
        "import atexit\n"
        "from pg_bronze.settings.process import tune_process\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > frozen + 900))\n"  # called after those registered later
        "tune_process()\n"
        "frozen = gc.get_freeze_count()\n"
        "later = [[] for _ in range(1000)]"
    )

    assert run(code) == "True"


@pytest.mark.skipif(not hasattr(os, "nice"), reason="the system has no niceness")
def test_only_a_worker_that_another_process_started_gets_a_low_priority():
    """The process of a command copies other tables after a first load."""
    code = (
        "import multiprocessing\n"
        "from pg_bronze.settings.process import lower_priority\n"
        "def worker():\n"
        "    before = os.nice(0)\n"
        "    lower_priority()\n"
        "    print(os.nice(0) > before or before >= 19, flush=True)\n"
        "before = os.nice(0)\n"
        "lower_priority()\n"
        "print(os.nice(0) == before, flush=True)\n"
        "child = multiprocessing.get_context('fork').Process(target=worker)\n"
        "child.start()\n"
        "child.join()"
    )

    assert run(code).split() == ["True", "True"]
