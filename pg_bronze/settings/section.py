"""Sections: the base class of the groups of settings, and the names of their environment variables."""

from pydantic import BaseModel, ConfigDict

PREFIX = "PG_BRONZE_"


def variable(field: str) -> str:
    """Return the environment variable of a field: ``pg_db`` is ``PG_DB``, ``layout`` is ``PG_BRONZE_LAYOUT``."""
    return field.upper() if field.startswith(("pg_", "minio_")) else PREFIX + field.upper()


class Section(BaseModel):
    """A group of settings. Constructing one reads nothing but its arguments."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        populate_by_name=True,
        alias_generator=variable,
    )
