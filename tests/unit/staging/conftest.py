"""A store with archives of a few images, and a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.plan.staging import Store
from tests.object_store import CREDENTIALS, client, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def store(s3: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Store(endpoint_url=s3)


@pytest.fixture(scope="session")
def bucket(s3: str) -> Any:
    """`put_object`, of the bucket `data`."""
    found = client(s3)
    found.create_bucket(Bucket="data")
    return lambda key, body: found.put_object(Bucket="data", Key=key, Body=body)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
