"""Text formats: values that settings and configuration files contain as text."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

_WORD_MAX = 1000
_DIGITS_MAX = 100  # Python refuses to convert more than 4,300, with a message about itself
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def comma_separated(value: object) -> object:
    """Split text at commas, without surrounding spaces, empty parts and repetitions; return any other value unchanged.

    Raises:
        ValueError: A part is longer than the name of any table. Comparing such a pattern could take minutes.
    """
    if not isinstance(value, str):
        return value
    words = dict.fromkeys(word for part in value.split(",") if (word := part.strip()))
    if any(len(word) > _WORD_MAX for word in words):
        raise ValueError(f"each name or pattern must have at most {_WORD_MAX} characters")
    return tuple(words)


def shell_patterns(value: object) -> object:
    """Split text at commas as ``comma_separated`` does.

    Raises:
        ValueError: A pattern matches no table of any name, or not what it seems to. fnmatch accepts every text.
    """
    patterns = comma_separated(value)
    for pattern in patterns if isinstance(patterns, tuple) else ():
        if problem := _pattern_problem(pattern):
            raise ValueError(f"the pattern {pattern!r} {problem}")
    return patterns


def _pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with the brackets of a pattern, as a predicate; None if nothing is."""
    rest = pattern
    while "[" in rest:
        # As fnmatch does: a ] at the beginning of a set is a member of it.
        members, bracket, rest = _set_of(rest.partition("[")[2])
        if not bracket:
            return "has a [ without a ]. Write [[] for the character ["
        if any(first > last for first, last in re.findall(r"(.)-(.)", members)):
            return f"has an empty range in [{members}]"
    return None


def _set_of(text: str) -> tuple[str, str, str]:
    """Divide the text after ``[`` at the ``]`` that ends the set: its members, the bracket if it is there, the rest."""
    start = 1 if text.startswith("!") else 0
    first = start + 1 if text[start : start + 1] == "]" else start
    end = text.find("]", first)
    return (text, "", "") if end < 0 else (text[start:end], "]", text[end + 1 :])


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError, also for a key that occurs twice in an object, and for a number too long."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if duplicates := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"the JSON object contains {', '.join(duplicates)} twice")
        return dict(pairs)

    def whole_number(digits: str) -> int:
        if len(digits) > _DIGITS_MAX:
            raise ValueError(f"it contains a number of {len(digits):,} digits; at most {_DIGITS_MAX} are allowed")
        return int(digits)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates, parse_int=whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error.msg}, at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("it is not valid JSON for this setting (too many nested brackets)") from None


def server_url(value: str) -> str:
    """Return the URL of an S3 server as ``scheme://host[:port]``. Raises ValueError that does not quote the value."""
    invalid = ValueError(
        "it must be http://host:port or https://host:port without path, user or query; set the bucket and the keys "
        "separately"
    )
    if "://" not in value:
        # MinIO accepts host:port as http. A bare host is rejected, so that a missing scheme never sends keys in clear.
        if not re.fullmatch(r".+:\d+", value):
            raise invalid
        value = f"http://{value}"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise invalid from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or re.search(r"\s", value):
        raise invalid
    if parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise invalid
    if not _is_host(parts.hostname):
        raise ValueError(
            "the host name must consist of letters, digits, hyphens and dots; S3 clients reject an underscore. Use the "
            "server's IP address, or another name, such as a network alias in docker compose"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_host(name: str) -> bool:
    """Return whether botocore accepts a host name: an IPv6 address, or labels of at most 63 characters."""
    if ":" in name:
        return "%" not in name
    return len(name) <= 255 and all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split("."))
