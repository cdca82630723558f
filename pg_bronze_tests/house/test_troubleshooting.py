"""docs/troubleshooting.md: each quoted message is one that the source of pg_bronze contains."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
GAP = "…"


def quoted() -> list[str]:
    """Return the fragments in the first column of the page's tables."""
    rows = re.findall(r"(?m)^\| (`.+?) \| ", (TOP / "docs/troubleshooting.md").read_text(encoding="utf-8"))
    return [fragment for row in rows for fragment in re.findall(r"`([^`]+)`", row)]


def texts() -> Iterator[str]:
    """Yield every text in the source in one line, with a gap for each placeholder."""
    for path in (TOP / "pg_bronze").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                yield normal("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield normal(node.value)


def normal(text: str) -> str:
    return " ".join(re.sub(r"\{\w+\}|%s|%d", GAP, text).split())


@pytest.fixture(scope="module")
def source() -> str:
    return "\n".join(texts())


@pytest.mark.parametrize("fragment", quoted())
def test_a_quoted_message_occurs_in_the_source(source, fragment):
    """A reworded message could no longer be found on the page."""
    pattern = ".*?".join(re.escape(part.strip()) for part in fragment.split(GAP))

    assert re.search(pattern, source), f"no message of pg_bronze contains {fragment!r}"


def test_the_page_quotes_messages():
    assert len(quoted()) > 80
