"""What the process reads from which commands are forked, beside the modules of `pg-bronze`."""

from pg_bronze_tests.harness import migration_scripts

migration_scripts.preload()
