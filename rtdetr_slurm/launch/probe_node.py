"""A probe of `doctor` on one node: what the node is like, and the way into its container."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from rtdetr_slurm.contract import Env, ExitCode
from rtdetr_slurm.devices import nvidia_devices
from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.launch import checks
from rtdetr_slurm.launch.container import inside_environment
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.node import apptainer_program, become_program
from rtdetr_slurm.launch.reach import reach
from rtdetr_slurm.launch.rendezvous import Layout, layout_of_task
from rtdetr_slurm.launch.scratch import scratch_folder
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.records import checked
from rtdetr_slurm.runs.probe import NodeFacts, Request, node_record, read_request, write_record

_COMMAND_S = 30.0
_NO_USERNS = {
    "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces is 0"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone is 0"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "kernel.apparmor_restrict_unprivileged_userns is 1",
    ),
}
"""Settings of the kernel, and the value of each that keeps users from namespaces of their own."""


def run_probe_node(arguments: Sequence[str]) -> int:
    """Leave this node's facts, or enter the container; returns the exit code.

    Args:
        arguments: folder, then `facts`, or `reduce`, the record's name, the number of nodes, and
            settings as JSON.
    """
    folder, part, *rest = arguments
    try:
        request = read_request(Path(folder))
        local = request.stage.launch.scheduler == "local"
        layout = Layout(0, 1) if local else layout_of_task(os.environ)
        if part == "facts":
            facts = node_facts(request, layout, os.environ)
            write_record(Path(folder), node_record(layout.rank), facts)
            return ExitCode.OK
        _enter(request, layout, os.environ, Path(folder), rest)
    except (UserError, OSError) as error:
        problem = explained(error)
        say(f"{socket.gethostname()}: {problem}")
        return problem.exit_code


# --- what the node is like -------------------------------------------------------------------
def node_facts(request: Request, layout: Layout, environ: Mapping[str, str]) -> NodeFacts:
    """All that is to be known about this node before anything is started on it."""
    stage, container = request.stage, request.stage.container
    problems: dict[str, str] = {}

    def tried(check: str, attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except (UserError, OSError) as error:
            problems[check] = str(explained(error))

    tried("node.gpus", lambda: checks.visible_devices(environ, stage))
    if stage.launch.accelerator == "cuda":
        tried("node.gpus", lambda: checks.check_gpu_devices(stage.resources))
    tried("node.scratch", lambda: _write_there(_scratch(stage)))
    tried("node.python", lambda: checks.check_python(stage.launch.python))
    tried("node.names", lambda: checks.check_master(environ, layout))
    program = None
    if container is not None:
        tried("node.apptainer", lambda: apptainer_program(container, environ))
        program = None if "node.apptainer" in problems else apptainer_program(container, environ)
        recorded = request.image
        if recorded is not None:
            tried("node.image", lambda: checks.check_container(container, (), recorded))
    version, setuid = (None, None) if program is None else _apptainer(program, environ)
    scratch = _scratch(stage) if "node.scratch" not in problems else None
    return {
        "rank": layout.rank,
        "host": environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "umask": f"{_umask():04o}",
        "shm_free": _free("/dev/shm"),
        "scratch": scratch or "",
        "scratch_free": _free(scratch) if scratch else 0,
        "devices": environ.get(Env.CUDA_VISIBLE_DEVICES),
        "physical": environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS"),
        "present": len(nvidia_devices()),
        "usable": checks.usable_devices(),
        "driver": driver_version(_text("/proc/driver/nvidia/version")),
        "apptainer": version,
        "setuid": setuid,
        "userns": obstacle_to_userns(),
        "interface": default_interface(_text("/proc/net/route")),
        "s3_problem": None if request.s3 is None else reach(request.s3),
        "problems": problems,
    }


def driver_version(text: str) -> str | None:
    """From /proc/driver/nvidia/version; None without the driver."""
    found = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None


def default_interface(route: str) -> str | None:
    """The interface of the default route, from /proc/net/route."""
    for line in route.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            return fields[0]
    return None


def obstacle_to_userns() -> str:
    """What keeps users here from having namespaces of their own; empty: nothing known."""
    for path, (value, said) in _NO_USERNS.items():
        if _text(path).strip() == value:
            return said
    return ""


def _apptainer(program: str, environ: Mapping[str, str]) -> tuple[str | None, bool | None]:
    """What it says about its version, and whether it has its starter with root's rights."""
    version = _said([program, "--version"], environ)
    folder = _said([program, "buildcfg", "LIBEXECDIR"], environ)
    starter = Path(folder or "/", "apptainer", "bin", "starter-suid")
    setuid = None
    if folder:
        setuid = starter.exists() and bool(starter.stat().st_mode & 0o4000)
    return version, setuid


def _said(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.strip().splitlines() or [""])[-1]


def _scratch(stage: Stage) -> str:
    return scratch_folder(stage.launch.scratch) or tempfile.gettempdir()


def _write_there(folder: str) -> None:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"room for temporary files\n")
        file.flush()


def _free(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- the way into the container --------------------------------------------------------------
def _enter(
    request: Request,
    layout: Layout,
    environ: Mapping[str, str],
    folder: Path,
    words: Sequence[str],
) -> NoReturn:
    """Become the engine's part of the probe, on all nodes of this step.

    Raises:
        UserError: a check failed, as it would for a job.
    """
    record, nodes, settings = words
    stage = replace(
        request.stage,
        resources=replace(request.stage.resources, nodes=int(nodes)),
        launch=replace(
            request.stage.launch,
            env={**request.stage.launch.env, **checked(dict[str, str], json.loads(settings), "")},
        ),
    )
    checks.check_layout(layout, stage)
    devices = checks.visible_devices(environ, stage)
    scratch = scratch_folder(stage.launch.scratch)
    inside = inside_environment(environ, stage, rank=layout.rank, devices=devices, scratch=scratch)
    ranks = max(1, stage.resources.gpus_per_node)
    inside[Env.NUM_GPU_PER_NODE] = str(ranks)
    arguments = [str(folder / record), nodes, str(ranks), str(request.limit_s)]
    stage = replace(stage, command=(*stage.command, *arguments))
    become_program(stage, environ, inside, workdir=folder, binds=(), scratch=scratch)
