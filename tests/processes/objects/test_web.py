"""Reading objects from web servers, with faults injected on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from stores import Server

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage import base
from rtdetr_slurm.storage.base import Changed, Unreachable
from rtdetr_slurm.storage.objects import head, open_object
from rtdetr_slurm.storage.stream import ObjectStream
from tests.object_store import Faults

CONTENT = os.urandom(100_000)


@pytest.fixture(autouse=True)
def an_object(bucket: Any) -> None:
    bucket("web/x.bin", CONTENT)


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


def test_a_signed_address(store: Store, server: Server) -> None:
    def sign(key: str) -> str:
        what = {"Bucket": "data", "Key": key}
        signed: str = server.client().generate_presigned_url("get_object", Params=what)
        return signed

    signed = sign("web/x.bin")
    info = head(signed, store)
    assert (info.size, info.name) == (len(CONTENT), "x.bin")
    assert "Signature" not in f"{info} {info.shown}"
    assert open_object(info, store).read_range(5, 5) == CONTENT[5:10]
    with pytest.raises(RequestError, match="does not exist") as error:
        head(sign("web/y.bin"), store)
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
    url = f"{store.endpoint_url}/data/web/x.bin"
    info = head(url, store)
    reader = open_object(info, store)
    faults.add(kind, "GET", times=3)
    assert reader.read_range(0, len(CONTENT)) == CONTENT
    faults.add(kind, "GET", times=99)
    with pytest.raises(Unreachable, match=r"\(8 tries\)"):
        reader.read_range(0, len(CONTENT))


def test_a_web_server_whose_object_is_replaced(store: Store, bucket: Any) -> None:
    url = f"{store.endpoint_url}/data/web/x.bin"
    reader = open_object(head(url, store), store)
    bucket("web/x.bin", b"new")
    with pytest.raises(Changed, match="is 3 bytes"):
        reader.read_range(0, 2)
