"""Attributes: the settings of one source in a component, with their types and descriptions.

An attribute is named as its setting, in lower case and without ``PG_BRONZE_``. The environment and ``.env`` are not
read, so several sources of one project have nothing in common by accident.
"""

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pg_bronze.errors import SettingsError
from pg_bronze.settings.config_file import options_of
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze.settings.section import variable
from pg_bronze.settings.table_options import TableOptions

# Tables are an attribute of their own. The others belong to a process and not to a source.
_LEFT_OUT = {"tables", "config", "file_options", "log"}
# Messages name settings as variables.
_VARIABLE = re.compile(r"\b(PG|MINIO)_[A-Z_0-9]+\b")
_PLAIN = (bool, int, float)


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Attributes:
        name: Its name.
        type: Its type in YAML.
        description: In Markdown, with its default.
        secret: Its value must not be written in a file.
    """

    name: str
    type: Any
    description: str
    secret: bool = False


def of_source() -> Iterator[Attribute]:
    """Yield an attribute for each setting of a source."""
    for name, field in Settings.model_fields.items():
        if name not in _LEFT_OUT:
            default = field.get_default(call_default_factory=True)
            shown = f" Default: `{_text(default)}`." if isinstance(default, _PLAIN) else ""
            yield Attribute(name, _type(field), f"{field.description}{shown}", _is_secret(field))


def of_table() -> Iterator[Attribute]:
    """Yield an attribute for each option of a table."""
    for name, field in TableOptions.model_fields.items():
        yield Attribute(name, _type(field), field.description or "")


def load(place: str, values: Mapping[str, Any], tables: Mapping[str, Any], home: Mapping[str, str]) -> Settings:
    """Return the settings that attributes are.

    Args:
        place: Where the attributes are written, with which a problem of a table begins.
        values: The attributes; None is not set.
        tables: The options of tables, by name or pattern of names.
        home: The variables of the environment that name the folder of a person, for `mc` and credentials.

    Raises:
        SettingsError: One error that lists everything that is missing or invalid.
    """
    texts = {variable(name): _text(value) for name, value in values.items() if value is not None}
    options = {label: _option_texts(options) for label, options in tables.items()}
    try:
        return load_settings({**home, **texts}, env_file=None, config=options_of(place, options))
    except SettingsError as error:
        names = {variable(name): name for name in Settings.model_fields}
        raise SettingsError(_VARIABLE.sub(lambda found: names.get(found[0], found[0]), str(error))) from error


def _option_texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a table with the values of its tags as texts; a template makes ``"1"`` a number."""
    tags = options.get("tags")
    return {**options, "tags": {name: _text(value) for name, value in tags.items()}} if tags else dict(options)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _type(field: FieldInfo) -> Any:
    """Return the type in YAML: a number, a list, a mapping, one of some words, or a text."""
    found = _without_none(field.annotation)
    origin = get_origin(found)
    if found in _PLAIN or origin is Literal:
        return found
    if origin in (tuple, list):
        return list[str]
    if origin is dict:
        return dict[str, Any]
    return str


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (types.UnionType, Union):
        (annotation, *_) = [item for item in get_args(annotation) if item is not type(None)]
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return annotation


def _is_secret(field: FieldInfo) -> bool:
    return _without_none(field.annotation) is SecretStr
