"""Real servers for the tests: PostgreSQL, SeaweedFS and MinIO, started once a session on free ports.

A server that cannot be started is a failure, never a skip. ``--postgres=15 --s3=minio`` runs the same tests on another
pair of servers; those that ask for servers by name get these in any case.
"""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from pg_bronze_tests import planting
from pg_bronze_tests.harness import environment

environment.install()  # before the first thread
planting.install()  # before the product is imported
# After the first read from a bucket, two threads of Polars wake up a thousand times a second to adjust the rate of its
# requests. In each process of `make test` they took 3 % of a core until its end.
os.environ["POLARS_DISABLE_HTTP_RATE_LIMIT"] = "1"

from pg_bronze.demo.postgres import PostgresServer  # noqa: E402
from pg_bronze.demo.s3_server import S3Server  # noqa: E402
from pg_bronze_tests.harness import bucket_pool, shared_servers  # noqa: E402
from pg_bronze_tests.harness.repetitions import also  # noqa: E402
from pg_bronze_tests.harness.servers import (  # noqa: E402
    Bucket,
    Database,
    fresh_database,
    older_servers,
    start_postgres,
    until_killed,
)

# The same examples every time, however busy the machine is: a failure repeats. `--hypothesis-profile=explore` looks for
# new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=1000, stateful_step_count=40)
hypothesis.settings.load_profile("repeatable")

# A shell starts what it puts in the background with SIGINT ignored, and then no test could interrupt anything.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules of one to two minutes, and folders in the order in which their modules are started.
LONG_MODULES = [
    "test_dev.py",
    "test_machines.py",
    "test_reload.py",
    "test_browser.py",
    "test_recovery.py",
    "test_s3_faults.py",
]
FOLDERS = ["sync", "e2e", "defs", "postgres", "demo", "lake", "cli"]
# Modules for one process: those with many `pg-bronze` commands, and those that build and install the wheel.
TOGETHER = [
    ("e2e/test_browser.py", "e2e/test_wheel.py"),
    ("e2e/test_commands.py", "e2e/test_quiet_tick.py", "e2e/test_cancel.py", "e2e/test_monitor.py"),
    ("e2e/test_bad_input.py", "e2e/test_secrets.py", "e2e/test_connection_limit.py", "e2e/test_kill_anywhere.py"),
]


SHARED = pytest.StashKey[shared_servers.SharedServers]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("servers", "the servers that tests run on")
    group.addoption(
        "--postgres", choices=["18", *older_servers()], default="18", help="version of PostgreSQL (default: 18)"
    )
    group.addoption("--repetitions", action="store_true", help="run what `make test` leaves out as well")
    group.addoption("--s3", choices=["seaweed", "minio"], default="seaweed", help="S3 server (default: seaweed)")


@pytest.fixture(autouse=True, scope="session")
def _no_ambient_settings() -> Iterator[None]:
    """Nothing of the caller's environment may make a test pass or fail."""
    ambient = [name for name in os.environ if name.startswith(("PG", "MINIO_", "MC_", "AWS_", "DAGSTER_"))]
    kept = {
        name: os.environ.pop(name)
        for name in ambient
        if not name.startswith(("PG_BRONZE_TEST_", "PG_BRONZE_PG_BINDIR"))
    }
    yield
    os.environ.update(kept)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three processes more than there are cores: tests wait for timers and answers half of their time."""
    return (os.cpu_count() or 1) + 3


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Name the folder of the servers that all processes share."""
    if SHARED not in node.config.stash:
        folder = Path(tempfile.mkdtemp(prefix="pg_bronze-servers-"))
        node.config.stash[SHARED] = shared_servers.SharedServers(folder)
    node.workerinput["shared_servers"] = str(node.config.stash[SHARED].folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Start the servers before the first test, if any test needs them."""
    folders = {Path(name.partition("::")[0]).parent.name for name in ids}
    if folders & set(FOLDERS):
        with_minio = "lake" in folders or node.config.getoption("s3") == "minio"
        node.config.stash[SHARED].start(["seaweed", *["minio"] * with_minio])


def pytest_unconfigure(config: pytest.Config) -> None:
    if servers := config.stash.get(SHARED, None):
        servers.kill()
        shutil.rmtree(servers.folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process run all modules of a line of TOGETHER, because what they share takes seconds to make."""
    from xdist.scheduler import LoadFileScheduling

    class ByModule(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = super()._split_scope(nodeid)
            return next((names[0] for names in TOGETHER if module.endswith(names)), module)

    return ByModule(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the modules that take minutes, and leave out repetitions: a module is run by one process."""
    items.sort(key=_place)
    if not config.getoption("repetitions"):
        left_out = [item for item in items if item.get_closest_marker("repetition")]
        items[:] = [item for item in items if not item.get_closest_marker("repetition")]
        config.hook.pytest_deselected(items=left_out)


def _place(item: pytest.Item) -> int:
    """Return the place of a test among all: long modules, then the other folders, those without servers last."""
    if item.path.name in LONG_MODULES:
        return LONG_MODULES.index(item.path.name)
    folder = item.path.parent.name
    return len(LONG_MODULES) + (FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS))


# It finds next to no garbage while modules are imported, and takes a quarter of the time of the collection of tests.
gc.disable()


def pytest_collection_finish() -> None:
    """Keep the garbage collector from all that is loaded by now; it would go through it in every test.

    With its usual thresholds it takes a tenth of the time of a test of Dagster.
    """
    gc.enable()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests have counted (``record_property("summary", …)``), also when they ran in other processes."""
    passed, failed = (terminalreporter.getreports(outcome) for outcome in ("passed", "failed"))
    said = sorted({text for report in (*passed, *failed) for name, text in report.user_properties if name == "summary"})
    if said:
        terminalreporter.section("counted")
        for line in said:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def bindir(pytestconfig: pytest.Config) -> Path | None:
    """The programs of ``--postgres``, for tests that start a server of their own; None are those of the wheel."""
    return older_servers().get(pytestconfig.getoption("postgres"))


@pytest.fixture(scope="session")
def postgres_server(bindir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with start_postgres(tmp_path_factory.mktemp("postgres"), bindir) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    with fresh_database(postgres_server) as found:
        yield found


# The newest and the oldest version, and with `--repetitions` those in between.
@pytest.fixture(scope="session", params=["18", *list(older_servers())[:1], *also(*list(older_servers())[1:])])
def any_postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """A server of each version in turn."""
    if request.param == request.config.getoption("postgres"):
        yield request.getfixturevalue("postgres_server")
        return
    with start_postgres(
        tmp_path_factory.mktemp(f"postgres{request.param}"), older_servers().get(request.param)
    ) as server:
        yield server


@pytest.fixture
def any_database(any_postgres_server: PostgresServer) -> Iterator[Database]:
    """A database on each version in turn; a module that wants all its tests there names it ``database``."""
    with fresh_database(any_postgres_server) as found:
        yield found


@pytest.fixture(scope="session")
def seaweed(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _shared_or_own(pytestconfig, tmp_path_factory, "seaweed") as server:
        yield server


@pytest.fixture(scope="session")
def minio(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _shared_or_own(pytestconfig, tmp_path_factory, "minio") as server:
        yield server


def _shared_or_own(
    config: pytest.Config, folders: pytest.TempPathFactory, name: str
) -> AbstractContextManager[S3Server]:
    shared = getattr(config, "workerinput", {}).get("shared_servers")
    server = shared_servers.attached(Path(shared), name) if shared else None
    return nullcontext(server) if server else until_killed(shared_servers.server_in(folders.mktemp("s3"), name))


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """The server of ``--s3``."""
    return request.getfixturevalue(request.config.getoption("s3"))


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[Bucket]:
    with bucket_pool.empty_bucket(s3_server) as found:
        yield found


@pytest.fixture(params=["seaweed", "minio"])
def any_bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket on each kind of server in turn."""
    with bucket_pool.empty_bucket(request.getfixturevalue(request.param)) as found:
        yield found
