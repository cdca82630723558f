"""Settings: what an operator may decide, typed, described and read once.

``load_settings`` reads the environment, ``.env`` and the ``mc`` client's configuration, and only when it is called.
The models are pure: they know no database, no bucket and no Dagster. A field's description is its documentation.
"""

import datetime
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote, urlencode, urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from pg_bronze.settings.choices import Compression, Infinity, LateDates, Nan, ReaderName, SslMode, Takeover, Untracked
from pg_bronze.settings.mc_alias import endpoint, parse_json

PREFIX = "PG_BRONZE_"
_LEVELS: dict[str, tuple[int, int]] = {"zstd": (1, 22), "gzip": (0, 9)}
_KEEPALIVE_IDLE_S = 30
_TCP_USER_TIMEOUT_S = 60


def variable(field: str) -> str:
    return field.upper() if field.startswith(("pg_", "minio_")) else PREFIX + field.upper()


@dataclass(frozen=True)
class S3Connection:
    """How to reach the server that holds the bucket; ``verify`` means its certificate is checked."""

    endpoint_url: str
    access_key: SecretStr
    secret_key: SecretStr
    region: str
    use_ssl: bool
    verify: bool = True


class TableOptions(BaseModel):
    """What may differ for one table; from ``Settings.table_options`` every value is final."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    cursor_column: str | None = Field(
        default=None, min_length=1, description="The column to use; None lets the table's own columns decide."
    )
    slice_rows: int | None = Field(default=None, ge=1, description="Most rows in one slice; None decides by bytes.")
    untracked: Untracked = Field(default="sweep", description="What to do if the table has no cursor column.")
    takeover: Takeover | None = Field(default=None, description="What the original system's traces mean.")
    infinity: Infinity = Field(default="sentinel", description="What ±infinity becomes in dates and timestamps.")
    late_dates: LateDates = Field(default="error", description="What a date or timestamp beyond 262142 becomes.")
    nan: Nan = Field(default="error", description="What NaN in a numeric with a precision becomes.")


class Settings(BaseModel):
    """All settings, validated. Made by ``load_settings``; constructing one reads nothing but its arguments."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        populate_by_name=True,
        alias_generator=variable,
    )

    pg_db: str = Field(description="Database whose tables are copied.")
    pg_user: str = Field(default="postgres", description="User to connect as; `SELECT` on the tables is enough.")
    pg_pass: SecretStr = Field(default=SecretStr(""), description="Its password. Never logged.")
    pg_host: str = Field(
        default="127.0.0.1",
        description="Host name or address, or the absolute folder of a Unix socket. Of several, commas between them, "
        "the first that answers is used.",
    )
    pg_port: int = Field(default=5432, ge=1, le=65535, description="Port, 1 to 65535.")
    pg_sslmode: SslMode = Field(
        default="prefer",
        description="`disable`, `prefer`, `require`, `verify-ca` or `verify-full`, as in libpq.",
    )
    pg_sslrootcert: Path | None = Field(
        default=None,
        validate_default=True,
        description="File with the certificate authority to trust; needs `PG_SSLMODE` `verify-full` or `verify-ca` (or "
        "`require`).",
    )
    pg_passfile: Path | None = Field(
        default=None,
        description="File with the password, as libpq's `.pgpass`, readable by its owner only. Not set: `PGPASSFILE`, "
        "else `~/.pgpass`; either counts only while `PG_PASS` is not set.",
    )
    pg_control_url: SecretStr | None = Field(
        default=None,
        description="`postgresql://` URL of another database to keep `etl_control` in. Not set: in the source "
        "database. `off`: nowhere. Never logged.",
    )
    minio_bucket: str = Field(description="Bucket to write to, named by S3's rules.")
    minio_alias: str | None = Field(
        default=None,
        description="Alias made with `mc alias set`: server and keys come from `MC_HOST_<alias>` or from `config.json` "
        "in `MC_CONFIG_DIR` (`~/.mc` if not set). Either this or the three below.",
    )
    minio_endpoint: str = Field(
        description="Server as `http://` or `https://` URL without a path; `host:port` alone means `http://`. For AWS "
        "`https://s3.<region>.amazonaws.com`."
    )
    minio_access_key: SecretStr = Field(description="Access key. Never logged.")
    minio_secret_key: SecretStr = Field(description="Secret key. Never logged.")
    minio_region: str = Field(default="us-east-1", min_length=1, description="Region that requests are signed for.")

    interval_s: float = Field(default=10.0, ge=5, le=86400, description="Seconds between two ticks, 5 to 86400.")
    slice_rows: int | None = Field(
        default=None, ge=1, description="Most rows in one slice, at least 1. Not set: `PG_BRONZE_SLICE_BYTES` decides."
    )
    slice_bytes: Annotated[ByteSize, Field(ge=64 * 2**10, le=2**30)] = Field(
        default=ByteSize(32 * 2**20),
        description="Most bytes in one slice as PostgreSQL sends them (COPY), 64KiB to 1GiB; a bare number is bytes.",
    )
    compression: Compression = Field(
        default="zstd", description="Parquet codec: `zstd`, `snappy`, `gzip`, `lz4` or `uncompressed`."
    )
    compression_level: int | None = Field(
        default=None,
        description="1 to 22 for `zstd`, 0 to 9 for `gzip`, none for the others. Not set: the codec's own.",
    )
    layout: Literal["flat", "date"] = Field(
        default="flat",
        description="`flat`: all objects of a table in one folder; `date`: `date=YYYY-MM-DD/` folders in it.",
    )
    prefix: str = Field(
        default="",
        description="Folders in front of every object key, such as `shop/eu`, for several databases in one bucket. "
        "Letters, digits and `_ . = -`; slashes around it are dropped.",
    )
    untracked: Untracked = Field(
        default="sweep", description="Tables without a cursor column: `sweep` copies them too, `skip` leaves them out."
    )
    cursor_names: tuple[str, ...] = Field(
        default=("created_at", "updated_at", "timestamp", "fecha", "date", "datetime"),
        description="Timestamp columns to look for, first match first; commas between them, or a JSON list. Replaces "
        "the default; `[]` looks for none.",
    )
    include: tuple[str, ...] = Field(
        default=(),
        description="Only tables that match one of these shell patterns, commas between them; a table is `movie`, or "
        "`sales.movie` outside `public`, and `*` matches dots too. Not set: all tables.",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="No table that matches one of these patterns; wins over `PG_BRONZE_INCLUDE`."
    )
    latest: tuple[str, ...] = Field(
        default=(),
        description="Tables, commas between them, that get an asset `silver/<table>_latest` downstream: the newest "
        "version of each row as one Parquet object, written again at most every five minutes, when there is anything "
        "new. They need a primary key.",
    )
    takeover: Takeover | None = Field(
        default=None,
        description="What objects and `etl_control` rows of the original system mean: `adopt-seed` continues after "
        "them, `fresh` loads everything. Not set: such a table stops and asks.",
    )
    infinity: Infinity = Field(
        default="sentinel",
        description="±infinity in dates and timestamps: `sentinel` stores the last day or microsecond of the year "
        "262142, or the first of -262143; `text` stores all such columns as text; `null`; `error` stops the table. "
        "See [types](types.md).",
    )
    late_dates: LateDates = Field(
        default="error",
        description="Dates and timestamps beyond the year 262142: `error` stops the table; `text` stores all its date "
        "and timestamp columns as text; `null`.",
    )
    nan: Nan = Field(
        default="error",
        description="`NaN` in `numeric(p,s)`: `error` stops the table; `text` stores all its `numeric(p,s)` columns as "
        "text; `null`.",
    )
    unfenced: bool = Field(
        default=False, description="`true` allows a bucket that ignores `If-None-Match`; rows may then be doubled."
    )
    reader: ReaderName = Field(
        default="auto",
        description="What reads the slices. `auto`: `connectorx`, or `copy` (psycopg's COPY: the same rows, slower) "
        "where connectorx cannot: `verify-full`, several hosts, a password from a file, a pooler such as pgbouncer.",
    )
    statement_timeout_s: float = Field(
        default=300.0, ge=1, le=86400, description="Seconds before one probe or read is cancelled, 1 to 86400."
    )
    connect_timeout_s: int = Field(
        default=5, ge=2, le=600, description="Whole seconds to wait for a connection, 2 to 600 (libpq knows no less)."
    )
    ungated_after_s: float = Field(
        default=900.0,
        ge=10,
        le=86400,
        description="Seconds after which a table is read even if it looks quiet, 10 to 86400.",
    )
    max_run_s: int = Field(
        default=3600,
        ge=60,
        le=604800,
        description="Whole seconds one run that the sensor asked for may last, 60 to 604800. For all others it is "
        "`max_runtime_seconds` in `dagster.yaml`.",
    )
    start_date: datetime.date | None = Field(
        default=None, description="First daily partition, `YYYY-MM-DD` (UTC). Not set: the first day seen."
    )
    tables: dict[str, TableOptions] = Field(
        default_factory=dict,
        description="JSON object of exceptions by table, such as "
        '`{"movie": {"cursor_column": "updated_at", "slice_rows": 5000}}`; also `untracked`, `takeover`, '
        "`infinity`, `late_dates` and `nan`.",
    )

    @field_validator("pg_host")
    @classmethod
    def _hosts(cls, value: str) -> str:
        return ",".join(_host(host.strip()) for host in value.split(","))

    @field_validator("pg_db")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(
                "it must be the database's name alone, not a URL; host and user have settings of their own"
            )
        return value

    @field_validator("pg_sslrootcert")
    @classmethod
    def _used(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        mode = info.data.get("pg_sslmode")
        if value is None and mode in ("verify-ca", "verify-full"):
            raise ValueError(f"PG_SSLMODE {mode} needs the file of the certificate authority to trust")
        if value is not None and mode in ("disable", "prefer"):
            raise ValueError(f"PG_SSLMODE {mode} would not check it; set PG_SSLMODE to verify-full or verify-ca")
        return value

    @field_validator("reader")
    @classmethod
    def _able(cls, value: ReaderName, info: ValidationInfo) -> ReaderName:
        if value == "connectorx" and (wanted := _beyond_connectorx(info.data)):
            raise ValueError(f"connectorx {wanted}; set it to auto or copy")
        return value

    @field_validator("pg_control_url")
    @classmethod
    def _control(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or value.get_secret_value().lower() == "off":
            return value and SecretStr("off")
        url = value.get_secret_value()
        wrong = ValueError(
            "it must be off, or postgresql://user:password@host:port/database with special characters percent-encoded"
        )
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  (raises if an unencoded character in the password cut the URL short)
        except ValueError:
            raise wrong from None  # its text would quote the URL
        if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.path.strip("/"):
            raise wrong
        if re.search(r"%(?![0-9A-Fa-f]{2})|\s", url):
            raise wrong
        return value

    @field_validator("minio_bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        reserved = value.startswith(("xn--", "sthree-")) or value.endswith(("-s3alias", "--ol-s3"))
        if (
            not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value)
            or ".." in value
            or reserved
            or _is_address(value)
        ):
            raise ValueError(
                "a bucket's name has 3 to 63 lower-case letters, digits, hyphens and single dots, begins and ends with "
                "a letter or digit, is no IP address and has no prefix or suffix that S3 keeps for itself"
            )
        return value

    @field_validator("minio_endpoint")
    @classmethod
    def server(cls, value: str) -> str:
        return endpoint(value)

    @field_validator("minio_access_key", "minio_secret_key")
    @classmethod
    def _sendable(cls, value: SecretStr) -> SecretStr:
        # A line end in a key surfaces as an HTTP library's "invalid header" that quotes the key.
        if not value.get_secret_value().isprintable() or " " in value.get_secret_value():
            raise ValueError("it contains a blank, a line end or another character that no key has")
        return value

    @field_validator("compression_level")
    @classmethod
    def _level(cls, value: int | None, info: ValidationInfo) -> int | None:
        codec = info.data.get("compression")
        if value is None or codec is None:
            return value
        if codec not in _LEVELS:
            raise ValueError(f"{codec} has no levels; leave it out")
        low, high = _LEVELS[codec]
        if not low <= value <= high:
            raise ValueError(f"for {codec} it must be {low} to {high}")
        return value

    @field_validator("prefix")
    @classmethod
    def _folders(cls, value: str) -> str:
        value = value.strip("/")
        for folder in value.split("/") if value else ():
            if folder in ("", ".", "..") or not all(c.isalnum() or c in "_.=-" for c in folder):
                raise ValueError("folders are made of letters, digits and _ . = - with one slash between them")
            if folder.startswith("_pg_bronze"):
                raise ValueError("folders that begin with _pg_bronze are kept for claims and old generations")
        if len(value.encode()) > 400:
            raise ValueError("it must have at most 400 bytes, so that table names still fit into a key")
        return value

    @field_validator("cursor_names", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str) or not value.startswith("["):
            return _split(value)
        names = parse_json(value)
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError('a JSON list must hold column names, such as ["created_at", "fecha"]')
        return tuple(names)

    @field_validator("include", "exclude", "latest", mode="before")
    @classmethod
    def _patterns(cls, value: object) -> object:
        return _split(value)

    @field_validator("include", "exclude", "latest", "tables")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        for label in value:
            if label.startswith("public."):
                raise ValueError(f"tables of the schema public go by their name alone: {label.removeprefix('public.')}")
        return value

    @field_validator("start_date", mode="before")
    @classmethod
    def _iso(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # Left alone, pydantic takes 20260102 for seconds since 1970, and fromisoformat takes it for a day.
        try:
            day = datetime.date.fromisoformat(value)
        except ValueError:
            day = None
        if day is None or day.isoformat() != value:
            raise ValueError("it must be a day as YYYY-MM-DD")
        return day

    @field_validator("tables", mode="before")
    @classmethod
    def _exceptions(cls, value: object) -> object:
        tables = parse_json(value) if isinstance(value, str) else value
        if not isinstance(tables, dict):
            raise ValueError('it must be a JSON object by table, such as {"movie": {"slice_rows": 5000}}')
        return tables

    def table_options(self, label: str) -> TableOptions:
        """Return the final options of the table, the global values where ``PG_BRONZE_TABLES`` says nothing."""
        common = {name: getattr(self, name) for name in TableOptions.model_fields if name != "cursor_column"}
        own = self.tables.get(label, TableOptions())
        return TableOptions.model_validate(common | own.model_dump(exclude_unset=True))

    def wants(self, label: str) -> bool:
        """Tell whether include and exclude let the table in; ``*`` matches dots too."""
        if any(fnmatchcase(label, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(label, pattern) for pattern in self.include)

    @property
    def s3(self) -> S3Connection:
        """The connection to the bucket's server."""
        return S3Connection(
            endpoint_url=self.minio_endpoint,
            access_key=self.minio_access_key,
            secret_key=self.minio_secret_key,
            region=self.minio_region,
            use_ssl=self.minio_endpoint.startswith("https://"),
        )

    @property
    def control_mirror(self) -> Literal["source", "url", "off"]:
        """Where ``etl_control`` is kept: in the source database, behind ``PG_CONTROL_URL``, or nowhere."""
        if self.pg_control_url is None:
            return "source"
        return "off" if self.pg_control_url.get_secret_value() == "off" else "url"

    def source_conninfo(self, application_name: str) -> dict[str, Any]:
        """Return the keyword arguments for ``psycopg.connect``. They hold the password: never log them."""
        info: dict[str, Any] = {
            "host": self.pg_host,
            "port": self.pg_port,
            "dbname": self.pg_db,
            "user": self.pg_user,
            # Also when empty: libpq would take PGPASSWORD otherwise, which no setting mentions. A file still counts.
            "password": self.pg_pass.get_secret_value(),
            "sslmode": self.pg_sslmode,
            **self._session(application_name),
        }
        files = {"sslrootcert": self.pg_sslrootcert, "passfile": self.pg_passfile}
        return info | {name: str(file) for name, file in files.items() if file}

    def control_conninfo(self, application_name: str) -> dict[str, Any] | None:
        """Return psycopg's keyword arguments that reach ``etl_control``, None if the mirror is off. Never log them."""
        if self.control_mirror == "off":
            return None
        if self.pg_control_url is None:
            return self.source_conninfo(application_name)
        return {"conninfo": self.pg_control_url.get_secret_value(), **self._session(application_name)}

    def source_url(self) -> str | None:
        """Return the URL for connectorx, None where it is not to read or cannot do what was asked.

        It holds the password: never log it, and let no error quote it.
        """
        if self.reader == "copy" or _beyond_connectorx(vars(self)):
            return None
        # connectorx knows no verify-ca; require with a root certificate checks the same. It refuses client_encoding.
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

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change when a setting other than a secret does."""
        shown = self.model_dump(mode="json", exclude={f for f in Settings.model_fields if variable(f) in SECRET_NAMES})
        text = json.dumps([shown, self.control_mirror], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _session(self, application_name: str) -> dict[str, Any]:
        return {
            "application_name": application_name,
            "client_encoding": "utf8",
            "connect_timeout": self.connect_timeout_s,
            "keepalives": 1,
            "keepalives_idle": _KEEPALIVE_IDLE_S,
            "tcp_user_timeout": _TCP_USER_TIMEOUT_S * 1000,
        }


FIELDS = {variable(name): field for name, field in Settings.model_fields.items()}
SECRET_NAMES = {name for name, field in FIELDS.items() if SecretStr in (field.annotation, *get_args(field.annotation))}


def _host(value: str) -> str:
    if value.startswith("/"):
        return value
    if not value or "/" in value or "@" in value or value.count(":") == 1:
        raise ValueError("it must be hosts alone; port, user and database have settings of their own (PG_PORT, …)")
    return value.removeprefix("[").removesuffix("]")


def _beyond_connectorx(values: Mapping[str, Any]) -> str | None:
    """What connectorx cannot do of what the settings ask for, said of it; None if it can."""
    if values.get("pg_sslmode") == "verify-full":
        return "checks no host name, which PG_SSLMODE verify-full asks for"
    if "," in values.get("pg_host", ""):
        return "takes one host only, and PG_HOST names several"
    if values.get("pg_passfile") is not None:
        return "reads no password file, and PG_PASSFILE names one"
    return None


def _is_address(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(word for part in value.split(",") if (word := part.strip()))
