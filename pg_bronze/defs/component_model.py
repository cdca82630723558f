"""The model of the component's attributes: every error in ``defs.yaml`` is a sentence with its file and line.

Dagster would print the errors of pydantic and of the JSON Schema: for a misspelled option of a table, the whole table
and all that it might have been.
"""

import functools
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ModelWrapValidatorHandler, create_model, model_validator

from pg_bronze.errors import SettingsError
from pg_bronze.settings import attribute_schema, attributes
from pg_bronze.settings.attributes import Problem
from pg_bronze.settings.problems import one_error

REQUIRED = ("name", "pg_db", "minio_bucket")
# As Dagster names the model of `TableAttributes`.
_TABLES = "TableAttributesModel"


class InvalidAttributes:
    """Attributes with problems, instead of the model. The file is known later than the attributes."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems

    def __getitem__(self, _: object) -> Self:
        # Dagster looks for each part of the file, to note its position.
        return self

    def error(self, context: dg.ResolutionContext) -> SettingsError:
        """Return one error for all problems, with the place of each in the file."""
        return one_error([f"{_place(context, problem)}{problem.text}" for problem in self._problems])


NO_ATTRIBUTES = InvalidAttributes(attributes.problems({}, REQUIRED, REQUIRED))


class _Checked(dg.Model):
    @model_validator(mode="wrap")
    @classmethod
    def _keep_problems(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Any:
        found = attributes.problems(values, REQUIRED, cls.model_fields) if isinstance(values, Mapping) else []
        return InvalidAttributes(found) if found else validate(values)

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the JSON Schema for `dg check yaml` and editors."""
        return attribute_schema.readable(super().model_json_schema(*arguments, **options), _TABLES)


@functools.cache
def checked(model: type[BaseModel]) -> type[BaseModel]:
    """Return a model of the component that Dagster has made, with errors that can be read."""
    return create_model(model.__name__, __base__=(_Checked, model))


def file_of(context: dg.ResolutionContext) -> str:
    """Return the path of the file that is resolved; empty for a text."""
    name = context.source_position_tree.position.filename if context.source_position_tree else ""
    return "" if name.startswith("<") else name


def _place(context: dg.ResolutionContext, problem: Problem) -> str:
    path = [*context.path, *problem.path]
    dotted = ".".join(map(str, path))
    if context.source_position_tree is None or not (file := file_of(context)):
        return dotted
    position, _ = context.source_position_tree.lookup_closest_and_path(path, None)
    return f"{file}:{position.start.line}: {dotted}"
