"""What the process has loaded from which commands are forked, beside the modules of `pg-bronze` itself.

A command that copies loads it when it needs it, which took half of its time. Polars starts threads that a fork does
not have: they clean up, and a command is too short to need that.
"""

import gc
import importlib

from pg_bronze.lake import s3_client
from pg_bronze_tests.harness import migration_scripts

OF_A_COPY = (
    *("polars", "pyarrow", "connectorx", "upath.implementations.local"),
    *("pg_bronze.cli.batch", "pg_bronze.cli.runs", "pg_bronze.cli.instance", "pg_bronze.cli.progress_bars"),
    *("pg_bronze.cli.kept_memory", "pg_bronze.defs.build", "pg_bronze.defs.compute_logs"),
    *("pg_bronze.defs.run_coordinator", "pg_bronze.settings.project"),
)

for name in OF_A_COPY:
    importlib.import_module(name)
s3_client.connect("http://127.0.0.1:1", "us-east-1", "key", "secret")  # reads botocore's description of S3
migration_scripts.preload()
# A collection in a fork would copy the memory of all that is loaded.
gc.collect()
gc.freeze()
