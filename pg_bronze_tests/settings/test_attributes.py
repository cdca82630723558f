"""Attributes: what is wrong in a `defs.yaml`, as sentences."""

from typing import Any

import pytest

from pg_bronze.settings import attributes

REQUIRED = {"name": "shop", "pg_db": "shop", "minio_bucket": "bronze"}
NAMES = [*(item.name for item in attributes.of_source()), "tables", "domain"]


def problems(**values: Any) -> list[tuple[str, str]]:
    found = attributes.problems({**REQUIRED, **values}, REQUIRED, NAMES)
    return [(".".join(item.path), item.text) for item in found]


@pytest.mark.parametrize(
    "values, path, text",
    [
        (
            {"pg_usr": "bronze"},
            "pg_usr",
            " is not an attribute. Did you mean pg_user? See docs/component.md#attributes",
        ),
        ({"PG_HOST": "db1"}, "PG_HOST", " is not an attribute. Did you mean pg_host? "),
        ({"zoom": 1}, "zoom", " is not an attribute. See docs/component.md#attributes; `dg utils inspect-component "),
        ({"cursor_column": "id"}, "cursor_column", " is not an attribute, but an option of a table, below tables."),
        ({"pg_port": 1.5}, "pg_port", " is '1.5': it must be a whole number."),
        ({"pg_port": True}, "pg_port", " is 'True': it must be a whole number."),
        ({"interval_s": [1]}, "interval_s", " is '[1]': it must be a number."),
        ({"layout": 1}, "layout", " is '1': it must be one of 'flat', 'date'."),
        ({"include": {"movie": 1}}, "include", ": it must be a list of names."),
        ({"include": ["movie", 7]}, "include", " is \"['movie', 7]\": it must be a list of names."),
        ({"retention": 1}, "retention", " is '1': it must be true or false."),
        ({"pg_pass": 9876}, "pg_pass", ": it must be a text."),
        ({"pg_db": None}, "", ": pg_db is missing. Name of the database to copy."),
        ({"tables": ["movie"]}, "tables", " must have options with their values, such as slice_rows: 5000."),
        ({"tables": {"movie": [1]}}, "tables.movie", " must have options with their values, such as "),
        (
            {"tables": {"movie": {"cursor_colum": "id"}}},
            "tables.movie.cursor_colum",
            " is not an option of a table. Did you mean cursor_column? See docs/component.md#attributes",
        ),
        (
            {"tables": {"movie": {"interval_s": 5}}},
            "tables.movie.interval_s",
            " is not an option of a table, but an attribute of the source.",
        ),
        (
            {"tables": {"movie": {"slice_rows": [1]}}},
            "tables.movie.slice_rows",
            " is '[1]': it must be a whole number.",
        ),
    ],
)
def test_a_problem_names_the_attribute_and_the_remedy(values: dict[str, Any], path: str, text: str):
    ((where, found),) = problems(**values)

    assert where == path
    assert found.startswith(text)


@pytest.mark.parametrize(
    "values",
    [
        {"pg_port": 5433, "interval_s": 10, "include": ["movie"], "retention": False, "layout": "date"},
        {"pg_port": "{{ env.PORT }}", "layout": "{{ env.LAYOUT }}", "tables": "{{ tables }}", "prefix": None},
        {"tables": {"movie": {"tags": {"tier": 1}, "slice_bytes": 65536, "sweep_budget": 1}, "p*": "{{ x }}"}},
        {"domain": {"of": "a subclass"}},
    ],
)
def test_what_is_valid_or_a_template_is_no_problem(values: dict[str, Any]):
    assert problems(**values) == []
