"""What the tests of deploy/ share: the programs that read its files, and the command lines in them."""

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from dagster._cli import cli as dagster_cli
from dagster._daemon.cli import cli as daemon_cli
from dagster_webserver.cli import dagster_webserver
from typer.main import get_command

from pg_bronze.cli.app import app

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
PROJECT_INSTANCE = yaml.safe_load((TOP / "dagster.yaml").read_text())
PROGRAMS = {
    "dagster": dagster_cli,
    "dagster-daemon": daemon_cli,
    "dagster-webserver": dagster_webserver,
    "pg-bronze": get_command(app),
}


def run(program: str, *arguments: str, **variables: str) -> str:
    """Run a program of requirements/deploy.txt or of Debian, which has to end with 0; return what it prints."""
    own = TOP / ".cache/deploy/bin" / program
    found = own if own.exists() else shutil.which(program)
    if found is None:
        # In continuous integration a skipped test is a failure.
        pytest.skip(f"{program} is not installed; .ci/deploy installs it, or Debian's package systemd has it")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    done = subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def parse(command: list[str]) -> None:
    """Let the program of a command read its arguments; raise an error if it does not accept them."""
    program = PROGRAMS[Path(command[0]).name]
    context = click.Context(program)
    # The one that exists: click looks for the file.
    arguments = [str(TOP / "workspace.yaml") if word.endswith("/workspace.yaml") else word for word in command[1:]]
    while isinstance(program, click.Group):
        _, program, arguments = program.resolve_command(context, arguments)
    program.make_context(program.name, list(arguments))
