"""README.md is short, and its Spanish summary has the same commands."""

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
SPANISH = TOP / "docs/es/README.md"


def commands(page: Path) -> list[str]:
    """Return the lines of the shell blocks without their comments."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"))
    return [line for block in blocks for text in block.splitlines() if (line := re.sub(r"(^|\s+)#.*", "", text))]


def test_the_readme_has_at_most_120_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_spanish_summary_has_the_commands_of_the_readme_in_the_same_order():
    """A command that was changed in one of them only would fail for the readers of the other."""
    assert commands(SPANISH) == commands(README)
    assert len(commands(README)) > 8
    assert inline(SPANISH) <= inline(README)


def inline(page: Path) -> set[str]:
    return set(re.findall(r"`((?:\.venv/bin/|make )[^`]+)`", page.read_text(encoding="utf-8")))
