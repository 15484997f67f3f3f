"""What a node refuses before anything starts, each with one clear line."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch import checks
from rtdetr_slurm.launch.rendezvous import Layout
from rtdetr_slurm.plan.model import Bind, Container, Image, Stage
from rtdetr_slurm.runs.images import glance


def unmanaged(accelerator: str | None) -> Stage:
    """A stage of a site where Slurm manages no GPUs."""
    return replace(
        STAGE,
        resources=replace(STAGE.resources, gpu_request="none"),
        launch=replace(STAGE.launch, accelerator=accelerator),
    )


def test_the_node_count_must_be_the_specs() -> None:
    checks.check_layout(Layout(0, 2), STAGE)
    with pytest.raises(SiteError, match=r"has 3 nodes, the spec's train\.num_nodes is 2"):
        checks.check_layout(Layout(0, 3), STAGE)


@pytest.mark.parametrize("given", ["0,1", "2,3", "7,0"])
def test_the_allocations_own_gpu_ids_are_used(given: str) -> None:
    assert checks.visible_devices({"CUDA_VISIBLE_DEVICES": given}, STAGE) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"no GPUs \(CUDA_VISIBLE_DEVICES is not set\), the spec's train.num_gpus is 2"),
        ("", "has 0 GPUs"),
        ("0", r"has 1 GPUs on this node \(CUDA_VISIBLE_DEVICES=0\), the spec's"),
        ("0,1,2", "has 3 GPUs"),
        ("1,1", "has 1 GPUs"),
        ("MIG-1a2b", "MIG-1a2b is a MIG slice or a GPU UUID"),
        ("GPU-1,GPU-2", "GPU-1 is a MIG slice or a GPU UUID"),
    ],
)
def test_a_wrong_gpu_allocation_is_refused(given: str | None, message: str) -> None:
    env = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    with pytest.raises(SiteError, match=message):
        checks.visible_devices(env, STAGE)


def test_where_slurm_manages_no_gpus_the_spec_names_them() -> None:
    assert checks.visible_devices({}, unmanaged("cuda")) == "0,1"
    assert checks.visible_devices({}, unmanaged("cpu")) is None
    assert checks.visible_devices({"CUDA_VISIBLE_DEVICES": "4,5"}, unmanaged("cuda")) == "4,5"
    assert checks.visible_devices({"CUDA_VISIBLE_DEVICES": ""}, unmanaged(None)) == ""
    with pytest.raises(SiteError, match=r"CUDA_VISIBLE_DEVICES is empty on this node, .* is 2"):
        checks.visible_devices({"CUDA_VISIBLE_DEVICES": ""}, unmanaged("cuda"))


def test_gpu_devices_must_be_there_and_open(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    checks.check_gpu_devices(STAGE.resources, dev=tmp_path)
    (tmp_path / "nvidia1").unlink()
    with pytest.raises(SiteError, match=r"1 NVIDIA devices .* can be opened on this node, 2 are"):
        checks.check_gpu_devices(STAGE.resources, dev=tmp_path)
    (tmp_path / "nvidia1").mkdir()  # cannot be opened for writing, as under a cgroup
    with pytest.raises(SiteError, match="1 NVIDIA devices"):
        checks.check_gpu_devices(STAGE.resources, dev=tmp_path)


def test_the_port_must_be_free_on_the_first_node() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RTDETR_SLURM_MASTER_HOST": socket.gethostname(),
        }
        with pytest.raises(SiteError, match=f"port {port} .*Address already in use"):
            checks.check_master(env, Layout(0, 2))
        checks.check_master(env, Layout(1, 2))
    checks.check_master(env, Layout(0, 2))


def test_a_first_node_that_calls_itself_localhost_is_found_out() -> None:
    env = {"MASTER_ADDR": "127.0.1.1", "MASTER_PORT": "1", "RTDETR_SLURM_MASTER_HOST": "node1"}
    with pytest.raises(SiteError, match=r"node1, calls itself 127\.0\.1\.1, which on this node"):
        checks.check_master(env, Layout(1, 2))


def test_results_must_be_writable_here(tmp_path: Path) -> None:
    checks.check_results(tmp_path)
    with pytest.raises(RequestError, match="none is not writable on this node"):
        checks.check_results(tmp_path / "none")


def test_image_and_binds_must_be_here(tmp_path: Path) -> None:
    image, data = tmp_path / "train.sif", tmp_path / "data"
    image.write_text("SIF")
    container = Container(Image(str(image)), (Bind(str(data), "/data"),))
    recorded = glance(image)
    with pytest.raises(SiteError, match="data does not exist on this node"):
        checks.check_container(container, (), recorded)
    data.mkdir()
    checks.check_container(container, (), recorded)
    if os.geteuid() != 0:
        data.chmod(0)
        with pytest.raises(SiteError, match="data cannot be read on this node"):
            checks.check_container(container, (), recorded)
    image.write_text("another SIF")
    with pytest.raises(SiteError, match="not the one this run was submitted with"):
        checks.check_container(container, (), recorded)


def test_the_python_of_a_job_without_a_container_must_be_here(tmp_path: Path) -> None:
    checks.check_python(None)
    checks.check_python(sys.executable)
    (tmp_path / "text").write_text("no program")
    for python in (tmp_path, tmp_path / "none", tmp_path / "text"):
        with pytest.raises(SiteError, match=f"python {python} .* is not a program on this node"):
            checks.check_python(str(python))
