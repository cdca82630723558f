"""The servers that the demo starts, and the settings that select them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.demo import role, sample
from pg_bronze.demo.environment import BUCKET, Environment
from pg_bronze.demo.ports import HOST
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import any_server
from pg_bronze.demo.s3_server import S3Server


@dataclass(frozen=True)
class Servers:
    """The running servers of the demo; None where a server of the user is used instead."""

    environment: Environment
    postgres: PostgresServer | None
    s3: S3Server | None

    def postgres_variables(self) -> dict[str, str]:
        """Return the settings for the sample database; none for a database of the user."""
        if self.postgres is None:
            return {}
        return {
            "PG_HOST": self.postgres.host,
            "PG_PORT": str(self.postgres.port),
            "PG_DB": sample.DATABASE,
            "PG_USER": role.ROLE,
            "PG_PASS": self.postgres.password,
            # Shows the layer after bronze.
            "PG_BRONZE_LATEST": self.environment.variables.get("PG_BRONZE_LATEST") or "movie",
        }

    def s3_variables(self) -> dict[str, str]:
        """Return the settings for the bucket of the demo; none for a bucket of the user."""
        if self.s3 is None:
            return {}
        return {
            "MINIO_ENDPOINT": self.s3.endpoint_url,
            "MINIO_ACCESS_KEY": self.s3.access_key,
            "MINIO_SECRET_KEY": self.s3.secret_key,
            "MINIO_BUCKET": BUCKET,
        }

    def bucket(self) -> str:
        """Return where the bucket is, for the user."""
        return f"{self.s3.browser_url}{BUCKET}/" if self.s3 else f"{self.environment.variables['MINIO_BUCKET']} (yours)"

    def database(self) -> str:
        """Return where the database is, for the user."""
        if self.postgres is None:
            return f"{self.environment.variables['PG_DB']} (yours)"
        return f"{sample.DATABASE} at {HOST}:{self.postgres.port}"


@contextlib.contextmanager
def start_servers(
    environment: Environment, state_dir: Path, pg_port: int | None, s3_port: int | None
) -> Iterator[Servers]:
    """Start the servers that the environment lacks, with the sample data, and stop them in reverse order."""
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer(state_dir / "postgres", port=pg_port) if environment.needs_postgres else None
        s3 = any_server(state_dir / "s3", port=s3_port) if environment.needs_s3 else None
        if postgres:
            stack.callback(postgres.stop)
        if s3:
            stack.callback(s3.stop)
            s3.launch()  # it starts while PostgreSQL does
        if postgres:
            postgres.start()
            with postgres.connect(autocommit=True) as connection:
                sample.create_database(connection)
            with postgres.connect(sample.DATABASE) as connection:
                sample.create_tables(connection)
            with postgres.connect(sample.DATABASE, autocommit=True) as connection:
                role.create_role(connection, postgres.password)
        if s3:
            s3.wait_until_ready()
            s3.create_bucket(BUCKET)
        yield Servers(environment, postgres, s3)
