"""Passwords from a file and from a command: each connection has the current one, without a restart."""

import os
import secrets
import select
import shlex
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pg_bronze.defs import connections
from pg_bronze.errors import AccessDenied, SourceUnavailable
from pg_bronze.postgres import login, passwords
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.passwords import Password, read_command, read_file
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.connectorx import ConnectorxReader
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.servers import Database

PLANTED = "pl4nted"
# Each password is difficult to quote in a URL.
SPECIAL = "/%40@:?#'\\ü "
READERS = {"connectorx": ConnectorxReader, "copy": CopyReader}
BUCKET = {
    "MINIO_BUCKET": "bronze",
    "MINIO_ENDPOINT": "http://127.0.0.1:1",
    "MINIO_ACCESS_KEY": "a",
    "MINIO_SECRET_KEY": "b",
}


@dataclass
class Rotated:
    """A role whose password changes, and the file that contains the current one."""

    database: Database
    name: str
    file: Path

    def rotate(self, written: bool = True) -> None:
        password = secrets.token_hex(4) + SPECIAL
        literal = password.replace("'", "''")
        self.database.execute(f"set standard_conforming_strings = on; alter role {self.name} password '{literal}'")
        if written:
            self.file.write_text(password + "\n", encoding="utf-8")

    def source(self, how: str, reader: str) -> Source:
        variables = {
            "file": {"PG_PASS_SECRET_FILE": str(self.file)},
            "command": {"PG_PASS_COMMAND": f"cat {shlex.quote(str(self.file))}"},
            "setting": {"PG_PASS": self.file.read_text(encoding="utf-8").removesuffix("\n")},
        }[how]
        environ = {**self.database.environ, **BUCKET, "PG_USER": self.name, "PG_BRONZE_READER": reader}
        del environ["PG_PASS"]
        environ |= variables
        return connections.open_source(load_settings(environ, None), "pg_bronze test")


@pytest.fixture
def rotated(database: Database, tmp_path: Path) -> Iterator[Rotated]:
    name = f"rotated_{secrets.token_hex(3)}"
    database.execute(f"create role {name} login")
    made = Rotated(database, name, tmp_path / "the password")
    made.rotate()
    yield made
    database.execute(f"drop role {name}")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("how", ["file", "command"])
def test_a_rotated_password_is_used_by_the_next_connection(rotated, how, reader, monkeypatch):
    """Otherwise every table of a worker fails from the first rotation until its restart."""
    monkeypatch.setattr(passwords, "ACCEPTED_S", 0.0)  # as if the login before the rotation was some seconds ago
    with rotated.source(how, reader) as source:
        assert source.read("select 1 as one", "thing")["one"].to_list() == [1]
        assert isinstance(source.sessions.first.reader, READERS[reader])
        rotated.rotate()
        source.sessions.disconnect()

        assert source.read("select 2 as two", "thing")["two"].to_list() == [2]
        source.close()
        assert source.ask("select current_user::text") == [(rotated.name,)]
        assert source.limitation is None


@pytest.mark.parametrize("how, setting", [("file", "PG_PASS_SECRET_FILE"), ("command", "PG_PASS_COMMAND")])
def test_a_rejected_password_is_reported_with_the_setting_that_it_comes_from(rotated, how, setting):
    rotated.rotate(written=False)

    with rotated.source(how, "auto") as source, pytest.raises(AccessDenied) as caught:
        source.activity()

    assert str(caught.value).endswith(
        f"rejected the user name or password. Check PG_USER and {setting}. It is retried after the fix."
    )


def test_a_fixed_password_that_was_changed_on_the_server_is_not_tried_by_connectorx(rotated, monkeypatch, capfd):
    """It tries seven times within 30 s, for each table of the run, and servers lock a role after some failed logins."""
    monkeypatch.setattr(passwords, "ACCEPTED_S", 0.0)  # as if the last login was some seconds ago
    with rotated.source("setting", "connectorx") as source:
        assert source.read("select 1 as one", "thing")["one"].to_list() == [1]
        rotated.rotate()

        with pytest.raises(AccessDenied, match=r"^thing: .* rejected the user name or password. Check PG_USER and PG_"):
            source.read("select 2 as two", "thing")

    assert "r2d2" not in capfd.readouterr().err, "connectorx logs each failed login"


@pytest.mark.parametrize("how", ["command", "setting"])
def test_a_password_that_the_server_has_accepted_is_not_tried_before_every_slice(rotated, monkeypatch, how):
    """It would double the logins of a first load."""
    opened: list[str] = []
    original = login.connect
    monkeypatch.setattr(login, "connect", lambda *given: (opened.append("one"), original(*given))[1])
    with rotated.source(how, "connectorx") as source:
        for _ in range(3):
            source.read("select 1 as one", "thing")

    assert len(opened) == 1, "the kept connection"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def counted() -> Callable[[str], str]:
    values = iter(f"password {number}" for number in range(1, 100))
    return lambda name: next(values)


def test_the_output_of_a_command_is_kept_for_five_minutes():
    clock = Clock()
    password = Password("PG_PASS_COMMAND", counted(), passwords.KEPT_S, clock)

    first = password.current("here")
    clock.seconds += 299
    assert password.current("here") == first == "password 1"
    clock.seconds += 1
    assert password.current("here") == "password 2"


def test_a_rejected_password_is_replaced_at_once():
    """A token that was revoked would be used for minutes more."""
    password = Password("PG_PASS_COMMAND", counted(), passwords.KEPT_S, Clock())
    rejected = password.current("here")

    assert password.renewed(rejected, "here") == "password 2"
    assert password.current("here") == "password 2"
    assert password.renewed(rejected, "here") == "password 2", "another thread has replaced it"


def test_the_same_password_is_not_tried_twice():
    """Servers lock a role after some failed logins."""
    password = Password("PG_PASS_COMMAND", lambda name: "always", passwords.KEPT_S, Clock())

    assert password.renewed(password.current("here"), "here") is None


def test_a_password_counts_as_accepted_for_a_moment():
    """connectorx tries a rejected one for half a minute."""
    clock = Clock()
    password = Password("PG_PASS_COMMAND", counted(), passwords.KEPT_S, clock)

    password.accept("one")

    assert (password.is_accepted("one"), password.is_accepted("two")) == (True, False)
    clock.seconds += passwords.ACCEPTED_S
    assert not password.is_accepted("one")


COMMANDS = {
    "fails": (["sh", "-c", f"echo {PLANTED}; echo {PLANTED} >&2; exit 3"], SourceUnavailable, "failed with status 3."),
    "hangs": (["sh", "-c", f"echo {PLANTED}; sleep 100; true"], SourceUnavailable, "did not end within 0.1 s"),
    "absent": ([f"/no/such/{PLANTED}/program"], AccessDenied, r"\(program\) cannot be run \(No such file"),
    "prints nothing": (["true", PLANTED], AccessDenied, "must print one line"),
    "prints two lines": (["printf", f"{PLANTED}\\n{PLANTED}\\n"], AccessDenied, "must print one line"),
    "prints bytes": (["printf", f"{PLANTED}\\377\\n"], AccessDenied, "must print one line of UTF-8"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_without_a_password_is_explained_without_its_output(case):
    words, kind, sentence = COMMANDS[case]

    with pytest.raises(kind, match=sentence) as caught:
        read_command(words, "cine@db:5432", limit_s=0.1 if case == "hangs" else 30)

    assert str(caught.value).startswith("cine@db:5432: the command of PG_PASS_COMMAND (")
    assert str(caught.value).endswith(("It is retried at the next tick.", "It is retried after the fix."))
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


def test_what_a_command_has_started_ends_with_it(tmp_path):
    """A command that hangs would leave processes behind in every tick."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    words = ["sh", "-c", f"exec 3> {shlex.quote(str(tmp_path / 'pipe'))}; echo here >&3; sleep 100 & wait"]

    with pytest.raises(SourceUnavailable):
        read_command(words, "here", limit_s=0.3)

    assert os.read(pipe, 100) == b"here\n"
    assert select.select([pipe], [], [], 10)[0], "the pipe ends with the last process that has it"
    assert os.read(pipe, 100) == b""
    os.close(pipe)


def test_a_command_gets_no_shell_and_no_terminal():
    """A password prompt would hang, and a variable of the shell would be replaced."""
    assert read_command(["printf", "%s\\n", "$HOME *"], "here") == "$HOME *"
    assert read_command(["sh", "-c", "read line || echo no terminal"], "here") == "no terminal"


@pytest.mark.parametrize(
    "content, password",
    [(b"one", "one"), (b"one\n", "one"), (b"one\r\n", "one"), (b"\xef\xbb\xbfone", "one"), (b" one ", " one ")],
)
def test_the_only_line_of_a_file_is_the_password(tmp_path, content, password):
    (tmp_path / "password").write_bytes(content)

    assert read_file(tmp_path / "password", "here") == password


def test_a_file_is_read_for_every_connection(tmp_path):
    """A server may accept the old password for a while, and then lock the role that still uses it."""
    (tmp_path / "password").write_text("one")
    environ = {"PG_DB": "cine", **BUCKET, "PG_PASS_SECRET_FILE": str(tmp_path / "password")}
    password = passwords.of(load_settings(environ, None))
    assert password is not None
    assert password.current("here") == "one"

    (tmp_path / "password").write_text("two")

    assert password.current("here") == "two"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"one\n\n", b"o\0ne", b"\xff\xfe"])
def test_another_file_is_explained_without_its_content(tmp_path, content):
    """A file in the format of .pgpass, or a certificate, is easily mistaken for it."""
    (tmp_path / "password").write_bytes(content)

    with pytest.raises(AccessDenied, match=r"must contain one line of UTF-8, the password: .*/password"):
        read_file(tmp_path / "password", "here")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(AccessDenied) as caught:
        read_file(tmp_path / "absent", "cine@db:5432")

    assert str(caught.value) == (
        "cine@db:5432: the file of PG_PASS_SECRET_FILE cannot be read (No such file or directory): "
        f"{tmp_path / 'absent'}. Create it, or allow this user to read it. It is retried after the fix."
    )
