"""`rtdetr-slurm image` with the real Apptainer."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .harness import jobs, slurm
from .harness.cli import Cli
from .harness.image import base

pytestmark = pytest.mark.cluster

DEFINITION = """\
Bootstrap: localimage
From: {{ BASE }}

%labels
    org.opencontainers.image.version 9.9
"""
QUICKLY = (
    "--apptainer-flag=--mksquashfs-args",
    "--apptainer-flag=-comp zstd -Xcompression-level 1",
)


def test_an_image_is_built_pulled_and_never_on_a_gpus_time(
    cli: Cli, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    (tmp_path / "tiny.def").write_text(DEFINITION)
    built = tmp_path / "tiny image.sif"
    argument = f"--build-arg=BASE={base()}/"
    words = ("tiny.def", "-o", built, argument, *QUICKLY, "--space", "1")
    made = cli.json("image", "build", *words)
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    assert made == {"path": str(built), "sha256": digest, "version": "9.9"}
    assert "exists already" in cli("image", "build", *words, code=2).stderr

    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/tiny%20image.sif"
        pulled = tmp_path / "pulled.sif"
        text = cli(
            "image", "pull", address, "-o", pulled, "--sha256", digest, "--space", "1"
        ).stdout
        server.shutdown()
    assert f"profile  image: {{path: {pulled}, sha256: {digest}}}" in text
    assert pulled.read_bytes() == built.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    script = f"rtdetr-slurm image pull {address} -o {tmp_path}/other.sif"
    job = jobs.submit(
        cluster, tmp_path, script, "--gpus-per-node=1", f"--export=PATH={cli.env['PATH']}"
    )
    assert jobs.wait(cluster, job) == "FAILED"
    assert "a job that holds GPUs" in jobs.output(tmp_path, job)
