"""The adapter uses names that every TensorRT has: 10 and 11 as published, RTX as installed.

An engine of the first two cannot be built here, so that a wrong name would be found on a cluster.
"""

from __future__ import annotations

import importlib
import inspect
import json

import pytest

from tests.deploy.published_names import FIXTURE, REMOVED_IN_11, VERSIONS, attributes

RTX_ONLY = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}
OURS = {
    *("capabilities", "capability", "errors", "failure", "height", "lines", "logger", "name"),
    *("num_classes", "num_queries", "onnx", "opt", "max", "min", "profile", "record", "size"),
    *("timing_cache", "times_kernels", "verbose", "version", "width", "workspace_mb", "add"),
    *("Stream", "contiguous", "cuda", "cuda_stream", "current_stream", "data_ptr", "device"),
    *("float32", "new_empty", "shape", "to", "wait_stream"),
    *("OOM_GPU", "append", "endswith", "import_module", "items", "join", "removeprefix", "replace"),
    *("rpartition", "startswith"),
}
"""What stands after a dot there and is Python's, torch's or the adapter's own."""
TENSORRT = attributes() - OURS - {REMOVED_IN_11}
NAMES = json.loads(FIXTURE.read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_published_bindings_have_them(version: str) -> None:
    missing = TENSORRT - RTX_ONLY - {*NAMES[version]}
    assert missing == set(), "new here? `python -m tests.deploy.published_names` looks them up"
    assert (REMOVED_IN_11 in NAMES[version]) == version.startswith("10.")


def test_the_installed_rtx_has_them() -> None:
    module = importlib.import_module("tensorrt_rtx")
    known = {*dir(module)}
    for one in vars(module).values():
        known |= {*dir(one)} if inspect.isclass(one) else set()
    assert TENSORRT - known == set()
    assert len(TENSORRT) > 40
