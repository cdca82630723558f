"""The JSON Schema of the component's attributes, so that each error of `dg check yaml` is one readable line.

`dg check yaml` validates without the code of the component. It prints the position and the name of what is wrong, and
a message that follows from the schema: of ``const``, that this text was expected.
"""

from typing import Any

from pg_bronze.settings.attributes import TABLES
from pg_bronze.settings.near_names import misspellings

_DOCS = "docs/component.md#attributes"
_TEMPLATE = r"\{\{"
_TEXT, _NULL = {"type": "string"}, {"type": "null"}


def readable(schema: dict[str, Any], tables: str) -> dict[str, Any]:
    """Return the schema with one reason for each error, and with the nearest name for a misspelled one.

    Args:
        schema: As pydantic generates it. Each attribute is a choice of its type, null, and a text with a template, of
            which an error would print all.
        tables: The name of the definition of a table's options.
    """
    found, options = _with_names(schema), _with_names(schema["$defs"][tables])
    elsewhere = "|".join(name for name in options["properties"] if name not in found["properties"])
    found["patternProperties"][f"^(?:{elsewhere})$"] = {"const": f"an option of a table, below {TABLES}"}
    of_tables = found["properties"][TABLES]["else"]
    of_tables["additionalProperties"] = {"if": _TEXT, "else": of_tables["additionalProperties"]}
    return {**found, "$defs": {**schema["$defs"], tables: options}}


def _with_names(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {name: _plain(item) for name, item in schema["properties"].items()}
    near = {misspellings(name, properties): {"const": f"{name} ({_DOCS})"} for name in properties}
    others = {"const": f"a name of {_DOCS}"}
    return {**schema, "properties": properties, "patternProperties": near, "additionalProperties": others}


def _plain(attribute: dict[str, Any]) -> dict[str, Any]:
    """Return an attribute without a choice: if it is null or a text, it is valid; otherwise it has the type.

    A text that is one of some words must be one of them, or a template.
    """
    choices = [item for item in attribute.get("anyOf", ()) if item not in (_TEXT, _NULL)]
    if len(choices) != 1:
        return attribute
    skipped = ["string", "null"] if _NULL in attribute["anyOf"] else ["string"]
    condition: dict[str, Any] = {"type": skipped}
    if "enum" in choices[0]:
        condition["pattern"] = _TEMPLATE
    rest = {name: value for name, value in attribute.items() if name != "anyOf"}
    return {**rest, "if": condition, "else": choices[0]}
