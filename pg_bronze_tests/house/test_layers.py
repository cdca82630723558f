"""The layers: imports point down, and importing the core loads no library of an outside system."""

import ast
import subprocess
import sys
import sysconfig
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
PURE = ["errors", "settings", "core", "scheduling"]
NO_DAGSTER = [*PURE, "postgres", "lake", "sync", "demo"]
DAGSTER = ["definitions", "defs"]
# Packages that another package of the same release pins.
RELEASED_WITH = {"botocore": "boto3", "pydantic_core": "pydantic", "pydantic-core": "pydantic"}
READS_THE_ENVIRONMENT = ["settings", "demo"]


def modules(*names: str) -> list[Path]:
    """Return the source files of these packages and modules; all of pg_bronze without a name."""
    found = (TOP / "pg_bronze").rglob("*.py")
    return sorted(path for path in found if not names or top_name(path) in names)


def top_name(path: Path) -> str:
    return path.relative_to(TOP / "pg_bronze").parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_imports_point_down_only():
    """The contracts in pyproject.toml also fail for a module that is in no layer."""
    linter = Path(sysconfig.get_path("scripts"), "lint-imports")

    result = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def dotted(*packages: str) -> list[str]:
    """Return the dotted names of all modules of the packages."""
    found = [path.relative_to(TOP).with_suffix("") for path in modules(*packages)]
    return sorted(".".join(part for part in path.parts if part != "__init__") for path in found)


@pytest.mark.parametrize("name", PURE)
def test_importing_the_core_loads_no_library_of_an_outside_system(name):
    """Every test of the core, and `--help`, would wait for it."""
    heavy = {"dagster", "dagster_aws", "boto3", "botocore", "psycopg", "connectorx", "polars", "pyarrow", "sqlalchemy"}

    assert loaded_by(", ".join(dotted(name))) & heavy == set()


@pytest.mark.parametrize("name", NO_DAGSTER)
def test_no_package_below_defs_loads_dagster(name):
    assert loaded_by(", ".join(dotted(name))) & {"dagster", "dagster_shared"} == set()


def test_importing_the_package_loads_no_library():
    """Every Dagster process imports it. The libraries of `pg_bronze.scan` are loaded at its first use."""
    assert loaded_by("pg_bronze") & {"polars", "boto3", "botocore", "pydantic", "dagster"} == set()
    assert "polars" not in loaded_by("pg_bronze; pg_bronze.scan")


def loaded_by(module: str) -> set[str]:
    """Return the top-level packages that a new Python process has loaded after importing the module."""
    code = f"import sys; import {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True).stdout.split()
    )


def test_only_the_settings_and_the_demo_read_the_environment():
    """A variable that is read elsewhere is not documented, and a test cannot pass another value."""
    found = [
        f"{path.relative_to(TOP)}:{node.lineno}"
        for path in modules()
        if top_name(path) not in READS_THE_ENVIRONMENT
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]

    assert found == []


def test_the_core_reads_no_clock():
    """The time is an argument, so that a test can choose it."""
    clocks = (
        "time.time",
        "time.monotonic",
        "time.sleep",
        "datetime.now",
        "datetime.today",
        "date.today",
        "perf_counter",
    )
    found = [
        f"{path.relative_to(TOP)}:{node.lineno}"
        for path in modules("core", "scheduling")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(clocks)
    ]

    assert found == []


def test_definitions_do_not_postpone_their_annotations():
    """Dagster reads annotations at run time, and does not find config classes in texts."""
    found = [
        str(path.relative_to(TOP))
        for path in modules(*DAGSTER)
        for node in tree(path).body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]

    assert found == []


def test_every_library_that_is_imported_is_a_dependency():
    """A library that only another one requires may be missing after the next release of that other one."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    runtime = declared(project["dependencies"])
    demo = runtime | declared(project["optional-dependencies"]["demo"])
    owners = packages_distributions()
    missing = {
        f"{path.relative_to(TOP)}: {name}"
        for path in modules()
        for name in imported(tree(path)) - sys.stdlib_module_names - {"pg_bronze"}
        if not {RELEASED_WITH.get(owner, canonicalize_name(owner)) for owner in owners.get(name, [])}
        & (demo if top_name(path) == "demo" else runtime)
    }

    assert missing == set()


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported(module: ast.Module) -> set[str]:
    nodes = list(ast.walk(module))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in plain | named}
