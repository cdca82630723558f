"""The wheel of this checkout, and an environment into which it is installed."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ["pyproject.toml", "README.md", "LICENSE", "pg_bronze"]


def build_wheel(folder: Path) -> Path:
    """Build the wheel in an empty folder, and return its path."""
    # From a copy: setuptools would otherwise leave a build folder in the checkout, and pack what an older one contains.
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    _pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", folder)
    (built,) = (folder / "dist").iterdir()
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment, and return the folder of its commands.

    The environment sees the libraries of the tests, but not their pg_bronze.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    _pip("--python", folder / "bin/python", "install", "--no-index", "--no-deps", wheel)
    (packages,) = folder.glob("lib/*/site-packages")
    # A .pth file of a folder that another .pth file names is not read, so the editable installation stays out.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)
