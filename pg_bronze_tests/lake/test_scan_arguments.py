"""Arguments of ``scan`` that are refused before a server is asked; what it reads is in servers/test_read.py."""

from datetime import date, datetime

import pytest

import pg_bronze
from pg_bronze.errors import SettingsError


@pytest.mark.parametrize(
    "given, said",
    [
        ({"versions": "newest"}, "it must be"),
        ({"by": ["id"]}, 'it needs versions="latest"'),
        ({"versions": "latest", "by": "title"}, "by=['title']"),
        ({"days": date(2026, 1, 2)}, "a list of days"),
        ({"days": ["2026-01-02"]}, "a list of days"),
        ({"as_of": "2026-01-02"}, "as_of is a day, such as date(2026, 1, 2)"),
        ({"as_of": datetime(2026, 1, 2)}, "as_of is a day, such as date(2026, 1, 2)"),  # noqa: DTZ001  (refused, with a zone or without)
        ({"as_of": 1.5}, "as_of is a day, such as date(2026, 1, 2)"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_with_what_can(given, said):
    with pytest.raises(SettingsError) as caught:
        pg_bronze.scan("movie", **given)

    assert str(caught.value).startswith("scan: ")
    assert said in str(caught.value)
