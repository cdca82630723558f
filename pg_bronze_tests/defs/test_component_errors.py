"""Errors of a `defs.yaml`: one sentence for each, when it is loaded and from `dg check yaml`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest

from pg_bronze import BronzeTables
from pg_bronze.errors import SettingsError
from pg_bronze.settings import attributes

PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "misspelled"
"""
MISSPELLED = """
type: pg_bronze.BronzeTables
attributes:
  name: shop
  pg_db: shop
  pg_usr: bronze
  pg_pass: "{{ env.HOME }}"
  minio_bucket: bronze
  tables:
    movie:
      cursor_colum: updated_at
"""


def load_file(folder: Path, text: str) -> str:
    """Load a project with one `defs.yaml`; return the error of the component."""
    file = folder / "misspelled/defs/shop/defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, content in {"../../__init__.py": "", "../__init__.py": "", "../../../pyproject.toml": PROJECT}.items():
        (file.parent / name).write_text(content)
    file.write_text(text)
    with pytest.raises(Exception, match="shop") as raised:
        dg.load_from_defs_folder(path_within_project=folder / "misspelled")
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, SettingsError):
        error = error.__cause__
    return str(error).replace(str(folder), "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "misspelled"]:
        del sys.modules[name]


def test_a_misspelled_name_is_a_sentence_with_its_place_and_the_nearest_name(folder: Path):
    message = load_file(folder, MISSPELLED)

    file = "/misspelled/defs/shop/defs.yaml"
    assert f"{file}:6: attributes.pg_usr is not an attribute. Did you mean pg_user? See docs/" in message
    assert f"{file}:11: attributes.tables.movie.cursor_colum is not an option of a table. Did you mean" in message
    assert len(message.splitlines()) == 3, "one for each, and the number of problems"


def test_a_file_without_attributes_is_told_what_is_required(folder: Path):
    message = load_file(folder, "type: pg_bronze.BronzeTables\n")

    assert "/misspelled/defs/shop/defs.yaml:1: attributes: pg_db is missing. " in message


def test_a_wrong_value_is_a_sentence_with_its_file(folder: Path):
    text = MISSPELLED.replace("pg_usr", "pg_user").replace("cursor_colum: updated_at", "slice_rows: 0")

    message = load_file(folder, text)

    place = "/misspelled/defs/shop/defs.yaml: BronzeTables shop: "
    assert message == f"{place}[tables.movie]: slice_rows is '0': it must be at least 1."


def schema_errors(**written: Any) -> list[str]:
    """Return each error of the JSON Schema as `dg check yaml` prints it: the path, and the message."""
    schema = BronzeTables.get_model_cls().model_json_schema()
    values = {"name": "shop", "pg_db": "shop", "minio_bucket": "bronze", **written}
    found = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(json.dumps(values)))
    return sorted(f"{'.'.join(map(str, error.absolute_path))} {error.message}" for error in found)


def test_each_error_of_the_schema_is_one_line_with_the_nearest_name():
    """`dg check yaml` has the schema alone; it printed the whole attribute `tables` for one misspelled option."""
    movie = {"cursor_colum": "updated_at", "compression": "zip", "slice_rows": [1], "zoom": 1}

    found = schema_errors(tables={"movie": movie}, pg_usr="bronze", owners=["ana"], include=5)

    assert found == [
        "include 5 is not of type 'array'",
        "owners 'an option of a table, below tables' was expected",
        "pg_usr 'pg_user (docs/component.md#attributes)' was expected",
        "tables.movie.compression 'zip' is not one of ['zstd', 'snappy', 'gzip', 'lz4', 'uncompressed']",
        "tables.movie.cursor_colum 'cursor_column (docs/component.md#attributes)' was expected",
        "tables.movie.slice_rows [1] is not of type 'integer'",
        "tables.movie.zoom 'a name of docs/component.md#attributes' was expected",
    ]


def test_the_schema_accepts_every_attribute_templates_and_null():
    names = [name for name in BronzeTables.get_model_cls().model_fields if name != "tables"]
    template = "{{ env.VALUE }}"
    options = {item.name: template for item in attributes.of_table()}
    required = {"name", "pg_db", "minio_bucket", "defs_state"}
    secrets = {item.name for item in attributes.of_source() if item.secret}

    assert schema_errors(**dict.fromkeys(names, template), tables={"movie": options, "p*": template}) == []
    assert schema_errors(**dict.fromkeys(set(names) - required - secrets)) == []
    assert schema_errors(slice_bytes=65536, tables={"movie": {"slice_bytes": "64KiB", "tags": {"a": 1}}}) == []
