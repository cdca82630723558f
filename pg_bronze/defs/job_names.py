"""Job names: the jobs of this code location, for modules that look at runs without building a job."""

BRONZE = "bronze"
# Dagster's name of the job that materializes assets without a job of their own.
ASSETS = "__ASSET_JOB"
VERIFY = "bronze_verify"
NEW_TABLES = "bronze_new_tables"
CHECKS = "bronze_checks"
