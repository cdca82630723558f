"""Alerts: one message for each cause, growing pauses while it lasts, one message when it is over."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling import alerts
from pg_bronze.scheduling.alerts import Alert, Cause, Sent
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.health import Severity, State, TableHealth

START = 1_800_000_000.0
HOUR = 3600.0


def table(label: str, state: State = "up_to_date", lag_s: float = 0.0, error: str = "", since: float = START):
    severity: Severity = "ok" if state == "up_to_date" else "error"
    failure = Failure(error, "after_fix", 4, since, since) if error else None
    return TableHealth(label, state, severity, error or state, START, START - lag_s, None, failure)


def evaluate(sent: Mapping[str, Sent], found: Sequence[Cause], now: float) -> tuple[dict[str, Sent], list[str]]:
    """Send what is due at this moment; return what was sent so far and the events of now."""
    due = alerts.due(sent, found, now)
    for alert in due:
        sent = alerts.after(sent, alert, now)
    return dict(sent), [f"{alert.event} {alert.cause.kind}" for alert in due]


def story(found: Sequence[tuple[float, Sequence[Cause]]]) -> list[tuple[float, list[str]]]:
    """Return the events of each moment at which there are any."""
    sent: dict[str, Sent] = {}
    told = []
    for now, causes in found:
        sent, events = evaluate(sent, causes, now)
        if events:
            told.append((now, events))
    return told


STUCK = Cause("stuck: no right", "stuck", "no right. Grant it.", 0.0, ("movie",))


def test_a_cause_is_reported_once_then_after_growing_pauses_and_once_when_it_is_over():
    lasting = [(minute * 60.0, [STUCK]) for minute in range(72 * 60)]

    told = story([*lasting, (72 * HOUR, []), (72 * HOUR + 30, [])])

    assert [(now / HOUR, events) for now, events in told] == [
        (0, ["started stuck"]),
        (1, ["continues stuck"]),
        (5, ["continues stuck"]),
        (29, ["continues stuck"]),
        (53, ["continues stuck"]),
        (72, ["recovered stuck"]),
    ]


def test_a_cause_that_comes_and_goes_is_not_reported_each_time():
    """A lag around its target would send two messages a minute."""
    told = story([(minute * 60.0, [STUCK] if minute % 2 == 0 else []) for minute in range(40)])

    assert told == [
        (0.0, ["started stuck"]),
        (60.0, ["recovered stuck"]),
        (960.0, ["started stuck"]),
        (1020.0, ["recovered stuck"]),
        (1920.0, ["started stuck"]),
        (1980.0, ["recovered stuck"]),
    ]


def test_a_cause_that_spreads_to_more_tables_is_reported_before_the_next_reminder():
    wider = replace(STUCK, tables=("movie", "person"))

    assert story([(0.0, [STUCK]), (60.0, [wider]), (900.0, [wider]), (1860.0, [wider])]) == [
        (0.0, ["started stuck"]),
        (900.0, ["continues stuck"]),
    ]


def test_what_could_not_be_sent_is_due_at_the_next_evaluation():
    sent: dict[str, Sent] = {}

    first = alerts.due(sent, [STUCK], 0.0)  # and not passed to ``after``
    second = alerts.due(sent, [STUCK], 30.0)
    sent = alerts.after(sent, second[0], 30.0)

    assert first == second == [Alert("started", STUCK)]
    assert alerts.due(sent, [], 60.0) == alerts.due(sent, [], 90.0) == [Alert("recovered", STUCK)]


def test_many_causes_at_once_are_spread_over_several_evaluations():
    found = [replace(STUCK, key=str(number)) for number in range(25)]
    sent, counts = {}, []

    for turn in range(4):
        sent, events = evaluate(sent, found, turn * 30.0)
        counts.append(len(events))

    assert counts == [10, 10, 5, 0]


def test_tables_with_the_same_error_are_one_cause():
    """300 tables of a revoked role would otherwise be 300 messages. Numbers and the name differ in each."""
    tables = [
        table(f"t{number}", "stuck", error=f"t{number}: no right. grant select on public.t{number}, try {number}")
        for number in range(300)
    ]
    other = table("sales.person", "stuck", error="person is corrupted", since=START - 60)

    found = alerts.causes([*tables, other], START)

    assert [(len(cause.tables), cause.kind, cause.since) for cause in found] == [
        (300, "stuck", START),
        (1, "stuck", START - 60),
    ]


def test_the_same_error_at_another_time_is_the_same_cause():
    now, later = (
        alerts.causes([table("movie", "stuck", error=f"failed at {at}, 17 of 20 rows")], START)
        for at in ("10:11", "09:59")
    )

    assert now[0].key == later[0].key


def test_tables_behind_their_target_are_one_cause_and_others_are_none():
    tables = [
        table("movie", "behind", 61.0),
        table("person", "behind", 90.0),
        table("event", "loading", 9000.0),
        table("genre", "failing", 61.0, error="timeout"),
        table("log", "up_to_date", 61.0),
        table("sale", "sweep_overdue", 1.0),
    ]

    found = alerts.causes(tables, START)

    assert [(cause.kind, cause.since, cause.tables) for cause in found] == [
        ("behind", START - 90, ("movie", "person")),
        ("sweep_overdue", START - 1, ("sale",)),
    ]


def test_a_blocked_horizon_is_one_cause_after_two_minutes():
    tables = [table("movie", "blocked", 130.0), table("person", "blocked", 130.0), table("genre")]

    early = alerts.causes(tables, START, "blocked by session 7", 119.0)
    found = alerts.causes(tables, START, "blocked by session 7", 120.0)

    assert early == []
    assert found == [Cause("blocked", "blocked", "blocked by session 7", START - 120, ("movie", "person"))]


def test_an_outage_reports_nothing_as_recovered_that_was_not_checked():
    tables = [table("movie", "stuck", error="no right")]
    sent, _ = evaluate({}, alerts.causes(tables, START), START)
    told = []

    for waited_s in (30.0, 119.0, 120.0, 150.0):
        found = alerts.causes(tables, START + waited_s, unreachable="no answer", unreachable_since=START)
        sent, events = evaluate(sent, found, START + waited_s)
        told.append(events)
    sent, events = evaluate(sent, alerts.causes([table("movie")], START + 180), START + 180)

    assert told == [[], [], ["started unreachable"], []]
    assert sorted(events) == ["recovered stuck", "recovered unreachable"]


def test_what_is_over_is_forgotten():
    """The memory would grow with each new error text."""
    sent: dict[str, Sent] = {}
    for number in range(100):
        cause = replace(STUCK, key=str(number))
        sent, _ = evaluate(sent, [cause], number * HOUR)
        sent, _ = evaluate(sent, [], number * HOUR + 60)

    assert len(sent) == 1


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=30), st.integers(10, 4000))
def test_each_cause_begins_and_ends_in_turn(found: list[set[str]], step_s: int):
    """A recovery of something that nobody heard of, or a second beginning without an end, would confuse people."""
    sent: dict[str, Sent] = {}
    events: dict[str, list[str]] = {key: [] for key in "abc"}
    for turn, keys in enumerate(found):
        now = float(turn * step_s)
        for alert in alerts.due(sent, [replace(STUCK, key=key) for key in sorted(keys)], now):
            events[alert.cause.key].append(alert.event)
            sent = alerts.after(sent, alert, now)

    for told in events.values():
        changes = [event for event in told if event != "continues"]
        assert changes == (["started", "recovered"] * len(changes))[: len(changes)]
        assert told[:1] in ([], ["started"])


@pytest.mark.parametrize(
    "event, at, expected",
    [
        ("started", 90, "pg_bronze, cine@db:5432: movie: stuck for 90 s. no right. Grant it."),
        ("continues", 5 * HOUR, "pg_bronze, cine@db:5432: movie: still stuck after 5 h. no right. Grant it."),
        ("recovered", 600, "pg_bronze, cine@db:5432: movie: recovered after 10 min (stuck)"),
    ],
)
def test_the_text_names_source_tables_state_and_remedy(event: alerts.Event, at: float, expected: str):
    assert alerts.payload(Alert(event, STUCK), "cine@db:5432", at)["text"] == expected


def test_a_message_has_the_same_as_fields_and_at_most_a_hundred_tables():
    names = tuple(f"t{number:04}" for number in range(1000))
    cause = replace(STUCK, tables=names, since=START)

    sent = alerts.payload(Alert("started", cause), "cine@db:5432", START + 60)

    assert json.loads(json.dumps(sent)) == {
        "text": "pg_bronze, cine@db:5432: 1000 tables (t0000, t0001, t0002, …): stuck for 60 s. no right. Grant it.",
        "event": "started",
        "kind": "stuck",
        "severity": "error",
        "source": "cine@db:5432",
        "sentence": "no right. Grant it.",
        "tables": list(names[:100]),
        "table_count": 1000,
        "since": "2027-01-15T08:00:00Z",
        "at": "2027-01-15T08:01:00Z",
    }


def test_a_table_name_is_no_command_of_slack():
    """A table named ``<!channel>`` would notify everybody."""
    cause = replace(STUCK, tables=("<!channel>",))

    assert "<" not in alerts.payload(Alert("started", cause), "cine", 0.0)["text"]
