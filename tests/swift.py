"""OpenStack Swift with its S3 interface: an S3 server that people store data in, all of it on this
machine. Installed from PyPI into an environment of its own, once."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.harness.machine import cache_dir, locked
from tests.object_store import CREDENTIALS as OF_MOTO

VERSION = "2.38.3"
CREDENTIALS = OF_MOTO | {
    "AWS_ACCESS_KEY_ID": "test:tester",
    "AWS_SECRET_ACCESS_KEY": "testing",
}
_STARTUP_S = 120.0


class NoSwift(Exception):
    """Why there is none here."""


_SHARED = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
user = {user}
workers = 1
"""
_STORE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
_SWIFT = """
[swift-hash]
swift_hash_path_prefix = a
swift_hash_path_suffix = b
[storage-policy:0]
name = gold
default = yes
"""


@contextmanager
def swift_server(folder: Path) -> Iterator[str]:
    """The address of a server that keeps all in a folder, which is empty.

    Raises:
        NoSwift: it cannot be installed or started here.
    """
    programs = _installed()
    try:
        (folder / "probe").touch()
        os.setxattr(folder / "probe", "user.probe", b"1")
    except OSError as error:
        raise NoSwift(f"{folder} keeps no extended attributes: {error}") from error
    (folder / "devices/d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT)
    ports = {kind: _free_port() for kind in ("account", "container", "object", "proxy")}
    processes = []
    try:
        for kind, port in ports.items():
            if kind != "proxy":
                _make_ring(programs, folder, kind, port)
            shared = _SHARED.format(port=port, folder=folder, user=getpass.getuser())
            path = folder / f"{kind}-server.conf"
            path.write_text(shared + (_PROXY if kind == "proxy" else _STORE.format(kind=kind)))
            with (folder / f"{kind}.log").open("w") as log:
                command = [str(programs / f"swift-{kind}-server"), str(path), "--verbose"]
                processes.append(
                    subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
                )
        for port in ports.values():
            _wait_for(port, processes, folder)
        yield f"http://127.0.0.1:{ports['proxy']}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _installed() -> Path:
    """The folder of its programs."""
    folder = cache_dir() / f"swift-{VERSION}"
    done = folder / "done"
    with locked("swift"):  # tests run in several processes
        if not done.exists():
            venv.create(folder, with_pip=True)
            command = [str(folder / "bin/pip"), "install", "--quiet", f"swift=={VERSION}"]
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise NoSwift(f"{' '.join(command)}: {made.stderr.strip().splitlines()[-1:]}")
            done.touch()
    return folder / "bin"


def _make_ring(programs: Path, folder: Path, kind: str, port: int) -> None:
    builder = [str(programs / "swift-ring-builder"), str(folder / f"{kind}.builder")]
    for step in (
        ["create", "4", "1", "1"],
        ["add", f"r1z1-127.0.0.1:{port}/d1", "1"],
        ["rebalance"],
    ):
        subprocess.run([*builder, *step], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    until = time.monotonic() + _STARTUP_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            dead = [process.args for process in processes if process.poll() is not None]
            if dead or time.monotonic() > until:
                logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
                raise NoSwift(f"it does not start ({dead}):\n{logs}") from None
            time.sleep(0.1)


if __name__ == "__main__":
    with swift_server(Path(sys.argv[1])) as address:
        print(address, flush=True)
        sys.stdin.read()
