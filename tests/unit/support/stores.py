"""Fixtures: an S3 server over HTTP, and a proxy in front of it that injects faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import base
from tests import swift
from tests.object_store import CREDENTIALS, Faults, client, faulty_proxy, s3_server


class Server(NamedTuple):
    """An S3 server, and the environment that lets in."""

    url: str
    credentials: Mapping[str, str]

    def client(self) -> Any:
        return client(self.url, self.credentials)


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Moto's, or as a parameter says."""
    if getattr(request, "param", "moto") == "moto":
        with s3_server() as url:
            yield Server(url, CREDENTIALS)
        return
    try:
        with swift.swift_server(tmp_path_factory.mktemp("swift")) as url:
            yield Server(url, swift.CREDENTIALS)
    except swift.NoSwift as error:
        pytest.skip(str(error))


both_servers = pytest.mark.parametrize("server", ["moto", "swift"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def bucket(server: Server) -> Any:
    """Puts an object that everybody may read into the bucket `data`."""
    found = server.client()
    found.create_bucket(Bucket="data")
    return partial(_put, found)


def _put(found: Any, key: str, body: bytes | str) -> None:
    found.put_object(Bucket="data", Key=key, Body=body, ACL="public-read")


@pytest.fixture
def store(server: Server, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    set_credentials(server, monkeypatch)
    return Store(endpoint_url=server.url)


@pytest.fixture(scope="session")
def proxy(server: Server) -> Iterator[tuple[str, Faults]]:
    with faulty_proxy(server.url) as found:
        yield found


@pytest.fixture
def faulty(
    proxy: tuple[str, Faults], server: Server, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, Faults]]:
    """The same, with faults; nobody waits between two tries."""
    set_credentials(server, monkeypatch)
    monkeypatch.setattr(base, "pause", lambda seconds: None)
    url, faults = proxy
    faults.clear()
    yield Store(endpoint_url=url), faults
    faults.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def set_credentials(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
