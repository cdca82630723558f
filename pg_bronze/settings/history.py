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
    keep_runs_mb: float = Field(
        default=10.0,
        gt=0,
        le=1_000_000,
        description="Megabytes for the logs of successful runs, and as many for failed ones. Beyond that, more recent "
        "ones are removed.",
    )
    keep_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="Days after which runs are removed that failed, were canceled, or were launched by a person.",
    )
