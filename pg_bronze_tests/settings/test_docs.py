"""The page of settings and the example file: complete, current and loadable."""

import re
from pathlib import Path

import pytest

from pg_bronze.settings.docs import settings_tables
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import FIELDS, Settings
from pg_bronze_tests.settings.conftest import entry, load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / ".env.example"


def test_the_page_contains_the_rendered_tables():
    """To update it: python -c "from pg_bronze.settings.docs import settings_tables; print(settings_tables())"."""
    assert PAGE.read_text(encoding="utf-8").endswith(settings_tables())


def test_every_setting_has_one_row_that_ends_with_a_full_stop():
    rows = [line for line in settings_tables().splitlines() if line.startswith("| `")]

    assert sorted(row.split("`")[1] for row in rows) == sorted(FIELDS)
    assert all(row.count("|") == 4 and row.endswith(". |") for row in rows)


def test_the_first_block_of_the_page_loads(tmp_path):
    file = tmp_path / ".env"
    block = re.search(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file.write_text(block[1], encoding="utf-8")

    settings = load_settings({}, file)

    assert settings.pg_db
    assert settings.minio_bucket


def test_the_example_file_loads_unchanged_with_default_values(mc, tmp_path):
    where = {"MC_CONFIG_DIR": mc(tmp_path / "m", mi_minio=entry())["MC_CONFIG_DIR"]}
    set_there = {"pg_db", "minio_bucket"} | {name for name in Settings.model_fields if name.startswith("minio")}

    settings = load_settings(where, EXAMPLE)

    assert (settings.pg_db, settings.minio_bucket, settings.minio_alias) == ("cine", "meteo-bronze", "mi_minio")
    assert settings.model_dump(exclude=set_there) == load().model_dump(exclude=set_there)


def test_every_commented_line_of_the_example_file_is_valid(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    certificate = tmp_path / "ca.crt"
    certificate.touch()
    text = re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^MINIO_ALIAS=.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("PG_SSLMODE=prefer", "PG_SSLMODE=verify-ca")
    text = re.sub("^PG_SSLROOTCERT=.*", f"PG_SSLROOTCERT={certificate}", text, flags=re.MULTILINE)
    file = tmp_path / ".env"
    file.write_text(text)

    settings = load_settings({"MINIO_ACCESS_KEY": "ak", "MINIO_SECRET_KEY": "sk"}, file)

    assert settings.tables["movie"].slice_rows == 5000
    assert settings.include == ("movie", "person", "sales.*")


@pytest.mark.parametrize("name", ["PG_DB", "PG_USER", "PG_PASS", "PG_HOST", "MINIO_ALIAS", "MINIO_BUCKET"])
def test_the_example_file_contains_every_setting_of_the_original_system(name):
    assert re.search(rf"^(# )?{name}=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
