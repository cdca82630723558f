"""Options of ``pg_bronze.toml`` in a project: masks, owners and tags, and a file that changes while it is in use."""

from pathlib import Path

import dagster as dg
import pytest

from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.defs.table_choices import columns_of
from pg_bronze.defs.table_facts import _with_rules
from pg_bronze.scheduling import due
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.table_options import TableOptions
from pg_bronze_tests.harness.project import Project, key, sentences
from pg_bronze_tests.harness.secrets import traces
from pg_bronze_tests.settings.conftest import MINIMUM

SECRET = "pl4nted-s3cret"
# The server quotes the value in the error of its own, as a cast in a view or an output function of a type may do.
CUSTOMER = f"""
create type code as enum ('{SECRET}', 'fine');
create function public.refused(code) returns text language plpgsql as $$
begin raise exception 'invalid code %', enum_out($1) using errcode = '22023'; end $$;
create table customer (
  id int primary key, email text, phone text, note text, country text, seen_at timestamptz, c code
);
insert into customer values (1, '{SECRET}', '{SECRET}', '{SECRET}', '{SECRET}', '2077-07-07', '{SECRET}');
"""
REFUSING = "create function pg_catalog.concat(code) returns text language sql as 'select public.refused($1)'"
QUIET = ("No table was created or dropped.", "The catalog is unchanged.")
FILE = """
[tables."c*"]
masks = { email = "sha256", seen_at = "null" }
[tables.customer]
exclude_columns = ["note"]
masks = { phone = "null", country = { value = "XX" }, c = "sha256" }
owners = ["team:sales", "ana@example.com"]
tags = { domain = "crm" }
[tables.custmer]
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.database.execute(CUSTOMER)
    write(FILE)
    project.reload()
    return project


def write(text: str) -> None:
    """Write the file of the project, whose folder is the current one."""
    Path("pg_bronze.toml").write_text(text, encoding="utf-8")


def test_a_masked_value_is_in_no_object_event_log_or_message(shop: Project, tmp_path, capfd):
    """The server quotes the value when the read fails, and Dagster stores the cause of an error."""
    assert shop.copy().success
    shop.evaluate()
    shop.evaluate("bronze_catalog")
    shop.database.execute(REFUSING)
    shop.database.execute(f"insert into customer values (2, '{SECRET}', null, null, null, '2077-07-07', '{SECRET}')")
    failed = shop.copy("customer")
    shop.evaluate()
    write(FILE.replace('c = "sha256"', 'c = "null"'))
    assert shop.copy("customer").success
    shop.evaluate()
    tick = shop.evaluate().skip_message

    text = traces(shop) + "".join(capfd.readouterr())
    text += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file())
    assert "column 'c'" in sentences(failed)["bronze__customer"]
    assert "team:sales" in text, "the search includes the right texts"
    assert "options of custmer, and there is no such table. Did you mean customer?" in tick
    assert SECRET not in text
    assert "2077-07-07" not in text
    assert [row[0] for row in shop.database.execute("select last_extracted_value from etl_control")] == ["2"]


def test_the_asset_shows_what_the_options_say_and_a_change_of_the_file_reloads_it(shop: Project):
    """Columns, owners and tags in the UI would remain those of the start."""
    spec = shop.definitions.resolve_asset_graph().get(key("customer"))
    assert set(spec.owners) == {"team:sales", "ana@example.com"}
    assert spec.tags["domain"] == "crm"
    columns = {column.name: column.description for column in spec.metadata["dagster/column_schema"].columns}
    assert list(columns) == ["id", "email", "phone", "country", "seen_at", "c", "_pg_xid"]
    assert columns["email"] == "Masked: sha256."
    assert "**Excluded columns**: `note`." in spec.description
    assert "Cursor column `id`: it is the primary key" in spec.description
    shop.evaluate("bronze_catalog")
    assert shop.evaluate("bronze_catalog").skip_message in QUIET

    write(FILE.replace("crm", "sales"))

    assert shop.evaluate("bronze_catalog").skip_message == "The settings changed. The definitions are being reloaded."
    shop.reload()
    assert shop.definitions.resolve_asset_graph().get(key("customer")).tags["domain"] == "sales"
    assert shop.evaluate("bronze_catalog").skip_message in QUIET
    write(FILE.replace("owners", "ownres"))
    with pytest.raises(Exception, match=r"pg_bronze\.toml, \[tables\.customer\]: ownres .* Did you mean owners\?"):
        shop.evaluate("bronze_catalog")


def test_columns_named_for_the_table_itself_must_exist(tmp_path):
    (tmp_path / "pg_bronze.toml").write_text(FILE)
    settings = load_settings(MINIMUM, tmp_path / ".env")

    choices = columns_of(settings, "customer")

    assert choices.exclude == ("note",)
    assert choices.masks == {**columns_of(settings, "contract").masks, **choices.masks}
    assert choices.named == {"note", "phone", "country", "c"}
    assert columns_of(settings, "contract").named == frozenset()


@pytest.mark.parametrize("owner", ["a@b.co", "a@b", "team:", "team:x y", "A.b+c@d-e.museum", "a@b.c", "", "a b@c.de"])
def test_owners_are_valid_exactly_if_dagster_accepts_them(owner):
    """An owner that Dagster refuses would end the code location."""
    assert accepts(lambda: TableOptions(owners=(owner,))) == accepts(lambda: dg.AssetSpec("a", owners=[owner]))


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/c", "é", "a b", "a" * 63, "a" * 64, "", "/a", "A_.-9"])
def test_tags_are_valid_only_if_dagster_accepts_them(name):
    assert not accepts(lambda: TableOptions(tags={name: "x"})) or accepts(lambda: dg.AssetSpec("a", tags={name: "x"}))
    assert accepts(lambda: TableOptions(tags={"x": name})) == accepts(lambda: dg.AssetSpec("a", tags={"x": name}))


def accepts(make) -> bool:
    try:
        make()
    except Exception:  # noqa: BLE001  # each side has errors of its own
        return False
    return True


def test_a_budget_of_its_own_is_not_shortened_by_other_tables(tmp_path):
    """All others share 5 % of the time."""
    (tmp_path / "pg_bronze.toml").write_text("[tables.t0]\nsweep_budget = 0.1\n[tables.t1]\nsweep_budget = 0.001\n")
    settings = load_settings(MINIMUM, tmp_path / ".env")
    found = _with_rules([(large_table(f"t{number}"), due.Facts(1, [1], [0])) for number in range(22)], settings)

    rules = [facts.rules for _, facts in found]

    assert [found[place][1].sweep_s for place in (0, 1, 2)] == [2.0, 2.0, 2.0]
    assert [item.period_s(2.0) for item in rules[:3]] == pytest.approx([20, 2000, 800])
    assert sum(item.shared for item in rules) == 20


def large_table(name: str) -> SourceTable:
    """Return a table whose sweep takes 2 s."""
    relation = Relation(1, "public", name, 1, 500_000, 0)
    return SourceTable(1, "public", name, False, None, (), (), (relation,), 1.0, None, "f")
