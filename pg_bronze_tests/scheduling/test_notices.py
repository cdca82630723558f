"""Notices: a result is recorded when it changes, and a warning about drift again, so that the UI shows it."""

from pg_bronze.scheduling import notices
from pg_bronze.scheduling.notices import MOST, Notice, Result

NOW = 1_780_000_000.0
DRIFT = Notice("bronze/movie", "drift", "column 'x' was added", NOW + 3600)
SKIPPED = Notice("postgres/cine/vault", "skipped", "grant select on vault")


def recorded(item: Notice, passed: bool, at: float) -> dict[tuple[str, str], Result]:
    return {(item.asset, item.check): Result(passed, item.sentence, at)}


def test_drift_warns_for_its_time_and_then_passes_once() -> None:
    assert not DRIFT.passed(NOW)
    assert notices.due([DRIFT], {}, NOW) == [DRIFT]
    warned = recorded(DRIFT, False, NOW)
    assert notices.due([DRIFT], warned, NOW + 299) == []
    assert notices.due([DRIFT], warned, NOW + 300) == [DRIFT]
    assert DRIFT.passed(NOW + 3600)
    assert notices.due([DRIFT], warned, NOW + 3600) == [DRIFT]
    assert notices.due([DRIFT], recorded(DRIFT, True, NOW + 3600), NOW + 1e6) == []


def test_a_second_change_is_recorded_at_once() -> None:
    other = Notice(DRIFT.asset, "drift", "column 'y' was added", NOW + 3600)
    assert notices.due([other], recorded(DRIFT, False, NOW), NOW + 1) == [other]


def test_a_skipped_table_is_recorded_once_and_does_not_pass() -> None:
    """Events of each tick would fill Dagster's storage."""
    assert not SKIPPED.passed(NOW + 1e9)
    assert notices.due([SKIPPED], {}, NOW) == [SKIPPED]
    assert notices.due([SKIPPED], recorded(SKIPPED, False, NOW), NOW + 1e9) == []


def test_a_tick_records_a_bounded_number() -> None:
    many = [Notice(f"postgres/cine/t{number}", "skipped", "no right") for number in range(1000)]
    assert len(notices.due(many, {}, NOW)) == MOST
