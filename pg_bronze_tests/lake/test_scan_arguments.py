"""Arguments of ``scan`` that are refused before a request is sent."""

from datetime import date, datetime

import pytest

import pg_bronze
from pg_bronze.errors import SettingsError


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"versions": "newest"}, "it must be"),
        ({"by": ["id"]}, 'by requires versions="latest"'),
        ({"versions": "latest", "by": "title"}, "by=['title']"),
        ({"days": date(2026, 1, 2)}, "a list of days"),
        ({"days": ["2026-01-02"]}, "a list of days"),
        ({"as_of": "2026-01-02"}, "as_of must be a day, such as date(2026, 1, 2)"),
        ({"as_of": datetime(2026, 1, 2)}, "as_of must be a day, such as date(2026, 1, 2)"),  # noqa: DTZ001  (refused, with a zone or without)
        ({"as_of": 1.5}, "as_of must be a day, such as date(2026, 1, 2)"),
    ],
)
def test_an_invalid_argument_is_refused_with_an_example(arguments, text):
    with pytest.raises(SettingsError) as caught:
        pg_bronze.scan("movie", **arguments)

    assert str(caught.value).startswith("scan: ")
    assert text in str(caught.value)
