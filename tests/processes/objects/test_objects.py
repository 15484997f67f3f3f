"""Reading objects from a real S3 server and from web servers, with faults injected on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import base
from rtdetr_slurm.storage.base import Changed, Unreachable
from rtdetr_slurm.storage.objects import head, listed, open_object
from rtdetr_slurm.storage.stream import ObjectStream
from tests.object_store import Faults, client

CONTENT = os.urandom(100_000)
URI = "s3://data/objects/x.bin"


@pytest.fixture(autouse=True)
def an_object(bucket: Any) -> None:
    bucket("objects/x.bin", CONTENT)


# --- S3 ------------------------------------------------------------------------------------
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
    import urllib.request

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


@pytest.mark.parametrize("kind", ["drop", "refuse", "busy", "short"])
def test_a_fault_is_tried_again(kind: str, faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    faults.add(kind, "HEAD" if kind in ("refuse", "busy") else "GET")
    faults.add(kind, "GET", times=3)
    assert open_object(head(URI, store), store).read_range(0, len(CONTENT)) == CONTENT


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


def test_an_object_that_is_replaced_midway(store: Store, bucket: Any) -> None:
    reader = open_object(head(URI, store), store)
    bucket("objects/x.bin", CONTENT[::-1])
    with pytest.raises(Changed, match=r"x\.bin was changed while it was read"):
        reader.read_range(0, 10)


def test_an_object_that_is_removed_midway(store: Store, s3: str) -> None:
    reader = open_object(head(URI, store), store)
    client(s3).delete_object(Bucket="data", Key="objects/x.bin")
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


# --- web servers ---------------------------------------------------------------------------
class Plain(BaseHTTPRequestHandler):
    """A server that gives no pieces, and breaks off once in a while."""

    drops = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.close_connection = True
        if Plain.drops:
            Plain.drops -= 1
            self.wfile.write(CONTENT[:30_000])
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def plain() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x.bin"
    server.shutdown()
    server.server_close()


def test_a_signed_address(store: Store, s3: str) -> None:
    signed = client(s3).generate_presigned_url(
        "get_object", Params={"Bucket": "data", "Key": "objects/x.bin"}
    )
    info = head(signed, store)
    assert (info.size, info.name) == (len(CONTENT), "x.bin")
    assert "Signature" not in f"{info} {info.shown}"
    assert open_object(info, store).read_range(5, 5) == CONTENT[5:10]
    with pytest.raises(RequestError, match="does not exist") as error:
        head(signed.replace("x.bin", "y.bin"), store)
    assert "Signature" not in str(error.value)


def test_a_server_without_pieces(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "pause", lambda seconds: None)
    info = head(plain, Store())
    assert info.etag.startswith("Thu")
    reader = open_object(info, Store())
    assert not reader.ranged
    Plain.drops = 2
    stream = ObjectStream(reader, info.size, piece=20_000)
    assert stream.read() == CONTENT
    stream.close()
    reader.close()


@pytest.mark.parametrize("kind", ["drop", "refuse", "busy", "short"])
def test_a_web_server_with_a_fault(kind: str, faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    url = f"{store.endpoint_url}/data/objects/x.bin"
    info = head(url, store)
    reader = open_object(info, store)
    faults.add(kind, "GET", times=3)
    assert reader.read_range(0, len(CONTENT)) == CONTENT
    faults.add(kind, "GET", times=99)
    with pytest.raises(Unreachable, match=r"\(8 tries\)"):
        reader.read_range(0, len(CONTENT))


def test_a_web_server_whose_object_is_replaced(store: Store, bucket: Any) -> None:
    url = f"{store.endpoint_url}/data/objects/x.bin"
    reader = open_object(head(url, store), store)
    bucket("objects/x.bin", b"new")
    with pytest.raises(Changed, match="is 3 bytes"):
        reader.read_range(0, 2)
