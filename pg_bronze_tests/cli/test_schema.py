"""The command `schema`."""

from typer.testing import CliRunner

from pg_bronze.cli.app import app
from pg_bronze.settings.docs import schema_text


def test_the_command_prints_the_schema_as_it_is_stored():
    assert CliRunner().invoke(app, ["schema"]).stdout == schema_text()
