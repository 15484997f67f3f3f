"""The container's command line and environment."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from launch_support import STAGE

from rtdetr_slurm.launch.container import (
    apptainer_argv,
    apptainer_environment,
    host_command,
    host_environment,
    inside_environment,
)
from rtdetr_slurm.plan.model import Bind, Container, Image

CONTAINER = Container(
    Image("/images/train.sif"),
    (Bind("/data", "/data", read_only=True), Bind("/runs", "/runs")),
    apptainer="/opt/apptainer",
    flags=("--userns",),
)
TASK = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20001", "HOME": "/home/x", "PROXY": "a,b"}


def test_nothing_of_the_host_but_what_is_named() -> None:
    argv = apptainer_argv(CONTAINER, ("rtdetr", "train"), workdir="/w", scratch="/s", nv=True)
    assert argv == [
        *("/opt/apptainer", "--quiet", "exec", "--cleanenv", "--no-eval", "--no-home"),
        *("--no-mount", "home,cwd", "--pwd", "/w", "--userns", "--nv"),
        *("--mount", "type=bind,source=/data,destination=/data,ro"),
        *("--mount", "type=bind,source=/runs,destination=/runs"),
        *("--mount", "type=bind,source=/s,destination=/s"),
        *("/images/train.sif", "rtdetr", "train"),
    ]


def test_on_cpu_the_nvidia_driver_stays_outside() -> None:
    argv = apptainer_argv(CONTAINER, ("x",), workdir="/w", scratch=None, nv=False)
    assert "--nv" not in argv


@pytest.mark.parametrize("path", ["/a,b", "/a:b", '/a"b', "/a b", "/a=b", "/a\nb"])
def test_any_path_can_be_bound(path: str) -> None:
    option = Bind(path, path, read_only=True).mount_option()
    [fields] = csv.reader(io.StringIO(option, newline=""))
    assert fields == ["type=bind", f"source={path}", f"destination={path}", "ro"]


def test_the_launch_contract() -> None:
    env = inside_environment(TASK, STAGE, rank=1, devices="2,3", scratch=None)
    assert env == {
        "WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "20001",
        "NUM_GPU_PER_NODE": "2",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "RTDETR_ACCELERATOR": "cuda",
        "RTDETR_HANG_MINUTES": "25",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_what_a_site_adds() -> None:
    launch = replace(STAGE.launch, env={"PROXY": None, "ABSENT": None}, network_interface="ib0")
    env = inside_environment(
        TASK | {"RTDETR_RESUME": "1", "RTDETR_CLAIM": "r:train", "RTDETR_RESTART": "2"},
        replace(STAGE, launch=launch),
        rank=0,
        devices=None,
        scratch="/s",
    )
    assert env["PROXY"] == "a,b"
    assert "ABSENT" not in env
    assert "CUDA_VISIBLE_DEVICES" not in env
    assert env["NCCL_SOCKET_IFNAME"] == env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert env["TMPDIR"] == "/s"
    assert env["RTDETR_RESUME"] == "1"
    assert (env["RTDETR_CLAIM"], env["RTDETR_RESTART"]) == ("r:train", "2")


def test_threads_are_the_users_and_cpus_the_allocations() -> None:
    slurm = {"SLURM_CPUS_ON_NODE": "32"}
    env = inside_environment(TASK | slurm, STAGE, rank=0, devices=None, scratch=None)
    assert (env["RTDETR_CPUS"], env.get("OMP_NUM_THREADS")) == ("32", None)
    slurm |= {"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "3"}
    env = inside_environment(TASK | slurm, STAGE, rank=0, devices=None, scratch=None)
    assert (env["RTDETR_CPUS"], env["OMP_NUM_THREADS"]) == ("4", "3")
    launch = replace(STAGE.launch, env={"OMP_NUM_THREADS": "2"})
    env = inside_environment(
        TASK | slurm, replace(STAGE, launch=launch), rank=0, devices=None, scratch=None
    )
    assert env["OMP_NUM_THREADS"] == "2"


def test_what_a_site_sets_wins_over_what_it_implies_and_not_over_the_launch() -> None:
    values = {"PROXY": "set", "TMPDIR": "/t", "NCCL_SOCKET_IFNAME": "^lo", "RANK": "7"}
    launch = replace(STAGE.launch, env=values, network_interface="ib0")
    env = inside_environment(
        TASK, replace(STAGE, launch=launch), rank=0, devices=None, scratch="/s"
    )
    assert (env["PROXY"], env["TMPDIR"], env["NCCL_SOCKET_IFNAME"]) == ("set", "/t", "^lo")
    assert env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert env["RANK"] == "0"


def test_a_users_own_apptainer_settings_do_not_change_a_run() -> None:
    host = {
        "PATH": "/bin",
        "APPTAINER_BIND": "/secret",
        "SINGULARITY_NV": "1",
        "APPTAINERENV_LD_PRELOAD": "x",
        "APPTAINER_TMPDIR": "/t",
    }
    env = apptainer_environment(host, {"RANK": "0"})
    assert env == {"PATH": "/bin", "APPTAINER_TMPDIR": "/t", "APPTAINERENV_RANK": "0"}


def test_on_the_host() -> None:
    argv = host_command(("rtdetr", "train", "-e", "spec.yaml"), None)
    assert argv[1:] == ["-m", "rtdetr_slurm.engine.process.entry", "train", "-e", "spec.yaml"]
    assert host_command(("rtdetr", "train"), "/venv/bin/python")[0] == "/venv/bin/python"
    host = {"PATH": "/bin", "SLURM_PROCID": "3", "LOCAL_RANK": "0", "RANK": "5", "VIRTUAL_ENV": "v"}
    env = host_environment(host, {"RANK": "0"})
    assert env == {"PATH": "/bin", "RANK": "0", "VIRTUAL_ENV": "v"}
