"""Fixtures: an S3 server over HTTP, and a proxy in front of it that injects faults."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import base
from tests.object_store import CREDENTIALS, Faults, client, faulty_proxy, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="session")
def bucket(s3: str) -> Any:
    """Puts an object that everybody may read into the bucket `data`."""
    found = client(s3)
    found.create_bucket(Bucket="data")
    return partial(_put, found)


def _put(found: Any, key: str, body: bytes | str) -> None:
    found.put_object(Bucket="data", Key=key, Body=body, ACL="public-read")


@pytest.fixture
def store(s3: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    set_credentials(monkeypatch)
    return Store(endpoint_url=s3)


@pytest.fixture(scope="session")
def proxy(s3: str) -> Iterator[tuple[str, Faults]]:
    with faulty_proxy(s3) as found:
        yield found


@pytest.fixture
def faulty(
    proxy: tuple[str, Faults], bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, Faults]]:
    """The same, with faults; nobody waits between two tries."""
    set_credentials(monkeypatch)
    monkeypatch.setattr(base, "pause", lambda seconds: None)
    url, faults = proxy
    faults.clear()
    yield Store(endpoint_url=url), faults
    faults.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def set_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
