"""Near names: which valid name a misspelled one is closest to."""

import difflib
import re
from collections.abc import Collection, Iterable

from pg_bronze.settings.section import PREFIX, variable

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNIT = re.compile("_(s|h|mb)$")


def nearest(name: str, valid: Collection[str]) -> str | None:
    """Return the valid name that is closest to a name; None if none is similar.

    A valid name is in lower case with underscores. That of a variable, ``cursorColumn`` and ``cursor-column`` are found
    too.
    """
    plain = _CAPITAL.sub("_", name).replace("-", "_").lower()
    plain = plain if plain in valid else plain.removeprefix(PREFIX.lower())
    similar = [plain] if plain in valid else difflib.get_close_matches(plain, valid, n=1)
    return similar[0] if similar else None


def misspellings(name: str, valid: Iterable[str]) -> str:
    """Return a regular expression of misspellings of a name, for a JSON Schema. It matches no valid name.

    These are one character that is left out, added or replaced, two that are exchanged, a missing unit, and the other
    forms that ``nearest`` finds.
    """
    head, *others = name.split("_")
    forms = {variable(name), name.replace("_", "-"), head + "".join(map(str.capitalize, others)), _UNIT.sub("", name)}
    found = "|".join([*sorted(forms - {name}), _edited(name)])
    taken = sorted(other for other in {name, *valid} if re.fullmatch(found, other))
    return f"^(?!(?:{'|'.join(taken)})$)(?:{found})$"


def _edited(name: str) -> str:
    """Return an expression of the names that differ at one place."""
    if not name[1:]:
        return ".{0,2}"
    first, second, rest = name[0], name[1], name[2:]
    return f"(?:.{{0,2}}{second}{rest}|{second}{first}{rest}|{first}{_edited(name[1:])})"
