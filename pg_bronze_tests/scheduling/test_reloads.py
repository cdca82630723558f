"""Reloads of the definitions that had no effect are repeated, less and less often."""

import pytest

from pg_bronze.scheduling.reloads import ReloadRequest


def test_the_first_reload_is_requested_at_once():
    assert ReloadRequest.from_cursor(None, "a").next_at == 0


def test_the_time_between_reloads_doubles_up_to_an_hour():
    request, waits, now = ReloadRequest("a"), [], 1000.0
    for _ in range(10):
        request = request.again(now)
        waits.append(request.next_at - now)
        now = request.next_at

    assert waits == [12, 24, 48, 96, 192, 384, 768, 1536, 3072, 3600]


def test_a_request_is_kept_in_the_cursor():
    request = ReloadRequest("a").again(1000.0).again(2000.0)

    assert ReloadRequest.from_cursor(request.to_cursor(), "a") == request


@pytest.mark.parametrize(
    "cursor", ["", "a", "1", "[]", "{}", '{"fingerprint": "a", "count": "x"}', ReloadRequest("b", 9, 1e12).to_cursor()]
)
def test_a_cursor_of_another_catalog_or_one_that_a_person_edited_delays_nothing(cursor: str):
    assert ReloadRequest.from_cursor(cursor, "a") == ReloadRequest("a")
