"""Ticks: how often tables are checked for new rows, and how long a run may take."""

from pydantic import Field

from pg_bronze.settings.section import Section


class TickSettings(Section):
    """Intervals and limits of ticks and runs."""

    interval_s: float = Field(default=10.0, ge=2, le=86400, description="Seconds between two ticks, 2 to 86400.")
    runs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Most runs over which one tick spreads its due tables, 1 to 1000; each has at least 25 tables. "
        "Large first loads and slow tables have runs besides. Not set: the processors of the code server, at most 4. "
        "Set it if a run launcher starts runs on other machines.",
    )
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
    checks_at: str = Field(
        default="03:17",
        pattern=r"^(off|([01]\d|2[0-3]):[0-5]\d)$",
        description="Time of day, `HH:MM` in UTC, at which the check `reconcile` of all tables is executed; "
        "`off`: only when a person executes them.",
    )
    reconcile_mb: float = Field(
        default=256.0,
        gt=0,
        le=1_000_000,
        description="Megabytes of a table in the source, and of its objects, above which the check `reconcile` "
        "compares one part of its keys a day, of about this size.",
    )
    max_run_s: int = Field(
        default=3600,
        ge=60,
        le=604800,
        description="Maximum duration of a run started by the sensor in whole seconds, 60 to 604800. All other runs: "
        "`max_runtime_seconds` in `dagster.yaml`.",
    )

    @property
    def checks_cron(self) -> str | None:
        """The schedule of the standing checks in the form of cron; None for never."""
        if self.checks_at == "off":
            return None
        hour, minute = map(int, self.checks_at.split(":"))
        return f"{minute} {hour} * * *"
