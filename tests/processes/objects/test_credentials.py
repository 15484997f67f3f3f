"""Credentials, profiles and endpoints are found as boto3 finds them; what is wrong with them is
told."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage.objects import head

CONTENT = b"content"
URI = "s3://data/credentials/x.bin"


@pytest.fixture(autouse=True)
def an_object(bucket: Any) -> None:
    bucket("credentials/x.bin", CONTENT)


def test_without_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    url = f"{store.endpoint_url}/"  # a client of its own
    with pytest.raises(RequestError, match="no credentials were found"):
        head(URI, Store(endpoint_url=url))
    assert head(URI, Store(endpoint_url=url, anonymous=True)).size == len(CONTENT)
    with pytest.raises(RequestError, match=r"profile \(nobody\)"):
        head(URI, Store(endpoint_url=url, profile="nobody"))


def test_the_endpoint_of_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(store.endpoint_url))
    assert head(URI, Store(region="eu-central-1")).size == len(CONTENT)


def test_wrong_credentials(store: Store) -> None:
    """A server that checks them; the answer to HEAD says 403 and nothing else."""

    def check_from(number: bytes) -> None:
        url = f"{store.endpoint_url}/moto-api/reset-auth"
        request = urllib.request.Request(url, number, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()

    check_from(b"0")
    try:
        with pytest.raises(RequestError, match="InvalidAccessKeyId") as error:
            head(URI, store)
    finally:
        check_from(b"inf")
    assert "test-secret" not in str(error.value)
