"""Parts of asset keys, and the partitions of ingestion days.

A part of a key may contain letters, digits and single underscores between them. Other names are encoded.
"""

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import chain, zip_longest

import dagster as dg

_WORD = re.compile(r"[A-Za-z0-9]+")
_PLAIN = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_CODE = re.compile(r"0|([0-9A-F]{2})+")


def daily(first_day: date) -> dg.DailyPartitionsDefinition:
    """Return one partition for each ingestion day in UTC, from ``first_day`` through today."""
    return dg.DailyPartitionsDefinition(
        start_date=datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC), end_offset=1, timezone="UTC"
    )


@lru_cache(maxsize=20_000)  # each tick asks twice for each table
def encode(name: str) -> str:
    """Return a name as part of a key.

    The part consists of the letters and digits of the name, then ``x`` and the characters before, between and after
    them as UTF-8 in hexadecimal, 0 for none: ``año 2026`` is ``a_o_2026_x0_C3B1_20_0``. Double underscores are encoded
    too, because Dagster joins the parts of a key with them to name the op.
    """
    if _PLAIN.fullmatch(name) and decoded(name) is None:
        return name
    codes = [separator.encode().hex().upper() or "0" for separator in _WORD.split(name)]
    return "_".join([*_WORD.findall(name), f"x{codes[0]}", *codes[1:]])


def decoded(part: str) -> str | None:
    """Return the name that ``encode`` encoded as ``part``; None for a part that is the name itself."""
    tokens = part.split("_")
    count = len(tokens) // 2
    words, codes = tokens[:count], tokens[count:]
    if len(codes) != count + 1 or not codes[0].startswith("x"):
        return None
    codes[0] = codes[0][1:]
    if not all(_CODE.fullmatch(code) for code in codes):
        return None
    try:
        separators = ["" if code == "0" else bytes.fromhex(code).decode() for code in codes]
    except UnicodeDecodeError:
        return None
    return "".join(chain.from_iterable(zip_longest(separators, words, fillvalue="")))
