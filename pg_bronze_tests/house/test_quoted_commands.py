"""The commands, variables and targets that pages and messages quote: all of them exist. Nothing is executed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from pg_bronze.cli.app import app
from pg_bronze.settings.model import FIELDS
from pg_bronze_tests.house.test_troubleshooting import texts

TOP = Path(__file__).parents[2]
PAGES = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    *sorted((TOP / "docs").rglob("*.md")),
    *sorted(path for path in (TOP / "deploy").rglob("*") if path.suffix in (".md", ".yml", ".yaml")),
]
GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (TOP / "Makefile").read_text(encoding="utf-8")))
# Typer exports none of the errors but this one. Its base is the class of all wrong arguments.
WRONG_ARGUMENTS = typer.BadParameter.__base__
# Of the demo and the tests; no setting has these names.
NO_SETTINGS = {"PG_BRONZE_PG_BINDIR", "PG_BRONZE_MINIO_BIN"}

FENCE = re.compile(r"(?ms)^[ >]*```\w*\n(.*?)^[ >]*```$")
ENDS = {"|", ";", "&&", "||", "&", ">", ">>", "2>", "<"}


def code(text: str) -> Iterator[str]:
    """Yield each line of each fenced block without its comment, and each code span."""
    for block in FENCE.findall(text):
        yield from (re.sub(r"(^|\s)#.*", "", line) for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for block in FENCE.findall(text):  # the examples in docs/commands.md
        yield from re.findall(r"`([^`\n]+)`", block)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words after each ``pg-bronze``, without those of the next command in the line."""
    for line in code(text):
        if line.startswith("Usage:"):
            continue
        for match in re.finditer(r"(?<![\w.-])pg-bronze +(?=[\w-])", line):
            words = shlex.split(re.sub("[;)]|, ", " ; ", line[match.end() :].partition("`")[0]))
            ended = next((place for place, word in enumerate(words) if word in ENDS), len(words))
            yield words[:ended]


def problem(words: list[str]) -> str | None:
    """Return what is wrong with the words after ``pg-bronze``; None if the command would begin.

    The name of a command alone stands for the command, and ``…`` for any argument.
    """
    name, *arguments = words
    command = GROUP if name.startswith("-") else COMMANDS.get(name)
    if command is None:
        return f"there is no command {name}"
    options = {option for item in command.params for option in (*item.opts, *item.secondary_opts)} | {"--help"}
    if unknown := [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]:
        return f"{name}: there is no option {unknown[0]}"
    if not arguments or "…" in " ".join(arguments) or "--help" in words:
        return None
    try:
        command.make_context(name, list(arguments))
    except WRONG_ARGUMENTS as error:
        return f"{' '.join(words)}: {error.format_message()}"
    return None


def name_of(page: Path) -> str:
    return str(page.relative_to(TOP))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_quoted_command_exists_with_its_options(page: Path):
    found = map(problem, commands(page.read_text(encoding="utf-8")))

    assert [text for text in found if text] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_quoted_variable_is_a_setting(page: Path):
    names = set(re.findall(r"\b(?:PG|MINIO)_[A-Z0-9_]+", page.read_text(encoding="utf-8"))) - NO_SETTINGS

    assert [name for name in names if name not in FIELDS and not (name.endswith("_") and begins_any(name))] == []


def test_every_command_in_a_message_exists_with_its_options():
    """It is the remedy, and often all that a person reads."""
    found = [words for text in texts() if "pg-bronze" in text for words in commands(text)]

    assert [text for text in map(problem, found) if text] == []
    assert len(found) > 50


def begins_any(prefix: str) -> bool:
    return any(field.startswith(prefix) for field in FIELDS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_quoted_target_is_in_the_makefile(page: Path):
    quoted = {
        match[1] for line in code(page.read_text(encoding="utf-8")) if (match := re.match(r"make ([a-z-]+)", line))
    }

    assert quoted <= TARGETS


def test_the_pages_quote_commands():
    """A pattern that finds nothing would pass."""
    found = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]

    assert {words[0] for words in found} >= set(COMMANDS)
    assert sum(len(words) > 1 for words in found) > 30


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("`pg-bronze tock`", "there is no command tock"),
        ("```sh\n.venv/bin/pg-bronze tick --jsn   # a document\n```", "no option --jsn"),
        ("`pg-bronze reset --yes`", "TABLE"),
        ("`pg-bronze reset movie person`", "person"),
        ("`pg-bronze verify yesterday`", "yesterday"),
        ("`pg-bronze monitor --port 99999`", "99999"),
        ("```sh\n(. .pg_bronze/env.sh; pg-bronze scan movie --lates)\n```", "no option --lates"),
    ],
)
def test_a_wrong_command_is_found(text: str, wrong: str):
    (words,) = commands(text)

    assert wrong in (problem(words) or "")


@pytest.mark.parametrize(
    "text",
    [
        "`pg-bronze reset`",
        "`pg-bronze monitor --port …`",
        "`pg-bronze demo --no-writer`",
        "`pg-bronze --version`",
        "`pg-bronze plan --json | jq '.tables[] | select(.due)'`",
        "```sh\n(. .pg_bronze/env.sh; .venv/bin/pg-bronze scan movie --latest)\n```",
    ],
)
def test_a_right_command_is_accepted(text: str):
    (words,) = commands(text)

    assert problem(words) is None
