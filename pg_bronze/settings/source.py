"""Source database: how to connect to it and to the control table, for each of the two readers."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from pg_bronze.settings.choices import ReaderName, SslMode
from pg_bronze.settings.section import Section

_KEEPALIVE_IDLE_S = 30
_TCP_USER_TIMEOUT_S = 60
# libpq would take these from PGHOSTADDR, PGOPTIONS and others, and reach another server than PG_HOST, or have other
# session settings than connectorx. What else libpq finds outside the settings is compared in ``postgres.login``.
_ROUTE = {"hostaddr": "", "options": "", "target_session_attrs": "any", "load_balance_hosts": "disable"}


class SourceSettings(Section):
    """The source database, the control table, and the reader of the slices."""

    pg_db: str = Field(description="Name of the database to copy.")
    pg_user: str = Field(default="postgres", description="Role to connect as; `SELECT` on the tables is enough.")
    pg_pass: SecretStr = Field(default=SecretStr(""), description="Password of `PG_USER`. Never logged.")
    pg_pass_secret_file: Path | None = Field(
        default=None,
        description="File whose only line is the password, as Docker and Kubernetes mount secrets. It is read for "
        "every connection. Not to be confused with `PG_PASSFILE`, whose lines also contain hosts and users.",
    )
    pg_pass_command: SecretStr | None = Field(
        default=None,
        description="Command that prints the password, such as a [token of AWS IAM](operations.md#credentials). It is "
        "run without a shell, for at most 30 s, again after 5 minutes and after a rejected login. Set one of "
        "`PG_PASS`, `PG_PASS_SECRET_FILE` and `PG_PASS_COMMAND`. Never logged.",
    )
    pg_host: str = Field(
        default="127.0.0.1",
        description="Host name, IP address, or absolute path of a Unix socket directory. Comma-separated list; the "
        "first reachable host is used.",
    )
    pg_port: int = Field(default=5432, ge=1, le=65535, description="Port of every host, 1 to 65535.")
    pg_sslmode: SslMode = Field(
        default="prefer",
        description="`disable`, `prefer`, `require`, `verify-ca` or `verify-full`, as in libpq.",
    )
    pg_sslrootcert: Path | None = Field(
        default=None,
        validate_default=True,
        description="File with the trusted root certificates. Required with `PG_SSLMODE` `verify-ca` and "
        "`verify-full`, optional with `require`.",
    )
    pg_passfile: Path | None = Field(
        default=None,
        description="Password file in the format of libpq's `.pgpass`, readable by its owner only. Not set: "
        "`PGPASSFILE`, otherwise `~/.pgpass`. Password files are ignored if a password is set in another way.",
    )
    pg_control_url: SecretStr | None = Field(
        default=None,
        description="`postgresql://` URL of another database for the control table `etl_control`. Not set: the source "
        "database. `off`: no control table. `PG_PASS_SECRET_FILE` and `PG_PASS_COMMAND` do not apply to it. Never "
        "logged.",
    )
    reader: ReaderName = Field(
        default="auto",
        description="Reader of the slices: `connectorx`, or `copy` (psycopg's `COPY`: the same rows, slower). `auto` "
        "uses `copy` where connectorx cannot be used: `verify-full`, several hosts, `PG_PASSFILE`, a client "
        "certificate or other login that libpq is configured for, or a pooler such as PgBouncer.",
    )
    statement_timeout_s: float = Field(
        default=300.0, ge=1, le=86400, description="Seconds after which one probe or read is canceled, 1 to 86400."
    )
    connect_timeout_s: int = Field(
        default=5, ge=2, le=600, description="Whole seconds to wait for a connection to each host, 2 to 600."
    )
    max_connections: int | None = Field(
        default=None,
        ge=4,
        le=1000,
        description="Most connections to the source database at once, 4 to 1000: one for the sensor, one for the "
        "catalog, two for each run. A later tick copies the tables of a run that gets none. Not set: no limit.",
    )
    load_parallel: int = Field(
        default=1,
        ge=1,
        le=8,
        description="How many block ranges of a first load are read at once, each over a connection of its own, 1 to "
        "8. Helps if the network is slow. `PG_BRONZE_MAX_CONNECTIONS` may allow fewer.",
    )

    @field_validator("pg_pass_secret_file", "pg_pass_command")
    @classmethod
    def _validate_one_password(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            for name in ("pg_pass", "pg_pass_secret_file"):
                if info.data.get(name) and name != info.field_name:
                    raise ValueError(f"{name.upper()} is set too, and both are the password. Remove one of them")
        return value

    @field_validator("pg_pass_command")
    @classmethod
    def _validate_command(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            words = None if value is None else shlex.split(value.get_secret_value())
        except ValueError:
            words = []
        if words == []:
            raise ValueError("it must be a program with arguments, quoted as in a shell")
        return value

    @field_validator("pg_host")
    @classmethod
    def _validate_hosts(cls, value: str) -> str:
        return ",".join(_host(host.strip()) for host in value.split(","))

    @field_validator("pg_db")
    @classmethod
    def _validate_database(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("it must be a database name, not a URL; set PG_HOST, PG_PORT and PG_USER separately")
        return value

    @field_validator("pg_sslrootcert")
    @classmethod
    def _validate_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        mode = info.data.get("pg_sslmode")
        if value is None and mode in ("verify-ca", "verify-full"):
            raise ValueError(f"PG_SSLMODE {mode} requires a file with the trusted root certificates")
        if value is not None and mode in ("disable", "prefer"):
            raise ValueError(
                f"PG_SSLMODE {mode} does not verify certificates; set PG_SSLMODE to verify-full or verify-ca"
            )
        return value

    @field_validator("reader")
    @classmethod
    def _validate_reader(cls, value: ReaderName, info: ValidationInfo) -> ReaderName:
        if value == "connectorx" and (limitation := _connectorx_limitation(info.data)):
            raise ValueError(f"connectorx {limitation}; set it to auto or copy")
        return value

    @field_validator("pg_control_url")
    @classmethod
    def _validate_control_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or value.get_secret_value().lower() == "off":
            return value and SecretStr("off")
        if not _is_database_url(value.get_secret_value()):
            raise ValueError(
                "it must be off, or postgresql://user:password@host:port/database with special characters "
                "percent-encoded"
            )
        return value

    @property
    def control_mirror(self) -> Literal["source", "url", "off"]:
        """Where the control table is stored: in the source database, at ``PG_CONTROL_URL``, or nowhere."""
        if self.pg_control_url is None:
            return "source"
        return "off" if self.pg_control_url.get_secret_value() == "off" else "url"

    @property
    def run_slots(self) -> int | None:
        """How many runs may have connections to the source at once, at least 1; None without a limit."""
        return None if self.max_connections is None else (self.max_connections - 2) // 2

    def source_conninfo(self, application_name: str) -> dict[str, Any]:
        """Return the keyword arguments for ``psycopg.connect``. They contain the password: never log them."""
        info: dict[str, Any] = {
            "host": self.pg_host,
            "port": self.pg_port,
            "dbname": self.pg_db,
            "user": self.pg_user,
            # Passed even if empty: otherwise libpq uses PGPASSWORD, which is not a setting. Password files still apply.
            "password": self.pg_pass.get_secret_value(),
            "sslmode": self.pg_sslmode,
            **self._session(application_name),
            **_ROUTE,
        }
        files = {"sslrootcert": self.pg_sslrootcert, "passfile": self.pg_passfile}
        return info | {name: str(file) for name, file in files.items() if file}

    def control_conninfo(self, application_name: str) -> dict[str, Any] | None:
        """Return psycopg's keyword arguments for the control table's database, None if it is off. Never log them."""
        if self.control_mirror == "off":
            return None
        if self.pg_control_url is None:
            return self.source_conninfo(application_name)
        url = self.pg_control_url.get_secret_value()
        chosen = parse_qs(urlsplit(url).query, keep_blank_values=True)
        route = {name: value for name, value in _ROUTE.items() if name not in chosen}
        return {"conninfo": url, **self._session(application_name), **route}

    @property
    def connectorx_limitation(self) -> str | None:
        """What connectorx does not support of these settings, as a predicate; None if it supports them."""
        return _connectorx_limitation(vars(self))

    def source_url(self) -> str | None:
        """Return the URL for connectorx, or None if the settings require the other reader.

        The URL contains the password: never log it, and never quote it in an error.
        """
        if self.reader == "copy" or self.connectorx_limitation:
            return None
        # connectorx has no verify-ca: require with a root certificate checks the same. It rejects client_encoding.
        options = {
            "sslmode": "require" if self.pg_sslmode == "verify-ca" else self.pg_sslmode,
            **({"sslrootcert": str(self.pg_sslrootcert)} if self.pg_sslrootcert else {}),
            "connect_timeout": self.connect_timeout_s,
            "keepalives": 1,
            "keepalives_idle": _KEEPALIVE_IDLE_S,
            # Seconds here, milliseconds in libpq.
            "tcp_user_timeout": _TCP_USER_TIMEOUT_S,
        }
        password = self.pg_pass.get_secret_value()
        login = quote(self.pg_user, safe="") + (":" + quote(password, safe="") if password else "")
        host = f"[{self.pg_host}]" if ":" in self.pg_host else quote(self.pg_host, safe="")
        query = urlencode(options, quote_via=quote, safe="")
        return f"postgresql://{login}@{host}:{self.pg_port}/{quote(self.pg_db, safe='')}?{query}"

    def _session(self, application_name: str) -> dict[str, Any]:
        return {
            "application_name": application_name,
            "client_encoding": "utf8",
            "connect_timeout": self.connect_timeout_s,
            "keepalives": 1,
            "keepalives_idle": _KEEPALIVE_IDLE_S,
            "tcp_user_timeout": _TCP_USER_TIMEOUT_S * 1000,
        }


def _host(value: str) -> str:
    if value.startswith("/"):
        return value
    host = value.removeprefix("[").removesuffix("]")
    if not host or re.search(r"""[\s/@\\\[\]{}<>"']""", host) or host.count(":") == 1:
        raise ValueError("it must be a list of hosts only; set PG_PORT, PG_USER and PG_DB separately")
    return host


def _is_database_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises if an unencoded character of the password ends the host early)
    except ValueError:
        return False
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.path.strip("/"):
        return False
    return not re.search(r"%(?![0-9A-Fa-f]{2})|\s", url)


def _connectorx_limitation(values: Mapping[str, Any]) -> str | None:
    """Return what connectorx does not support of the settings, as a predicate, or None if it supports them."""
    if values.get("pg_sslmode") == "verify-full":
        return "does not check host names, and PG_SSLMODE is verify-full"
    if "," in values.get("pg_host", ""):
        return "connects to one host only, and PG_HOST contains several"
    if values.get("pg_passfile") is not None:
        return "does not read password files, and PG_PASSFILE is set"
    return None
