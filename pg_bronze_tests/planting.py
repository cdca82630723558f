"""Planted faults: one line of the product is changed for one test process, and the named test has to fail.

    python -m pg_bronze_tests.planting              # all, three at a time
    python -m pg_bronze_tests.planting horizon      # those with this word in their title

The faults are listed beside the tests of each package, in ``planted.py``. They are faults of the protocol: order of
steps, guards, claims, horizons. That a test notices them does not mean that there are no others. For the pure core,
`make mutants` changes every line (CONTRIBUTING.md).
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIABLE = "PG_BRONZE_TEST_PLANT"
PACKAGES = ("core", "scheduling", "postgres", "lake", "sync", "defs")
AT_ONCE = 3
TIMEOUT_S = 300


@dataclass(frozen=True)
class Fault:
    """One changed line.

    Attributes:
        title: What is wrong with it, in words.
        file: The file below ``pg_bronze/``.
        line: The right line without its indentation; it occurs once in the file.
        wrong: What replaces it.
        test: The test below ``pg_bronze_tests/`` that must fail, as ``sync/test_x.py::test_y``.
    """

    title: str
    file: str
    line: str
    wrong: str
    test: str

    @property
    def module(self) -> str:
        """The dotted name of the changed module."""
        return "pg_bronze." + self.file.removesuffix(".py").replace("/", ".")

    @property
    def source(self) -> str:
        """The changed source.

        Raises:
            ValueError: The line does not occur exactly once.
        """
        lines = (ROOT / "pg_bronze" / self.file).read_text(encoding="utf-8").splitlines()
        places = [number for number, text in enumerate(lines) if text.strip() == self.line]
        if len(places) != 1:
            raise ValueError(f"{self.title}: the line occurs {len(places)} times in {self.file}: {self.line}")
        text = lines[places[0]]
        lines[places[0]] = text[: len(text) - len(text.lstrip())] + self.wrong
        return "\n".join(lines) + "\n"


def all_faults() -> dict[str, Fault]:
    """Return every fault by its name, such as ``sync/3``."""
    return {
        f"{package}/{number}": fault
        for package in PACKAGES
        for number, fault in enumerate(importlib.import_module(f"pg_bronze_tests.{package}.planted").FAULTS)
    }


class _Loader(importlib.abc.Loader):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self._fault.source, str(ROOT / "pg_bronze" / self._fault.file), "exec"), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        file = ROOT / "pg_bronze" / self._fault.file
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(self._fault))


def install() -> None:
    """Plant the fault that the environment names, if it names one. Call it before the product is imported."""
    if name := os.environ.get(VARIABLE):
        sys.meta_path.insert(0, _Finder(all_faults()[name]))


@dataclass(frozen=True)
class Outcome:
    """Whether the test noticed a fault, and if not, what happened instead."""

    title: str
    noticed: bool
    problem: str = ""


def run(name: str, fault: Fault) -> Outcome:
    """Run the test of one fault in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "--repetitions", f"--junitxml={report}"]
        command += ["-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*command, f"pg_bronze_tests/{fault.test}"], cwd=ROOT, env={**os.environ, VARIABLE: name},
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Outcome(fault.title, True, "the test did not end")
        if done.returncode == 0:
            return Outcome(fault.title, False, "the test passed")
        failed = report.exists() and list(ElementTree.parse(report).iter("failure"))
        if done.returncode != 1 or not failed:
            return Outcome(fault.title, False, f"no test failed (exit code {done.returncode}):\n{done.stdout[-1500:]}")
    return Outcome(fault.title, True)


def outcomes(words: Sequence[str] = ()) -> Iterator[Outcome]:
    """Run the faults whose titles contain all words, three at a time."""
    chosen = {name: fault for name, fault in all_faults().items() if all(word in fault.title for word in words)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(run, chosen.keys(), chosen.values())


def main() -> int:
    """Print each outcome; return 1 if a fault was not noticed, 2 if no title matches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="words that the titles contain")
    started, found = time.monotonic(), []
    for outcome in outcomes(parser.parse_args().words):
        found.append(outcome)
        print("noticed" if outcome.noticed else "NOT NOTICED", outcome.title, outcome.problem, flush=True)
    missed = [outcome for outcome in found if not outcome.noticed]
    print(f"{len(found)} faults, {len(missed)} not noticed, in {time.monotonic() - started:.0f} s")
    return 2 if not found else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
