"""The component ``pg_bronze.BronzeTables``: the tables of one source database, configured in ``defs.yaml``.

A project may have several. The definitions of this repository are those of the same class, with the settings of the
environment.
"""

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig
from dagster.components.utils.project_paths import get_code_server_metadata_key
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, SkipValidation, create_model

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import build, catalog_state, component_model
from pg_bronze.defs.build import Project
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.errors import SettingsError
from pg_bronze.settings import attributes
from pg_bronze.settings.load import home_variables, load_settings
from pg_bronze.settings.model import Settings

_FROM_ENVIRONMENT = re.compile(r"\{\{.*\benv\b.*\}\}")
_IN_MEMORY = DefsStateConfigArgs.legacy_code_server_snapshots()
_NO_STATE = (
    "The catalog of {name} was not stored when this project was built. Run `dg utils refresh-defs-state`, or remove "
    "`defs_state` from its defs.yaml."
)
_TEMPLATE: dict[str, Any] = {
    "pg_host": "127.0.0.1",
    "pg_port": 5432,
    "pg_db": "{name}",
    "pg_user": "postgres",
    "pg_pass": "{{{{ env.{NAME}_PG_PASS }}}}",
    "minio_bucket": "bronze",
    "minio_endpoint": "http://127.0.0.1:9000",
    "minio_access_key": "{{{{ env.MINIO_ACCESS_KEY }}}}",
    "minio_secret_key": "{{{{ env.MINIO_SECRET_KEY }}}}",
}


class _Written(SecretStr):
    """A secret that is written in the file. Its value is dropped."""


def _secret(context: dg.ResolutionContext, raw: str) -> SecretStr:
    """Return the value of a secret, which must not be written in a file that is kept in a repository."""
    if not _FROM_ENVIRONMENT.search(raw):
        # No error here: Dagster would print the line of the file with it.
        return _Written("")
    return SecretStr(str(context.resolve_value(raw)))


def _field(attribute: attributes.Attribute) -> tuple[Any, Any]:
    default = ... if attribute.name in component_model.REQUIRED else None
    of_field = Field(default=default, description=attribute.description)
    if attribute.secret:
        resolver = dg.Resolver(
            _secret, model_field_type=str, inject_before_resolve=False, description=attribute.description
        )
        return Annotated[SecretStr | None, resolver], of_field
    kind = attribute.type if attribute.name in component_model.REQUIRED else attribute.type | None
    # `settings` validates the values: what Dagster prints of a wrong one is a page.
    return Annotated[kind, SkipValidation, dg.Resolver.default(description=attribute.description)], of_field


class _TableBase(dg.Model, dg.Resolvable):
    """Options of a table."""


if TYPE_CHECKING:
    TableAttributes = _TableBase

    class _Attributes(dg.Model):
        name: str
else:
    TableAttributes = create_model(
        "TableAttributes", __base__=_TableBase, **{item.name: _field(item) for item in attributes.of_table()}
    )
    _Attributes = create_model(
        "_Attributes", __base__=dg.Model, **{item.name: _field(item) for item in attributes.of_source()}
    )


class BronzeTablesScaffolder(dg.Scaffolder):
    """Writes a ``defs.yaml`` with the attributes that each source needs."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the file, with the name of the folder as the name of the source."""
        name = re.sub("[^a-z0-9]+", "_", request.target_path.name.lower()).strip("_") or "source"
        name = name if name[0].isalpha() else f"source_{name}"
        values = {
            key: value.format(name=name, NAME=name.upper()) if isinstance(value, str) else value
            for key, value in _TEMPLATE.items()
        }
        dg.scaffold_component(request, {"name": name, **values})


@dg.scaffold_with(BronzeTablesScaffolder)
class BronzeTables(dg.StateBackedComponent, _Attributes, dg.Resolvable):
    """Copies the tables of one PostgreSQL database incrementally and exactly into Parquet objects on S3.

    An attribute has the name of its setting in lower case, without ``PG_BRONZE_``; ``docs/settings.md`` describes all
    of them. Only the attributes are used: neither environment variables nor ``.env`` change what is copied. Two
    defaults differ: ``name`` is required, and ``prefix`` is the name.
    """

    tables: Annotated[
        dict[str, TableAttributes],
        dg.Resolver.default(description="Options of tables, by name or by a shell pattern of names."),
    ] = Field(default_factory=dict)
    # The state is the catalog. By default it is read whenever the code location is loaded.
    defs_state: ResolvedDefsStateConfig = _IN_MEMORY

    _settings: Settings | None = PrivateAttr(default=None)
    _file: str = PrivateAttr(default="")

    @classmethod
    def definitions_from_environment(cls) -> dg.Definitions:
        """Return the definitions of the only source, with the settings of the environment and of ``.env``.

        Invalid settings raise no error: the definitions then contain an asset that says what to set, and the sensors,
        which load the definitions again as soon as the settings are valid.
        """
        try:
            settings = load_settings()
        except SettingsError as error:
            state = CatalogState(None, datetime.now(UTC).date(), str(error))
            return build.build_definitions(None, state, project=Project(load_settings))
        component = cls.model_construct(name=settings.name or "")
        component._settings = settings
        project = Project(load_settings, translate=component._translate())
        if received := catalog_state.received_reference(settings.name):
            return build.for_run(received, settings, project)
        return build.build_definitions(settings, catalog_state.load(settings), project=project)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings of the source.

        Raises:
            SettingsError: An attribute is missing or invalid.
        """
        if self._settings is not None:
            return self._settings
        fields = type(self).model_fields.keys() - {"tables", "defs_state"}
        values = {name: getattr(self, name) for name in fields}
        secrets = {name: value.get_secret_value() for name, value in values.items() if isinstance(value, SecretStr)}
        tables = {label: options.model_dump(exclude_none=True) for label, options in self.tables.items()}
        place = f"{self._file}: BronzeTables {self.name}" if self._file else f"BronzeTables {self.name}"
        if written := sorted(name for name, value in values.items() if isinstance(value, _Written)):
            raise SettingsError(
                f"{place}: {', '.join(written)}: a secret must come from the environment. Write '{{{{ env.NAME }}}}' "
                "with the name of a variable."
            )
        try:
            return attributes.load(place, {"prefix": self.name} | _given(values) | secrets, tables, home_variables())
        except SettingsError as error:
            raise SettingsError(f"{place}: {str(error).removeprefix(f'{place}, ')}") from error

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the attributes in ``defs.yaml``."""
        return component_model.checked(super().model())

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of a ``defs.yaml``; without attributes, it has none of the required ones."""
        # Dagster passes on what the model's validator returns.
        return super().load(attributes or component_model.NO_ATTRIBUTES, context)  # type: ignore[arg-type]

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: Any) -> Self:
        """Return the component with attributes of ``defs.yaml``.

        Raises:
            SettingsError: An attribute is missing, unknown or of another type.
        """
        if isinstance(model, component_model.InvalidAttributes):
            raise model.error(context)
        component: Self = super().resolve_from_model(context, model)
        component._file = component_model.file_of(context)
        return component

    def get_asset_spec(self, table: SourceTable, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of a table's bronze asset. A subclass may change it.

        Args:
            table: The table.
            spec: The spec as the attributes say it. Its key, group, description, kinds, owners, tags, metadata,
                dependencies and automation condition may be changed with ``spec.replace_attributes`` and
                ``spec.merge_attributes``.
        """
        del table
        return spec

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """How Dagster keeps the catalog between loads of the code location."""
        return DefsStateConfig.from_args(self.defs_state, default_key=f"BronzeTables[{self.name}]")

    def write_state_to_path(self, state_path: Path) -> None:
        """Write the catalog of the database; the one that was last stored in the bucket if it does not answer."""
        state = catalog_state.read(self.settings, datetime.now(UTC))
        state_path.write_text(self._text(state), encoding="utf-8")

    def _text(self, state: CatalogState) -> str:
        # What a code server keeps becomes part of the snapshot of every execution plan, so it is a reference.
        return catalog_state.reference(state, self.settings.name) if self._is_in_memory else state.to_text()

    @property
    def _is_in_memory(self) -> bool:
        return self.defs_state.management_type == _IN_MEMORY.management_type

    @property
    def _project(self) -> Project:
        return Project(lambda: self.settings, alone=False, translate=self._translate())

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions for the stored catalog; read it if this process received none, as `dg launch`."""
        if self._is_in_memory and not _received(self.defs_state_config.key):
            state = catalog_state.read(self.settings, datetime.now(UTC))
            return build.build_definitions(self.settings, state, project=self._project)
        return super().build_defs(context)

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        """Return assets, checks, jobs and sensors for the catalog."""
        del context
        if state_path is None:
            state = CatalogState(None, datetime.now(UTC).date(), _NO_STATE.format(name=self.name))
            return build.build_definitions(self.settings, state, project=self._project)
        return build.for_run(state_path.read_text(encoding="utf-8"), self.settings, self._project)

    def _translate(self) -> build.Translate | None:
        is_own = type(self).get_asset_spec is not BronzeTables.get_asset_spec
        return self.get_asset_spec if is_own else None


def _received(key: str) -> bool:
    """Return whether this process has a state of the code server, or reads one that Dagster keeps."""
    if not DefinitionsLoadContext.is_set():
        return False
    context = DefinitionsLoadContext.get()
    if context.load_type != DefinitionsLoadType.RECONSTRUCTION:
        return True
    return get_code_server_metadata_key(key) in context.reconstruction_metadata


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
