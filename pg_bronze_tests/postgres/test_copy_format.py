"""Bytes of a binary COPY, written by hand, are decoded into columns or raise an error."""

import struct

import polars as pl
import pytest

from pg_bronze.errors import DataError, SourceUnavailable, TableChanged
from pg_bronze.postgres.readers.copy_format import SIGNATURE, TRAILER, Decoder

BYTEA, INT4, TEXT, DATE, TIMESTAMP, UUID = 17, 23, 25, 1082, 1114, 2950
HEADER = SIGNATURE + bytes(8)


def row(*fields: bytes | None) -> bytes:
    packed = [struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field for field in fields]
    return struct.pack(">h", len(fields)) + b"".join(packed)


def decode(*messages: bytes, types: tuple[int, ...] = (TEXT,)) -> pl.DataFrame:
    decoder = Decoder([(f"c{number}", oid) for number, oid in enumerate(types)])
    frame = decoder.rows(messages)
    assert decoder.complete
    return frame


def test_null_and_an_empty_value_stay_different():
    frame = decode(HEADER + row(b"", None), row(None, b"a"), TRAILER, types=(TEXT, BYTEA))

    assert frame.rows() == [("", None), (None, b"a")]


@pytest.mark.parametrize("messages", [(HEADER + TRAILER,), (HEADER, TRAILER)])
def test_an_empty_copy_has_the_types(messages):
    frame = decode(*messages, types=(TEXT, INT4, UUID, DATE, TIMESTAMP))

    assert frame.height == 0
    assert frame.dtypes == [pl.String(), pl.Int32(), pl.String(), pl.Date(), pl.Datetime("us")]


def test_a_stream_without_its_trailer_is_not_complete():
    """Otherwise some of the rows would be committed as all of them."""
    decoder = Decoder([("a", TEXT)])

    assert decoder.rows([HEADER + row(b"a"), row(b"b")]).height == 2
    assert not decoder.complete
    assert decoder.rows([row(b"c"), TRAILER]).height == 1
    assert decoder.complete


@pytest.mark.parametrize(
    "messages, types",
    [
        ((b"not a header" + row(b"a"), TRAILER), (TEXT,)),
        ((HEADER[:-5], TRAILER), (TEXT,)),
        ((SIGNATURE + b"\0\1\0\0" + bytes(4) + row(b"a"), TRAILER), (TEXT,)),  # rows with oids, of old servers
        ((HEADER + row(b"a", b"b"), TRAILER), (TEXT,)),
        ((HEADER + row(b"a"), TRAILER), (TEXT, TEXT)),
        ((HEADER + row(b"a") + row(b"b"), TRAILER), (TEXT,)),
        ((HEADER + row(b"abcd")[:-1], TRAILER), (TEXT,)),
        ((HEADER + row(b"abc"), TRAILER), (INT4,)),
        ((HEADER + row(b"abcde"), TRAILER), (INT4,)),
        ((HEADER + row(b"abcde"), TRAILER), (UUID,)),
        ((HEADER + row(b"a"), b"\0"), (TEXT,)),
    ],
    ids=["header", "short header", "flags", "more", "fewer", "two", "cut", "short", "long", "uuid", "a piece"],
)
def test_messages_other_than_one_whole_row_each_are_rejected(messages, types):
    """A pooler or a proxy that repacks messages must not shift values between columns."""
    with pytest.raises(SourceUnavailable, match="not in COPY's binary format"):
        Decoder([(f"c{number}", oid) for number, oid in enumerate(types)]).rows(messages)


def test_a_type_that_was_not_requested_is_rejected():
    with pytest.raises(TableChanged, match="'a'"):
        Decoder([("a", 1186)])


def test_text_that_is_not_utf8_is_rejected_and_not_quoted():
    with pytest.raises(DataError, match="'c0'") as error:
        decode(HEADER + row(b"secret \xff"), TRAILER)

    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_infinity_is_the_end_of_the_calendar_and_later_values_are_rejected():
    def dates(*days: int) -> list[int]:
        fields = [row(struct.pack(">i", day)) for day in days]
        return decode(HEADER + fields[0], *fields[1:], TRAILER, types=(DATE,))["c0"].to_physical().to_list()

    assert dates(2**31 - 1, -(2**31), 0) == [95026236, -96465292, 10957]
    assert dates(95026236 - 10957) == [95026236]
    with pytest.raises(TableChanged, match="'c0' was altered"):
        dates(95026236 - 10957 + 1)
    with pytest.raises(TableChanged, match="'c0' was altered"):
        decode(HEADER + row(struct.pack(">q", 2**63 - 2)), TRAILER, types=(TIMESTAMP,))
