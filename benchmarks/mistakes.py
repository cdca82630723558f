"""Mistakes that would lose or double rows or hide an error, each planted for a moment; the tests named have to go red.

    python benchmarks/mistakes.py                    # all of them, two at a time
    python benchmarks/mistakes.py "horizon"          # those with this in their title

A mistake is a change of the text of one file, made in a copy of the project. What is found says that the tests can see
it, not that there are no others.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
AT_ONCE = 2
_COPIED = ("pg_bronze", "pg_bronze_tests", "benchmarks", "docs", "deploy", "requirements", ".ci")
_LINKED = (".cache", ".venv")


@dataclass(frozen=True)
class Mistake:
    """``right`` stands once in ``file`` (under ``pg_bronze/``); with ``wrong`` in its place, each of ``tests`` fails.

    A test is ``folder/test_file.py::test_name``, in all its variants or in one of them (``[...]``).
    """

    title: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path("pg_bronze") / self.file


COMMIT: list[Mistake] = [
    Mistake(
        "the LIST after having a found claim in hand is left out",
        "commit.py",
        "if not self.newer(last_key):\n                return Recovered(",
        "if True:\n                return Recovered(",
        ("servers/test_commit.py::test_a_claim_finished_between_two_looks_is_not_done_again",),
    ),
]
IDENTITY: list[Mistake] = []
HISTORY: list[Mistake] = []
FAULTS: list[Mistake] = []
READING: list[Mistake] = []
GATES_AND_RETRIES: list[Mistake] = []
ACCESS: list[Mistake] = []
TAKEOVER: list[Mistake] = []
MISTAKES = [*COMMIT, *IDENTITY, *HISTORY, *FAULTS, *READING, *GATES_AND_RETRIES, *ACCESS, *TAKEOVER]


@dataclass(frozen=True)
class Outcome:
    """``unseen``: the tests that stayed green or never ran; empty if the mistake was found."""

    mistake: Mistake
    unseen: tuple[str, ...]

    @property
    def line(self) -> str:
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in self.mistake.tests)
        return f"| {self.mistake.title} | {'found' if not self.unseen else '**not found**'} | {tests} |"


def copy_project(folder: Path) -> None:
    """A copy of what the tests need; the servers and the installed packages are shared."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)


def plant(mistake: Mistake, project: Path) -> Outcome:
    """Run the tests with the mistake in ``project``, which is a copy, and take it out again."""
    file, report = project / mistake.path, project / "junit.xml"
    text = file.read_text(encoding="utf-8")
    if text.count(mistake.right) != 1:
        raise ValueError(
            f"{mistake.title}: the text stands {text.count(mistake.right)} times in {mistake.path}, not once"
        )
    file.write_text(text.replace(mistake.right, mistake.wrong), encoding="utf-8")
    report.unlink(missing_ok=True)
    # Two texts of one length within a second would share their bytecode.
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}",
             *(f"pg_bronze_tests/{test}" for test in mistake.tests)],
            cwd=project, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        file.write_text(text, encoding="utf-8")
    red = set(_red(report)) if report.exists() else set()
    return Outcome(mistake, tuple(test for test in mistake.tests if not _seen(test, red)))


def _red(report: Path) -> Iterator[str]:
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if any(child.tag == "failure" for child in case):
            yield case.get("name", "")


def _seen(test: str, red: set[str]) -> bool:
    name = test.rpartition("::")[2]
    return name in red or any(found.partition("[")[0] == name for found in red)


def plant_all(mistakes: list[Mistake]) -> Iterator[Outcome]:
    """Plant each by itself, ``AT_ONCE`` at a time, and give the outcomes in order."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        projects: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(AT_ONCE):
            project = Path(folder) / str(number)
            project.mkdir()
            copy_project(project)
            projects.put(project)

        def one(mistake: Mistake) -> Outcome:
            project = projects.get()
            try:
                return plant(mistake, project)
            finally:
                projects.put(project)

        yield from pool.map(one, mistakes)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", default="", help="of a title; all without")
    given = parser.parse_args()
    unseen = 0
    for outcome in plant_all([mistake for mistake in MISTAKES if given.part in mistake.title]):
        print(outcome.line, flush=True)
        unseen += bool(outcome.unseen)
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
