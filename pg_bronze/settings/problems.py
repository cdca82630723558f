"""Problems: the error message for settings that are missing, unknown or invalid.

All of them are reported at once, each with the name of the setting. No message contains a secret.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pg_bronze.errors import SettingsError
from pg_bronze.settings.model import FIELDS, SECRET_NAMES
from pg_bronze.settings.near_names import nearest
from pg_bronze.settings.section import PREFIX, variable
from pg_bronze.settings.table_options import TableOptions

# Variables of the demo and the tests, and those that Kubernetes sets in every pod for a service "pg-bronze…".
_FOREIGN = re.compile(
    r"PG_BRONZE_(PG_BINDIR|MINIO_BIN|DEMO_.*|TEST_.*"
    r"|(.*_)?SERVICE_HOST|(.*_)?SERVICE_PORT(_.*)?|(.*_)?PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
# Of Polars, which reads them itself.
_POLARS_LIMITS = {"POLARS_MAX_THREADS": 1024, "POLARS_IDEAL_MORSEL_SIZE": 2**31 - 1}
_SHOWN_CHARACTERS = 80
_LONGEST = 100_000
# Where the options of a table are described.
_OPTIONS = "docs/settings.md#the-file-pg_bronzetoml"
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://\S+")


def one_error(problems: Sequence[str]) -> SettingsError:
    """Return one error for all problems, of which there is at least one."""
    if len(problems) == 1:
        return SettingsError(problems[0])
    return SettingsError("\n- ".join([f"{len(problems)} problems in the settings:", *problems]))


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each name that begins with ``PG_BRONZE_`` and is not a setting."""
    problems = []
    known = {name.removeprefix(PREFIX): name for name in FIELDS}
    for name in sorted(names):
        if not name.upper().startswith(PREFIX) or name in FIELDS or _FOREIGN.fullmatch(name):
            continue
        # Compared without the prefix, which alone makes any two names similar.
        similar = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
        remedy = f"Did you mean {known[similar[0]]}?" if similar else "Remove it."
        problems.append(f"{name} is not a known setting. {remedy}")
    return problems


def without_service_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what Kubernetes sets in every pod for a service, such as ``pg``, over a setting.

    It sets ``PG_PORT=tcp://10.96.0.1:5432`` then, which is no port that a person would write.
    """
    return {
        name: value
        for name, value in environment.items()
        if not (name in FIELDS and name.endswith("_PORT") and _SERVICE_URL.fullmatch(value))
    }


def library_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of Polars with which it ends in a panic; of others it warns, or nothing."""
    problems = []
    for name, most in _POLARS_LIMITS.items():
        value = environment.get(name, "").strip()
        if re.fullmatch(r"[0-9]+", value) and not (len(value) < 10 and 1 <= int(value) <= most):
            problems.append(f"{name}{shown(value)}: it must be from 1 to {most}. Correct it, or unset it.")
    return problems


def unreadable_values(values: dict[str, str]) -> dict[str, str]:
    """Remove the values that no library accepts, and return a sentence for each by the name of its setting."""
    problems = {}
    for name, text in list(values.items()):
        if len(text) > _LONGEST:
            problems[name] = f"{name} has {len(text):,} characters: it must have at most {_LONGEST:,}."
        elif "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            problems[name] = f"{name} contains bytes that are not valid UTF-8, or a zero byte. Write it in UTF-8."
        else:
            continue
        del values[name]
    return problems


def invalid_values(error: ValidationError, reported: Collection[str]) -> list[str]:
    """Return a sentence for each validation error, except for missing settings that are already ``reported``."""
    return [
        _sentence(details)
        for details in error.errors()
        if details["type"] != "missing" or details["loc"][0] not in reported
    ]


def _sentence(error: ErrorDetails) -> str:
    name, *inner = (str(part) for part in error["loc"])
    name = name if name in FIELDS else variable(name)  # pydantic reports an invalid default by its field name
    if error["type"] == "missing":
        return f"{name} is not set. Set it in the environment or in .env. {FIELDS[name].description}"
    where = f"{name} ({', '.join(inner)})" if inner else name
    value = "" if name in SECRET_NAMES else shown(error["input"])
    found = reason(error, "a JSON object with options")
    return f"{where}{value}: {found}{'' if found.endswith('?') else '.'}"


def shown(value: object) -> str:
    """Return `` is`` and the value, shortened; empty for no value, and without one that may contain a password."""
    if value is None or isinstance(value, dict):
        return ""
    text = str(value)
    if "@" in text or "password" in text.lower():
        return " (value not shown because it may contain a password)"
    return f" is {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'!r}"


def reason(error: ErrorDetails, options: str) -> str:
    """Return what is wrong with a value, and the nearest valid one if there is one, without a period.

    Args:
        options: What the options of a table are called where they are set.
    """
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "it must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "it must be a number"
        case "bool_parsing" | "bool_type":
            return "it must be true or false"
        case "byte_size" | "byte_size_unit":
            return "it must be a number of bytes, such as 33554432 or 32MiB"
        case "literal_error":
            return f"it must be {context['expected']}"
        case "greater_than_equal":
            return f"it must be at least {context['ge']}"
        case "less_than_equal":
            return f"it must be at most {context['le']}"
        case "extra_forbidden":
            similar = nearest(str(error["loc"][-1]), TableOptions.model_fields)
            remedy = f"Did you mean {similar}?" if similar else f"These are {', '.join(TableOptions.model_fields)}."
            return f"it is not an option of a table. {remedy} See {_OPTIONS}"
        case "model_type":
            return f"it must be {options} of {', '.join(TableOptions.model_fields)}"
        case "tuple_type":
            return "it must be a list of names"
        case "dict_type":
            return "it must have a value for each name"
        case "string_type" | "string_unicode":
            return "it must be a text"
    return error["msg"][:1].lower() + error["msg"][1:]
