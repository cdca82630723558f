"""`pg-bronze forget`: a person confirms that a table which was copied before is not copied any more."""

from datetime import UTC, datetime

from pg_bronze.cli.opened import opened
from pg_bronze.cli.terminal import terminal
from pg_bronze.core.table import shell_argument


def run_forget(label: str) -> None:
    """Stop showing a table as one that is not copied any more, and print what follows.

    Raises:
        SettingsError: It is no such table.
    """
    from pg_bronze.defs import catalog_state

    with opened() as of_project:
        state = catalog_state.read(of_project.settings, datetime.now(UTC), of_project.store)
        # A change of the last seconds may not be stored yet.
        catalog_state.store_in_bucket(of_project.settings, state, of_project.store)
        catalog_state.forget(of_project.settings, label)
    terminal.print(
        f"{label}: it does not count as missing any more. Its objects stay in the bucket, and "
        f"`pg-bronze scan {shell_argument(label)}` reads them. It is copied again as soon as it can be read."
    )
