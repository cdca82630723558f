"""Makes a release: checks the tree, builds wheel and sdist twice, writes their checksums, and makes the tag.

    make release VERSION=0.2.0

The version is that of ``pg_bronze/__init__.py``, and CHANGELOG.md has it with a date. Nothing is published: the
last lines that it prints are the commands for that.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import date
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# `.ci/run` writes the commit whose tests have passed.
PASSED = ".cache/passed"


class Refused(Exception):
    """A release that must not be made; the message names the reason and what to do."""


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=TOP, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def check(version: str) -> None:
    """Raise Refused unless the commit that is checked out is the release of this version, and its tests have passed."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise Refused(f"{version!r} is not a version such as 0.2.0 or 0.2.0rc1.")
    if git("status", "--porcelain"):
        raise Refused("The tree has changes that are not committed. Commit or remove them: `git status` lists them.")
    found = re.search(r'(?m)^__version__ = "(.*)"$', (TOP / "pg_bronze/__init__.py").read_text(encoding="utf-8"))
    if found is None or found[1] != version:
        raise Refused(f"pg_bronze/__init__.py has version {found and found[1]}. Set __version__ to {version}.")
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.search(rf"(?m)^## \[?{re.escape(version)}\]? - (\d\d\d\d-\d\d-\d\d)$", changelog)
    try:
        date.fromisoformat(dated[1] if dated else "")
    except ValueError:
        raise Refused(f"CHANGELOG.md has no line `## {version} - YYYY-MM-DD`. Put it below `## Unreleased`.") from None
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"The tag v{version} exists. Choose another version: a release is never changed.")
    commit, passed = git("rev-parse", "HEAD"), TOP / PASSED
    if not passed.exists() or passed.read_text(encoding="utf-8").strip() != commit:
        raise Refused(f"The tests of commit {commit[:12]} have not passed here. Run .ci/run, which writes {PASSED}.")


def build(folder: Path, epoch: str) -> list[Path]:
    """Build the sdist, and the wheel from it, of the files of the commit; return both."""
    source, out = folder / "source", folder / "dist"
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=TOP, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(source, filter="data")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "build", "--quiet", "--offline", "--no-build-isolation", "--no-create-gitignore", "--no-build-logs",
         "--python", sys.executable, "--out-dir", out, source],
        check=True, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}, umask=0o022,
    )  # fmt: skip
    for sdist in out.glob("*.tar.gz"):
        repack(sdist, int(epoch))
    return sorted(out.iterdir())


def repack(sdist: Path, epoch: int) -> None:
    """Write a sdist again without what differs between two builds; setuptools has the times and owners of its files."""
    body = io.BytesIO()
    with (
        tarfile.open(sdist) as built,
        gzip.GzipFile("", "wb", fileobj=body, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for member in sorted(built.getmembers(), key=lambda member: member.name):
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.size, entry.mtime = member.type, member.size, epoch
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            archive.addfile(entry, built.extractfile(member))
    sdist.write_bytes(body.getvalue())


def digests(files: list[Path]) -> str:
    """Return the lines of SHA256SUMS."""
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def build_twice(scratch: Path) -> list[Path]:
    """Build twice in two folders, and return the files of the first.

    Raises:
        Refused: The two are not the same bytes.
    """
    epoch = git("log", "-1", "--format=%ct")
    first, second = (build(scratch / name, epoch) for name in ("first", "other folder"))
    if digests(first) != digests(second):
        raise Refused(f"Two builds of one commit differ:\n{digests(first)}{digests(second)}Find what is not fixed.")
    return first


def release(version: str, twine: str) -> None:
    """Check, build and tag; print what remains to be done."""
    check(version)
    dist = TOP / "dist"
    with tempfile.TemporaryDirectory(prefix="pg_bronze-release-") as folder:
        files = build_twice(Path(folder))
        subprocess.run([twine, "check", "--strict", *files], check=True)
        shutil.rmtree(dist, ignore_errors=True)
        dist.mkdir()
        for file in files:
            shutil.copy(file, dist)
        sums = digests(files)
        (dist / "SHA256SUMS").write_text(sums, encoding="utf-8")
    git("tag", "--annotate", f"v{version}", "--message", f"pg_bronze {version}")
    print(f"dist/ has, and SHA256SUMS lists:\n{sums}The tag is v{version}. To publish:")
    print(f"  git push origin HEAD v{version}")
    print(f"  {twine} upload dist/*.whl dist/*.tar.gz")
    print(f"  docker build --file deploy/Dockerfile --tag pg_bronze:{version} .")


def main() -> int:
    """Make the release of the version in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--twine", default=".cache/release/bin/twine", help="the program that checks the metadata")
    arguments = parser.parse_args()
    try:
        release(arguments.version, arguments.twine)
    except Refused as reason:
        print(f"release: {reason} No tag was made.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
