"""Reading objects from S3 servers over HTTP, with faults injected on the way."""

from __future__ import annotations

import os
from typing import Any

import pytest
from stores import Server, both_servers

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import base, s3
from rtdetr_slurm.storage.base import Changed, Unreachable
from rtdetr_slurm.storage.objects import head, listed, open_object
from rtdetr_slurm.storage.stream import ObjectStream
from tests.object_store import Faults

pytestmark = both_servers
CONTENT = os.urandom(100_000)
URI = "s3://data/objects/x.bin"


@pytest.fixture(autouse=True)
def an_object(bucket: Any) -> None:
    bucket("objects/x.bin", CONTENT)


def test_what_there_is(store: Store) -> None:
    info = head(URI, store)
    assert (info.size, info.name, len(info.etag)) == (len(CONTENT), "x.bin", 32)
    assert [one.name for one in listed("s3://data/objects", store)] == ["x.bin"]
    assert open_object(info, store).read_range(10, 20) == CONTENT[10:30]


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://data/objects/none", "does not exist; bucket 'data' does"),
        ("s3://no-such-bucket/x", "no bucket 'no-such-bucket'"),
    ],
)
def test_what_is_not_there(uri: str, told: str, store: Store) -> None:
    with pytest.raises(RequestError, match=told):
        head(uri, store)


@pytest.mark.parametrize("kind", ["drop", "refuse", "busy", "short"])
def test_a_fault_is_tried_again(kind: str, faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    faults.add(kind, "HEAD" if kind in ("refuse", "busy") else "GET")
    faults.add(kind, "GET", times=3)
    assert open_object(head(URI, store), store).read_range(0, len(CONTENT)) == CONTENT


def test_a_connection_through_which_nothing_comes_is_left(
    faulty: tuple[Store, Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, faults = faulty
    monkeypatch.setattr(s3, "SILENT_S", 0.5)
    impatient = Store(endpoint_url=f"{store.endpoint_url}/")  # a client of its own
    info = head(URI, impatient)
    faults.add("stall", "GET")
    assert open_object(info, impatient).read_range(0, len(CONTENT)) == CONTENT
    assert len(faults.of("GET")) == 2
    faults.stalled.set()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("drop", "the connection failed"),
        ("refuse", "the connection failed"),
        ("busy", "503 SlowDown"),
        ("short", "broke off after 50000 of 100000 bytes"),
    ],
)
def test_a_fault_that_stays_is_told(kind: str, told: str, faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    info = head(URI, store)
    faults.add(kind, "GET", times=99)
    with pytest.raises(Unreachable, match=rf"{told}.*\(8 tries\)"):
        open_object(info, store).read_range(0, len(CONTENT))


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(base, "pause", lambda seconds: None)
    with pytest.raises(Unreachable, match="EndpointConnectionError"):
        head(URI, Store(endpoint_url="http://127.0.0.1:9"))


def test_another_region_than_the_store_says(store: Store) -> None:
    other = Store(endpoint_url=store.endpoint_url, region="eu-central-1")
    assert open_object(head(URI, other), other).read_range(0, 5) == CONTENT[:5]


def test_an_object_that_is_replaced_midway(store: Store, bucket: Any) -> None:
    reader = open_object(head(URI, store), store)
    bucket("objects/x.bin", CONTENT[::-1])
    with pytest.raises(Changed, match=r"x\.bin was changed while it was read"):
        reader.read_range(0, 10)


def test_an_object_that_is_removed_midway(store: Store, server: Server) -> None:
    reader = open_object(head(URI, store), store)
    server.client().delete_object(Bucket="data", Key="objects/x.bin")
    with pytest.raises(RequestError, match="does not exist"):
        reader.read_range(0, 10)


def test_an_object_as_a_file(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    info = head(URI, store)
    stream = ObjectStream(open_object(info, store), info.size, piece=10_000)
    stream.seek(-10, os.SEEK_END)
    assert stream.read() == CONTENT[-10:]
    assert len(faults.of("GET")) == 1, "a look at the end is one request"
    stream.seek(0)
    assert stream.read(25_000) + stream.read() == CONTENT
    assert stream.tell() == len(CONTENT)
    stream.close()
