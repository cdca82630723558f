"""Planted faults of pg_bronze.sync; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = ()
