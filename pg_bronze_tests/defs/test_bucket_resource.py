"""The bucket resource: one connection for the client that writes and for Polars, which reads."""

from typing import Any

import pytest

from pg_bronze.defs.resources import Bucket, resource_of
from pg_bronze.lake import s3_credentials
from pg_bronze.lake.reading.polars_options import polars_options
from pg_bronze.settings.model import Settings
from pg_bronze_tests.settings.conftest import load


def in_a_run(bucket: Bucket, settings: Settings) -> Any:
    """Return the resource as a run has it, with the settings resolved."""
    return bucket.model_copy(update={"settings": settings})


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"MINIO_SESSION_TOKEN": "token-in-clear"},
        {"MINIO_ACCESS_KEY": "", "MINIO_SECRET_KEY": "", "MINIO_PROFILE": "shop"},
        {"MINIO_ACCESS_KEY": "", "MINIO_SECRET_KEY": "", "MINIO_ENDPOINT": "", "MINIO_CREDENTIALS": "aws"},
    ],
)
def test_the_connection_is_that_of_the_settings(more: dict[str, str]):
    settings = load(**{"MINIO_ENDPOINT": "https://s3.example", "MINIO_REGION": "eu-west-1"} | more)
    bucket = Bucket.from_settings(settings)

    assert in_a_run(bucket, settings).connection == settings.s3
    assert "in-clear" not in str(bucket.model_dump(exclude={"settings"})), "the UI shows the configuration"


def test_keys_in_the_configuration_replace_those_of_any_source():
    settings = load(MINIO_ACCESS_KEY="", MINIO_SECRET_KEY="", MINIO_CREDENTIALS="aws")
    replaced = Bucket(bucket="lake", aws_access_key_id="a", aws_secret_access_key="b", settings=resource_of(settings))

    assert s3_credentials.current(in_a_run(replaced, settings).connection) == ("a", "b", "")


def test_a_replaced_endpoint_is_used_by_the_client_and_by_polars():
    """Otherwise `silver` would read from another server than the one that was written to."""
    settings, url = load(), "http://other.example:9000"
    replaced = Bucket(bucket="lake", endpoint_url=url, region_name="eu-west-1", settings=resource_of(settings))
    bucket = in_a_run(replaced, settings)

    client, options = bucket.get_client(), polars_options(bucket.connection)["storage_options"]

    assert client.meta.endpoint_url == options["aws_endpoint_url"] == url
    assert client.meta.region_name == options["aws_region"] == "eu-west-1"
    assert options["aws_allow_http"] == "true"
