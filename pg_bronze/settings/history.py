"""History: how much of Dagster's storage is kept."""

from pydantic import Field

from pg_bronze.settings.section import Section


class HistorySettings(Section):
    """What the retention keeps of runs, their logs, and the events of assets."""

    retention: bool = Field(
        default=True, description="`false` removes nothing from Dagster's storage, which then grows without a limit."
    )
    keep_runs_h: float = Field(
        default=24.0, gt=0, le=87600, description="Hours after which successful runs are removed with their logs."
    )
    keep_runs: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="Number of successful runs that are kept, 1 to 100000. More recent ones are removed too, because "
        "each takes about 0.4 MB with ten tables.",
    )
    keep_failed_days: float = Field(
        default=30.0, gt=0, le=3650, description="Days after which failed and canceled runs are removed."
    )
