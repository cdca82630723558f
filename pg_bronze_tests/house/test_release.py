"""`make release`: what it refuses, and that two builds of one commit are the same."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pg_bronze

TOP = Path(__file__).parents[2]
PARTS = [".ci/release.py", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "pg_bronze", "pyproject.toml"]
VERSION = "9.8.7"


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *author, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "x")
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache/passed").write_text(git(folder, "rev-parse", "HEAD"))


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that can be released: without the history, because a copy of the tree without git has to pass too."""
    for name in ("AUTHOR", "COMMITTER"):  # the tag needs a person, too
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    for name in PARTS:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / name, folder / name)
    edit(folder / "pg_bronze/__init__.py", f'"{pg_bronze.__version__}"', f'"{VERSION}"')
    edit(folder / "CHANGELOG.md", "## Unreleased\n", f"## Unreleased\n\n## {VERSION} - 2026-12-31\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def release(folder: Path, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    """Run the script; the check of the metadata needs a program that is not installed for tests."""
    command = [sys.executable, ".ci/release.py", version, "--twine", shutil.which("true") or "true"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_release_that_must_not_be_made_is_refused_with_the_reason(checkout: Path):
    """A tag cannot be taken back once somebody has it."""

    def refused(reason: str, version: str = VERSION) -> None:
        done = release(checkout, version)
        assert (done.returncode, bool(re.search(reason, done.stderr))) == (1, True), done.stderr
        assert not (checkout / "dist").exists()

    refused(r"'' is not a version", "")
    refused(r"pg_bronze/__init__\.py has version 9\.8\.7\. Set __version__ to 9\.8\.8", "9.8.8")
    (checkout / "new").touch()
    refused("The tree has changes that are not committed")
    commit(checkout)
    (checkout / ".cache/passed").write_text("0" * 40)
    refused("The tests of commit [0-9a-f]{12} have not passed here")
    git(checkout, "tag", f"v{VERSION}")
    refused(f"The tag v{VERSION} exists")
    git(checkout, "tag", "--delete", f"v{VERSION}")
    for line in (f"## {VERSION}", f"## {VERSION} - 2026-02-30", f"## {VERSION}1 - 2026-12-31"):
        edit(checkout / "CHANGELOG.md", f"## {VERSION} - 2026-12-31", line)
        commit(checkout)
        refused(f"CHANGELOG.md has no line `## {VERSION} - YYYY-MM-DD`")
        edit(checkout / "CHANGELOG.md", line, f"## {VERSION} - 2026-12-31")
    assert git(checkout, "tag") == ""


def test_a_release_has_the_same_files_twice_their_checksums_and_a_tag(checkout: Path):
    """Whoever builds the tag again has to get what was published. What .gitignore excludes must not be packed."""
    (checkout / "build/lib/pg_bronze").mkdir(parents=True)
    (checkout / "build/lib/pg_bronze/left_over.py").touch()

    done = release(checkout)  # builds twice, and ends with 1 if the files differ

    assert done.returncode == 0, done.stderr
    assert git(checkout, "cat-file", "-t", f"v{VERSION}") == "tag\n"
    assert f"git push origin HEAD v{VERSION}" in done.stdout
    sums = (checkout / "dist/SHA256SUMS").read_text()
    files = {path.name: path for path in (checkout / "dist").iterdir()}
    wheel, sdist = f"pg_bronze-{VERSION}-py3-none-any.whl", f"pg_bronze-{VERSION}.tar.gz"
    assert set(files) == {wheel, sdist, "SHA256SUMS"}
    listed = dict(line.split()[::-1] for line in sums.splitlines())
    assert listed == {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in (wheel, sdist)}
    package = {str(path.relative_to(checkout)) for path in (checkout / "pg_bronze").rglob("*") if path.is_file()}
    with zipfile.ZipFile(files[wheel]) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == package
    with tarfile.open(files[sdist]) as archive:
        assert {f"pg_bronze-{VERSION}/{name}" for name in package} <= set(archive.getnames())
        assert {member.uid for member in archive} == {0}
