"""Files go to a real S3 server in pieces, go on where they have ended, and do not go twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from stores import Server, both_servers

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import upload
from rtdetr_slurm.storage.base import Unreachable
from rtdetr_slurm.storage.upload import put_file
from tests.object_store import Faults

pytestmark = both_servers
PART = 5 << 20
"""The least that S3 takes for a piece that is not the last."""


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(upload, "_PART_BYTES", PART)
    path = tmp_path / "large.pth"
    path.write_bytes(os.urandom(1000) * (2 * PART // 1000 + 7))
    return path


def content_of(server: Server, key: str) -> bytes:
    found: bytes = server.client().get_object(Bucket="data", Key=key)["Body"].read()
    return found


def test_a_file_goes_once(tmp_path: Path, faulty: tuple[Store, Faults], server: Server) -> None:
    store, faults = faulty
    path = tmp_path / "metrics.json"
    path.write_bytes(b"{}")
    told: list[int] = []
    for _ in range(2):
        put_file(path, "s3://data/up/metrics.json", store, on_progress=told.append)
    assert content_of(server, "up/metrics.json") == b"{}"
    assert told == [2, 2]
    assert len(faults.of("PUT")) == 1
    path.write_bytes(b"[]")
    put_file(path, "s3://data/up/metrics.json", store)
    assert content_of(server, "up/metrics.json") == b"[]"


def test_a_large_file_goes_on(large: Path, faulty: tuple[Store, Faults], server: Server) -> None:
    store, faults = faulty
    faults.add("refuse", "PUT", "partNumber=2", times=99)
    with pytest.raises(Unreachable):
        put_file(large, "s3://data/up/large.pth", store)
    faults.clear()
    told: list[int] = []
    put_file(large, "s3://data/up/large.pth", store, on_progress=told.append)
    sent = [path for method, path, _ in faults.requests if method == "PUT"]
    assert len(sent) == 1, "the others were there"
    assert "partNumber=2" in sent[0]
    assert sum(told) == large.stat().st_size
    assert content_of(server, "up/large.pth") == large.read_bytes()
    faults.clear()
    put_file(large, "s3://data/up/large.pth", store)
    assert not faults.of("PUT")


def test_another_file_does_not_go_on(
    large: Path, faulty: tuple[Store, Faults], server: Server
) -> None:
    store, faults = faulty
    faults.add("refuse", "PUT", "partNumber=3", times=8)
    with pytest.raises(Unreachable):
        put_file(large, "s3://data/up/other.pth", store)
    large.write_bytes(large.read_bytes()[::-1])
    put_file(large, "s3://data/up/other.pth", store)
    assert content_of(server, "up/other.pth") == large.read_bytes()
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket="data", Prefix="up/other")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://h/x?sig=SECRET", "files go to s3://"),
        ("s3://data/", "names no object"),
        ("s3://none-such/x", "no bucket"),
    ],
)
def test_where_nothing_can_be_put(uri: str, told: str, tmp_path: Path, store: Store) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(RequestError, match=told) as error:
        put_file(tmp_path / "a", uri, store)
    assert "SECRET" not in str(error.value)


def test_an_empty_file(tmp_path: Path, store: Store, bucket: Any, server: Server) -> None:
    (tmp_path / "empty").touch()
    put_file(tmp_path / "empty", "s3://data/up/empty", store)
    assert content_of(server, "up/empty") == b""
