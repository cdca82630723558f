"""Files: configuration files that may be missing, and paths that may begin with the home directory."""

from pathlib import Path

from pg_bronze.errors import SettingsError


def read_text(file: Path, name: str) -> str | None:
    """Return the text of a UTF-8 file, or None if there is no such file; an error calls the file ``name``."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SettingsError(f"{name} is not valid UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}.") from error


def absolute(path: str, home: str | None) -> Path:
    """Return the absolute path; a leading ``~`` is replaced by ``home``, the home directory if there is one."""
    if home and (path == "~" or path.startswith("~/")):
        return Path(home, path[2:])
    return Path(path).absolute()
