"""Ticks: how often tables are checked for new rows, and how long a run may take."""

from pydantic import Field

from pg_bronze.settings.section import Section


class TickSettings(Section):
    """Intervals and limits of ticks and runs."""

    interval_s: float = Field(default=10.0, ge=2, le=86400, description="Seconds between two ticks, 2 to 86400.")
    ungated_after_s: float = Field(
        default=900.0,
        ge=10,
        le=86400,
        description="Seconds after which a table is read even if it appears unchanged, 10 to 86400.",
    )
    lag_target_s: float = Field(
        default=100.0,
        ge=10,
        le=604800,
        description="Seconds of which the changes of a table may not be copied before its check `up_to_date` fails, "
        "10 to 604800. At least three times `PG_BRONZE_INTERVAL_S`.",
    )
    max_run_s: int = Field(
        default=3600,
        ge=60,
        le=604800,
        description="Maximum duration of a run started by the sensor in whole seconds, 60 to 604800. All other runs: "
        "`max_runtime_seconds` in `dagster.yaml`.",
    )
