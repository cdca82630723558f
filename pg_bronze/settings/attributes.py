"""Attributes: the settings of one source in a component, with their types and descriptions.

An attribute is named as its setting, in lower case and without ``PG_BRONZE_``. The environment and ``.env`` are not
read, so several sources of one project have nothing in common by accident.
"""

import re
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from pg_bronze.errors import SettingsError
from pg_bronze.settings.config_file import options_of
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze.settings.near_names import nearest
from pg_bronze.settings.problems import shown
from pg_bronze.settings.section import variable
from pg_bronze.settings.table_options import TableOptions

# Tables are an attribute of their own. The others belong to a process and not to a source.
_LEFT_OUT = {"tables", "config", "file_options", "log"}
# Messages name settings as variables.
_VARIABLE = re.compile(r"\b(PG|MINIO)_[A-Z_0-9]+\b")
_PLAIN = (bool, int, float)
TABLES = "tables"
SEE = "See docs/component.md#attributes; `dg utils inspect-component pg_bronze.BronzeTables` lists all"
_BELOW, _ABOVE = "an option of a table, below tables", "an attribute of the source"
_GROUP = "must have options with their values, such as slice_rows: 5000. See docs/component.md#attributes."
# What a value in YAML must be that is neither a text, which may be a template, nor of the type.
_EXPECTED = {
    bool: "it must be true or false",
    int: "it must be a whole number",
    float: "it must be a number",
    list: "it must be a list of names",
    dict: "it must have a value for each name",
}


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


class Problem(NamedTuple):
    """What is wrong in the attributes of a component.

    Attributes:
        path: The names that lead to it.
        text: What is wrong, to print directly after the path.
    """

    path: tuple[str, ...]
    text: str


def problems(values: Mapping[Any, Any], required: Collection[str], names: Collection[str]) -> list[Problem]:
    """Return what is missing, unknown or of another type. Texts are not checked: they may be templates.

    Args:
        values: The attributes as they are written.
        required: The attributes without which there is no source.
        names: All attributes, also those of a subclass.
    """
    source, options = {item.name: item for item in of_source()}, {item.name: item for item in of_table()}
    missing = [name for name in required if values.get(name) is None]
    found = [Problem((), f": {name} is missing. {source[name].description}") for name in missing]
    own = {name: value for name, value in values.items() if name in source or name not in names}
    found += _wrong(own, source, names, "an attribute", dict.fromkeys(options, _BELOW))
    tables = values.get(TABLES, {})
    if not isinstance(tables, Mapping):
        return found if isinstance(tables, str) else [*found, Problem((TABLES,), f" {_GROUP}")]
    for label, written in tables.items():
        if isinstance(written, Mapping):
            inner = _wrong(written, options, options, "an option of a table", dict.fromkeys(source, _ABOVE))
            found += [Problem((TABLES, str(label), *item.path), item.text) for item in inner]
        elif not isinstance(written, str):
            found.append(Problem((TABLES, str(label)), f" {_GROUP}"))
    return found


def _wrong(
    values: Mapping[Any, Any],
    known: Mapping[str, Attribute],
    names: Collection[str],
    what: str,
    elsewhere: Mapping[str, str],
) -> Iterator[Problem]:
    """Yield the problems of one group of attributes.

    Args:
        values: The attributes as they are written.
        known: The attributes whose values are checked.
        names: All names that are valid here.
        what: What one of them is.
        elsewhere: What the names of the other group are.
    """
    for name, value in values.items():
        path = (str(name),)
        if name in known:
            if reason := _type_error(known[name], value):
                yield Problem(path, f"{'' if known[name].secret else shown(value)}: {reason}.")
        elif name in elsewhere:
            yield Problem(path, f" is not {what}, but {elsewhere[name]}. {SEE}.")
        else:
            similar = nearest(str(name), names)
            yield Problem(path, f" is not {what}. {f'Did you mean {similar}? ' if similar else ''}{SEE}.")


def _type_error(attribute: Attribute, value: object) -> str | None:
    """Return why a value cannot be that of an attribute; None if it may be."""
    kind = get_origin(attribute.type) or attribute.type
    if value is None or isinstance(value, str):
        return None
    if kind in (int, float) and isinstance(value, bool):
        return _EXPECTED[kind]
    if kind is list and isinstance(value, list):
        return None if all(isinstance(item, str) for item in value) else _EXPECTED[list]
    if kind is Literal:
        return f"it must be one of {', '.join(map(repr, get_args(attribute.type)))}"
    fits = isinstance(value, int | float) if kind is float else kind in _EXPECTED and isinstance(value, kind)
    return None if fits else _EXPECTED.get(kind, "it must be a text")


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
    return int if found is ByteSize else str


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (types.UnionType, Union):
        (annotation, *_) = [item for item in get_args(annotation) if item is not type(None)]
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return annotation


def _is_secret(field: FieldInfo) -> bool:
    return _without_none(field.annotation) is SecretStr
