"""What a `.env` file may contain, and how its faulty lines are reported."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pg_bronze.settings.env_file import read_env_file
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.settings.conftest import MINIMUM, error_of


@pytest.fixture
def env(tmp_path):
    return tmp_path / ".env"


def test_a_missing_file_is_not_an_error(env):
    assert read_env_file(env) == ({}, [])


@pytest.mark.parametrize(
    "written, password",
    [
        ("a${HOME}b$c", "a${HOME}b$c"),
        ("'a$b'", "a$b"),
        ("a#b", "a#b"),
        ("'a #b'", "a #b"),
        ("a #b", "a"),
        ("a\"b'c", "a\"b'c"),
        ('"it\'s"', "it's"),
        ("'say \"x\"'", 'say "x"'),
        ("'a\\b'", "a\\b"),
        ("' x '", " x "),
        ("a=b", "a=b"),
        ("contraseña€", "contraseña€"),
        ("'two\nlines'", "two\nlines"),
        ("", ""),
    ],
)
def test_a_password_is_taken_literally(env, written, password):
    """Expanding ${HOME} would change a password into another one, depending on the environment."""
    env.write_text(f"PG_PASS={written}\n", encoding="utf-8")

    assert read_env_file(env) == ({"PG_PASS": password}, [])


def test_exports_comments_byte_order_mark_and_names_of_other_programs_are_accepted(env):
    env.write_bytes(b"\xef\xbb\xbfexport DAGSTER_HOME=x\r\n# a comment\r\n\r\nPGPASSWORD=y\r\nPG_USER=lector\r\n")

    assert read_env_file(env) == ({"DAGSTER_HOME": "x", "PGPASSWORD": "y", "PG_USER": "lector"}, [])
    assert load_settings(MINIMUM, env).pg_user == "lector"


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"PG_DB=cine\nnot a line; hunter2\n", ", line 2: expected NAME=value."),
        (b"PG_DB=cine\n\n\nPG_PASS hunter2\n", ", line 4: expected NAME=value."),
        (b"PG_DB=cine\nPG_PASS hunter2\n", ", line 2: expected NAME=value."),
        (b"PG_DB=cine\nPG_PASS='hunter2\n", ", line 2: expected NAME=value."),
        (b"PG_DB=cine\nPG_PASS='hunter2' x\n", ", line 2: expected NAME=value."),
        (b"PG_DB=cine\n\n  export PG_PASS  # hunter2\n", ", line 3: PG_PASS has no =."),
        (b"PG_PASS=\xff\xfe hunter2\n", " is not valid UTF-8. Save it as UTF-8."),
    ],
)
def test_a_faulty_line_is_reported_without_its_content(env, content, problem, caplog, capfd):
    """python-dotenv skips it: the setting on it would silently keep its default. The line may hold a password."""
    env.write_bytes(content)

    message = error_of(MINIMUM, env)

    assert message == f"{env}{problem}"
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_every_faulty_line_is_reported(env):
    env.write_text("a b\nPG_USER=lector\n= x\nPG_PASS\n'\n")

    values, problems = read_env_file(env)

    assert values == {"PG_USER": "lector"}
    assert [problem.removeprefix(f"{env}, ") for problem in problems] == [
        "line 1: expected NAME=value.",
        "line 3: expected NAME=value.",
        "line 5: expected NAME=value.",
        "line 4: PG_PASS has no =.",
    ]


@pytest.mark.parametrize("name", ["dotenv.main", "dotenv", ""])
def test_a_faulty_line_is_reported_at_any_log_level(env, name):
    """A program that silences its loggers would otherwise ignore the settings on faulty lines."""
    env.write_text("not a line\n")
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        assert len(read_env_file(env)[1]) == 1
    finally:
        logger.setLevel(level)


@pytest.fixture
def frequent_thread_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_threads_do_not_report_the_faulty_lines_of_each_other(tmp_path):
    """The sensors of one process load the settings in several threads."""
    files = [tmp_path / f"{n}.env" for n in range(8)]
    for n, file in enumerate(files):
        file.write_text("X=1\n" * n + "not a line\n")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_env_file, files * 20))

    assert [problems for _, problems in found] == [
        [f"{file}, line {n + 1}: expected NAME=value."] for n, file in enumerate(files)
    ] * 20


def test_the_logger_is_left_as_it_was_even_if_disabled(env, monkeypatch):
    env.write_text("not a line\n")
    logger = logging.getLogger("dotenv.main")
    monkeypatch.setattr(logger, "disabled", True)
    before = (logger.level, logger.disabled, list(logger.filters))

    assert len(read_env_file(env)[1]) == 1

    assert (logger.level, logger.disabled, logger.filters) == before


def test_a_folder_in_place_of_the_file_is_reported(tmp_path):
    assert error_of(MINIMUM, tmp_path) == f"{tmp_path} cannot be read: Is a directory."


def test_a_file_without_read_permission_is_reported(env, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)

    assert error_of(MINIMUM, env) == f"{env} cannot be read: Permission denied."
