"""The import of Dagster's storage, without what it needs only to create or migrate its tables, and without the daemon.

Dagster's modules import Alembic, and with a small type the whole daemon: a tenth of the CPU time of a `pg-bronze tick`.
Names of Alembic are imported at their first use instead. If a version of Dagster needs more of them while it is
imported, it imports them as usual.
"""

import importlib
import importlib.util
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

_STORAGE = "dagster._core.storage.base_storage"
_DAEMON = "dagster._daemon"
# What dagster._core.storage.sql imports names from, and the packages of these modules.
_ALEMBIC = (
    "alembic",
    "alembic.command",
    "alembic.config",
    "alembic.runtime",
    "alembic.runtime.environment",
    "alembic.runtime.migration",
    "alembic.script",
)


class _Deferred:
    """A name of a module that is imported when the name is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _imported(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._imported()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._imported(), name)


class _DeferredModule(ModuleType):
    """A module all of whose names are imported when they are used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Deferred(self.__name__, name)


def import_storage() -> None:
    """Import Dagster's storage, unless this process has done so; call it before an instance is opened."""
    if _STORAGE in sys.modules:
        return
    placeholders = {**_of_alembic(), **_of_the_daemon()}
    sys.modules.update(placeholders)
    try:
        with suppress(Exception):  # Dagster imports what is missing when it opens the instance, and raises the error
            importlib.import_module(_STORAGE)
    finally:
        for name in placeholders:
            sys.modules.pop(name, None)


def _of_alembic() -> dict[str, ModuleType]:
    if "alembic" in sys.modules:
        return {}
    return {name: _DeferredModule(name) for name in _ALEMBIC}


def _of_the_daemon() -> dict[str, ModuleType]:
    """Return an empty package with the folder of the daemon, in which a module is found without the whole package."""
    if _DAEMON in sys.modules or (found := importlib.util.find_spec(_DAEMON)) is None:
        return {}
    package = ModuleType(_DAEMON)
    package.__path__ = list(found.submodule_search_locations or ())
    return {_DAEMON: package}
