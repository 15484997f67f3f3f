"""An S3 server over HTTP on this machine, and a proxy in front of it that injects faults."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server that takes any credentials."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(host, 0, verbose=False)
    server.start()
    try:
        address, port = server.get_host_and_port()
        yield f"http://{address}:{port}"
    finally:
        server.stop()


def client(url: str, credentials: Mapping[str, str] = CREDENTIALS) -> Any:
    """Of boto3, for putting things there."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )


_STALL_S = 60.0


# --- faults --------------------------------------------------------------------------------
class Faults:
    """What the proxy does to the next requests that it is told of.

    `faults.add("drop", "GET", times=2)`; kinds: `drop` (the connection ends in the middle of the
    body), `stall` (it stays, and nothing comes through it any more), `refuse` (it ends before an
    answer), `busy` (503 SlowDown), `short` (a truncated object whose length is that of what comes).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Fault] = []
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range of each."""
        self.before: Callable[[str, str], object] = _nothing
        """Is called with method and path before each request goes on."""
        self.stalled = threading.Event()
        """Ends what is stalled."""

    def clear(self) -> None:
        """Have no faults any more, and no requests on record."""
        with self._lock:
            self._waiting, self.requests, self.before = [], [], _nothing
            self.stalled.clear()

    def add(self, kind: str, method: str, part: str = "", *, times: int = 1) -> None:
        """
        Args:
            part: of the path and range of requests that this is for.
        """
        with self._lock:
            self._waiting += [_Fault(kind, method, part)] * times

    def take(self, method: str, path: str, byte_range: str) -> str:
        with self._lock:
            self.requests.append((method, path, byte_range))
            for fault in self._waiting:
                if fault.method == method and fault.part in f"{path} {byte_range}":
                    self._waiting.remove(fault)
                    return fault.kind
        return ""

    def of(self, method: str, part: str = "") -> list[str]:
        """The ranges of requests so far."""
        return [r for m, path, r in self.requests if m == method and part in path]


def _nothing(method: str, path: str) -> None:
    pass


class _Fault(NamedTuple):
    kind: str
    method: str
    part: str


@contextmanager
def faulty_proxy(server: str) -> Iterator[tuple[str, Faults]]:
    """The address of something that hands requests on to a server, and what it does to them."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            faults.before(self.command, self.path)
            kind = faults.take(self.command, self.path, self.headers.get("Range", ""))
            self.close_connection = True
            if kind == "refuse":
                return
            if kind == "busy":
                text = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
                self.send_response(503)
                self.send_header("Connection", "close")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                return
            parts = urlsplit(server)
            asked = HTTPConnection(parts.hostname or "", parts.port)
            # The Host header is part of what is signed, and stays.
            asked.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    asked.putheader(name, value)
            asked.endheaders(body or None)
            answer = asked.getresponse()
            content = answer.read()
            if kind == "short":
                content = content[: len(content) // 2]
            self.send_response(answer.status)
            # Else a client uses it for the next request, at the moment at which it is closed.
            self.send_header("Connection", "close")
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            said = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", said or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                whole = kind not in ("drop", "stall")
                self.wfile.write(content if whole else content[: len(content) // 2])
            if kind == "stall":
                faults.stalled.wait(_STALL_S)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}", faults
    finally:
        proxy.shutdown()
        proxy.server_close()
