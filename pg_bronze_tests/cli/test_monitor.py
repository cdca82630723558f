"""The monitor: what it knows after evaluations that succeed and fail, what it logs, and what it sends."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pg_bronze.cli.monitor.alert_hook import AlertHook
from pg_bronze.cli.monitor.evaluation import Evaluated
from pg_bronze.cli.monitor.metrics import Metrics, Snapshot
from pg_bronze.cli.monitor.monitor import Monitor
from pg_bronze.cli.monitor.storage_meter import StorageMeter
from pg_bronze.errors import AccessDenied, SourceUnavailable
from pg_bronze.lake.storage_size import StorageSize
from pg_bronze.scheduling.alerts import Sent
from pg_bronze_tests.harness.monitoring import START, Clock, scrape, status, table


class Receiver:
    """A hook that keeps what it receives, and refuses it while ``problem`` is set."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.received: list[str] = []

    def send(self, message: Mapping[str, Any]) -> str | None:
        if self.problem is None:
            self.received.append(f"{message['event']} {message['kind']}")
        return self.problem


class Stage:
    """A monitor whose evaluations have the results of a test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.receiver = Receiver()
        self.result: Evaluated | Exception = Evaluated(status())
        self.monitor = Monitor(self._evaluate, Snapshot(30.0), "cine@db:5432", self.receiver, self.clock)

    def _evaluate(self) -> Evaluated:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def turn(self, result: Evaluated | Exception, after_s: float = 30.0) -> None:
        self.clock.now += after_s
        self.result = result
        self.monitor.turn()

    def lags(self) -> dict[str, float]:
        return {labels["table"]: value for labels, value in self.scrape()["pg_bronze_table_lag_seconds"]}

    def scrape(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        return scrape(self.monitor.snapshot, self.clock.now)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_lag_grows_in_an_outage_also_of_tables_that_cannot_be_checked(stage: Stage):
    """A constant lag of 0 during an outage would look as if nothing was missing."""
    stage.turn(Evaluated(status(table("movie"), table("person", "behind", 50.0), at=START + 30)))
    before = stage.lags(), stage.scrape()["pg_bronze_up"]
    stage.turn(SourceUnavailable("no answer"), after_s=600)
    during = stage.lags(), stage.scrape()["pg_bronze_up"]
    stage.turn(Evaluated(status(table("movie"), table("person"), at=START + 660)))
    after = stage.lags(), stage.scrape()["pg_bronze_up"]

    assert before == ({"movie": 0.0, "person": 50.0}, [({}, 1.0)])
    assert during == ({"movie": 600.0, "person": 650.0}, [({}, 0.0)])
    assert after == ({"movie": 0.0, "person": 0.0}, [({}, 1.0)])


def test_a_server_that_hangs_is_down_though_no_evaluation_failed(stage: Stage):
    stage.turn(Evaluated(status(table("movie"), at=START + 30)))

    stage.clock.now += 200

    assert stage.scrape()["pg_bronze_up"] == [({}, 0.0)]
    assert stage.lags() == {"movie": 200.0}


def test_an_outage_is_one_line_in_the_log_and_one_alert(stage: Stage, capsys: pytest.CaptureFixture[str]):
    stage.turn(Evaluated(status(table("movie"), at=START)))
    for number in range(10):
        stage.turn(SourceUnavailable(f"cine@db:5432 does not answer ({number} ms)"))
    stage.turn(Evaluated(status(table("movie"), at=stage.clock.now)))

    printed = capsys.readouterr()
    assert printed.err == (
        "pg-bronze: cine@db:5432: the check of all tables failed: cine@db:5432 does not answer (0 ms)\n"
    )
    assert printed.out == "cine@db:5432: all tables are checked again after 300 s.\n"
    assert stage.receiver.received == ["started unreachable", "recovered unreachable"]
    assert stage.scrape()["pg_bronze_evaluation_errors_total"] == [({"class": "SourceUnavailable"}, 10.0)]


def test_another_cause_of_the_same_outage_is_another_line(stage: Stage, capsys: pytest.CaptureFixture[str]):
    stage.turn(SourceUnavailable("no answer"))
    stage.turn(AccessDenied("wrong password"))

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_an_error_of_a_library_is_reported_without_its_text(stage: Stage, capsys: pytest.CaptureFixture[str]):
    """SQLAlchemy quotes the URL of Dagster's storage, with the password."""
    stage.turn(RuntimeError("postgresql://dagster:s3cret@db/dagster"))

    assert "RuntimeError" in (printed := capsys.readouterr().err)
    assert "s3cret" not in printed
    assert stage.scrape()["pg_bronze_evaluation_errors_total"] == [({"class": "other"}, 1.0)]


def test_an_alert_that_is_refused_is_sent_later_and_its_refusal_logged_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
):
    stuck = Evaluated(status(table("movie", "stuck", error="no right")))
    stage.receiver.problem = "HTTP status 503"
    for _ in range(3):
        stage.turn(stuck)
    refused = capsys.readouterr()
    stage.receiver.problem = None
    stage.turn(stuck)
    stage.turn(stuck)

    assert refused.err.count("An alert could not be sent (HTTP status 503)") == 1
    assert refused.out == ""
    assert capsys.readouterr().out.count("movie: stuck") == 1
    assert stage.receiver.received == ["started stuck"]
    assert stage.scrape()["pg_bronze_alerts_total"] == [({"result": "sent"}, 1.0), ({"result": "failed"}, 3.0)]


def test_without_a_receiver_alerts_are_lines_in_the_log(capsys: pytest.CaptureFixture[str]):
    found = Evaluated(status(table("movie", "stuck", error="no right")))
    monitor = Monitor(lambda: found, Snapshot(30.0), "cine@db", None, Clock())

    monitor.turn()
    monitor.turn()

    assert capsys.readouterr().out.splitlines() == ["pg_bronze, cine@db: movie: stuck for 0 s. no right"]


def test_tables_that_are_dropped_leave_the_metrics(stage: Stage):
    """Their series would be exported forever."""
    stage.turn(Evaluated(status(table("movie"), table("person"))))
    stage.turn(Evaluated(status(table("movie"))))

    tables = {labels["table"] for samples in stage.scrape().values() for labels, _ in samples if "table" in labels}
    assert tables == {"movie"}


def test_any_table_name_is_a_valid_label(stage: Stage):
    name = 'a"b\\c\nd {x="1"} ñ'
    stage.turn(Evaluated(status(table(name))))

    assert stage.lags() == {name: 0.0}


class Shelf:
    """Where a monitor keeps what it sent, as text."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}

    def load(self) -> dict[str, Sent]:
        return dict(self.sent)

    def store(self, sent: Mapping[str, Sent]) -> None:
        self.sent = dict(sent)


def restarted(stage: Stage, shelf: Shelf) -> None:
    stage.monitor = Monitor(stage._evaluate, Snapshot(30.0), "cine@db:5432", stage.receiver, stage.clock, shelf)


def test_a_restart_repeats_no_alert_and_still_reports_what_is_over(stage: Stage):
    """Each deployment repeated the messages about all open causes."""
    shelf, stuck = Shelf(), Evaluated(status(table("movie", "stuck", error="no right")))
    restarted(stage, shelf)
    stage.turn(stuck)
    assert stage.receiver.received == ["started stuck"]

    restarted(stage, shelf)
    stage.turn(SourceUnavailable("no answer"))
    stage.turn(stuck)
    assert stage.receiver.received == ["started stuck"], "while nothing is known, nothing is over"

    restarted(stage, shelf)
    stage.turn(Evaluated(status(table("movie"))))
    assert stage.receiver.received == ["started stuck", "recovered stuck"]


def test_an_outage_that_continues_after_a_restart_is_the_same_outage(stage: Stage):
    shelf = Shelf()
    restarted(stage, shelf)
    for _ in range(6):
        stage.turn(SourceUnavailable("no answer"))
    restarted(stage, shelf)
    stage.turn(SourceUnavailable("no answer"))
    assert stage.receiver.received == ["started unreachable"]
    stage.turn(Evaluated(status(table("movie"))))
    assert stage.receiver.received == ["started unreachable", "recovered unreachable"]


# The receiver of alerts


@contextmanager
def receiver(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Start an HTTP server that answers each POST with a function; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/services/s3cret"
        server.shutdown()
        thread.join()


def test_an_alert_is_a_post_of_json():
    found: list[tuple[str, str, Any]] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        found.append((request.path, request.headers["Content-Type"], json.loads(body)))
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"ok")

    with receiver(answer) as url:
        assert AlertHook(url).send({"text": "película"}) is None

    assert found == [("/services/s3cret", "application/json", {"text": "película"})]


@pytest.mark.parametrize("status_code", [302, 404, 500])
def test_an_answer_that_is_no_success_is_a_problem_without_the_url(status_code: int):
    """Slack answers 404 for a webhook that was revoked. A redirect is not followed."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status_code)
        request.send_header("Location", "/services/s3cret/elsewhere")
        request.end_headers()

    with receiver(answer) as url:
        assert AlertHook(url).send({"text": "x"}) == f"HTTP status {status_code}"


def test_a_receiver_that_is_down_is_a_problem_without_the_url(caplog: pytest.LogCaptureFixture):
    with receiver(lambda _: None) as url:
        pass

    with caplog.at_level("INFO"):
        problem = AlertHook(url).send({"text": "x"})

    assert problem is not None
    assert "s3cret" not in problem + caplog.text


def test_a_receiver_that_never_answers_holds_up_an_evaluation_for_a_limited_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pg_bronze.cli.monitor.alert_hook.TIME_LIMIT_S", 0.1)
    ended = threading.Event()

    with receiver(lambda _: ended.wait() and None) as url:
        problem = AlertHook(url).send({"text": "x"})
        ended.set()

    assert problem == "ReadTimeoutError"


# The size of the bucket


class _Store:
    """A bucket of which each listing is counted, and takes some seconds of a test's clock."""

    prefix = "shop"

    def __init__(self, clock: Clock, duration_s: float) -> None:
        self._clock, self._duration_s = clock, duration_s
        self.listings = 0

    def list(self, prefix: str) -> Sequence[Any]:
        self.listings += 1
        self._clock.now += self._duration_s
        return []


@pytest.mark.parametrize("duration_s, pause_s", [(1.0, 3600.0), (120.0, 12_000.0)])
def test_a_bucket_is_listed_once_an_hour_and_at_most_a_hundredth_of_the_time(duration_s: float, pause_s: float):
    clock = Clock()
    store: Any = _Store(clock, duration_s)
    meter = StorageMeter(store, clock)

    def listings() -> int:
        meter.measure_if_due(["movie"])
        meter.wait()
        return store.listings

    assert listings() == 1
    assert meter.size == StorageSize({"movie": 0}, {"movie": 0})
    clock.now += pause_s - 1
    assert listings() == 1
    clock.now += 1
    assert listings() == 2


def test_a_scrape_during_an_evaluation_is_the_result_of_the_last_one():
    """The evaluation of a server that hangs would hold up the scrape, and Prometheus reports the wrong cause."""
    snapshot = Snapshot(30.0, status(table("movie")), up=True)
    registry = CollectorRegistry()
    registry.register(Metrics(lambda: snapshot, lambda: START))

    assert b'pg_bronze_table_lag_seconds{table="movie"} 0.0' in generate_latest(registry)
