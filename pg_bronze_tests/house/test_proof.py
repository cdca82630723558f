"""The report of the proof keeps what was not run again, and says of every part when it was run."""

from benchmarks.proof import PARTS, REPORT, Section, report


def standing(part: str, page: str) -> str:
    return page.partition(f"## {PARTS[part]}\n")[2].partition("\n## ")[0].strip()


def test_a_part_that_was_not_run_stays_as_it_stood():
    before = REPORT.read_text(encoding="utf-8")
    loads = Section(found="2026-01-02 in 3 minutes", lines=["| a load | 1 |"])

    after = report({"loads": loads}, before)

    assert standing("loads", after).startswith("2026-01-02 in 3 minutes.")
    assert standing("loads", after).endswith("| a load | 1 |")
    others = set(PARTS) - {"loads"}
    assert {part: standing(part, after) for part in others} == {part: standing(part, before) for part in others}


def test_a_part_that_never_was_run_says_so():
    assert {standing(part, report({}, "")) for part in PARTS} == {"not run"}
