"""The links between the pages: each leads to a file of the project, and to a heading in it if it names one."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("deploy/*/*.md")]


def links(page: Path) -> list[str]:
    targets: list[str] = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub derives from the headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def test_the_readme_links_every_page():
    """A page without a link is not read."""
    linked = {(TOP / link.partition("#")[0]).resolve() for link in links(TOP / "README.md")}

    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_every_picture_of_the_ui_is_on_a_page_and_small():
    """`make screenshots` writes them; large ones would make a clone slow."""
    pictures = {path.resolve() for path in TOP.glob("docs/images/*")}
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}

    assert pictures
    assert pictures <= shown
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []
