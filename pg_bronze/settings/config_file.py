"""The configuration file ``pg_bronze.toml``: options per table, and the problems in it.

It is read in every tick, so what was read last is kept until the file has another size or time of modification.
"""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pg_bronze.errors import SettingsError
from pg_bronze.settings.files import read_text
from pg_bronze.settings.near_names import nearest
from pg_bronze.settings.problems import reason, shown
from pg_bronze.settings.table_options import TableOptions
from pg_bronze.settings.text_formats import shell_patterns

NAME = "pg_bronze.toml"
_TABLES = "tables"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class ConfigFile:
    """The options by the name of a table, or by a pattern of names, and one sentence for each problem."""

    options: Mapping[str, TableOptions] = field(default_factory=lambda: MappingProxyType({}))
    problems: tuple[str, ...] = ()


_State = tuple[str, int, int, int]
_last: list[tuple[_State, ConfigFile]] = []


def read_config(file: Path, required: bool) -> ConfigFile:
    """Return the contents of the file; empty if there is none.

    Args:
        required: A missing file is a problem.
    """
    try:
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except OSError as error:
        return ConfigFile(problems=(f"{_setting(file, required)} cannot be read: {error.strerror}.",))
    if found is None and not required:
        return ConfigFile()
    if found is None or not stat.S_ISREG(found.st_mode):
        return ConfigFile(problems=(f"{_setting(file, required)}: there is no such file.",))
    name = f"{file} (PG_BRONZE_CONFIG)" if required else str(file)
    if not found.st_size:
        # An editor empties a file before it writes it, and without its masks values would be copied.
        return ConfigFile(problems=(f"{name} is empty. Write the options, or remove the file.",))
    state = (name, found.st_mtime_ns, found.st_size, found.st_ino)
    for known, config in _last:
        if known == state:
            return config
    config = _parsed(file, name)
    _last[:] = [(state, config)]
    return config


def _setting(file: Path, by_setting: bool) -> str:
    return f"PG_BRONZE_CONFIG{shown(file)}" if by_setting else str(file)


def _parsed(file: Path, name: str) -> ConfigFile:
    try:
        data = tomllib.loads(read_text(file, name) or "")
    except SettingsError as error:
        return ConfigFile(problems=(str(error),))
    except (ValueError, RecursionError) as error:
        found = "too many nested brackets" if isinstance(error, RecursionError) else str(error)
        return ConfigFile(problems=(f"{name} is not valid TOML: {found}.",))
    tables = data.get(_TABLES, {})
    problems = tuple(_unknown_keys(name, data))
    if not isinstance(tables, dict):
        return ConfigFile(
            problems=(*problems, f"{name}: {_TABLES} must contain a table for each name: [tables.movie].")
        )
    valid = options_of(name, tables)
    return ConfigFile(valid.options, (*problems, *valid.problems))


def options_of(place: str, tables: Mapping[str, Any]) -> ConfigFile:
    """Return the options by the name of a table or a pattern of names, and the problems in them.

    Args:
        place: Where the options are written, with which each problem begins.
        tables: The options, not validated.
    """
    options: dict[str, TableOptions] = {}
    problems: list[str] = []
    for label, section in tables.items():
        try:
            options[label] = TableOptions.model_validate(section)
        except ValidationError as error:
            problems += (_sentence(place, label, details) for details in error.errors())
        problems += (f"{place}, {_heading(label)}: {problem}." for problem in _problems_of(label, options.get(label)))
    return ConfigFile(MappingProxyType(options), tuple(problems))


def _unknown_keys(file: str, data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        if key == _TABLES:
            continue
        remedy = "The options of a table are below [tables.<name>]"
        if difflib.get_close_matches(key, [_TABLES], n=1):
            remedy = f"Did you mean {_TABLES}?"
        elif isinstance(value, dict):
            remedy = f"Did you mean {_heading(key)}?"
        elif similar := nearest(key, TableOptions.model_fields):
            remedy = f"Did you mean {similar}, below [tables.<name>]?"
        yield f"{file}: {key} is not a known key. {remedy if remedy.endswith('?') else remedy + '.'}"


def _problems_of(label: str, options: TableOptions | None) -> Iterator[str]:
    if label.startswith("public."):
        yield f"tables of the schema public are named without it: {label.removeprefix('public.')}"
    try:
        shell_patterns(label)
    except ValueError as error:
        yield str(error)
    if options and options.asset_key and any(character in label for character in "*?["):
        yield "asset_key is the key of one table. For a pattern of names, use key_prefix"


def _sentence(file: str, label: str, error: ErrorDetails) -> str:
    key = ".".join(_toml_key(str(part)) for part in error["loc"])
    where = f"{file}, {_heading(label)}" + (f": {key}" if key else "")
    found = reason(error, "a table with options")
    return f"{where}{shown(error['input'])}: {found}{'' if found.endswith('?') else '.'}"


def _heading(label: str) -> str:
    return f"[{_TABLES}.{_toml_key(label)}]"


def _toml_key(name: str) -> str:
    if _BARE_KEY.fullmatch(name):
        return name
    return f"'{name}'" if '"' in name else f'"{name}"'
