"""NVIDIA TAO's images under our launch contract. Standard library only.

TAO's entry point takes nodes and GPUs from its environment, replaces CUDA_VISIBLE_DEVICES by
numbers of its own, and when anything about several nodes displeases it, it says so in a warning
and trains on one node with all GPUs. It starts its work by a program of the image's PATH. A small
one of ours stands before that, which lets nothing pass but the topology that was asked for, and
gives back the devices of the allocation.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import DEPLOY, TAO_FOLDER, get_action
from rtdetr_slurm.contract import ENGINE_SECTION, Env, ExitCode, FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import PRIVATE_DIR
from rtdetr_slurm.launch.arrivals import STARTED_FILE
from rtdetr_slurm.launch.inputs import Resolved
from rtdetr_slurm.launch.node_errors import ERROR_JSON, NodeError, node_name
from rtdetr_slurm.launch.rendezvous import Layout
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.records import exists
from rtdetr_slurm.resolved_spec import value_at, with_value
from rtdetr_slurm.runs.checkpoints import (
    RESUME_FIELD,
    CheckpointFile,
    Verify,
    list_checkpoints,
    resume_candidates,
)
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.tao import EMA_SUFFIX, latest_links

EPOCHS_FIELD = "train.num_epochs"
_BIN = "bin"
_SINCE_7_3 = ("model.precise_msda", "distill.teacher.precise_msda", "train.checkpointer")
"""Fields that older images do not know; left out where they change nothing."""


def tao_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved spec with what every version of TAO's images reads: null is TAO's default, too."""
    known = dict(spec)
    for path in _SINCE_7_3:
        section, _, name = path.rpartition(".")
        value, around = value_at(spec, path), value_at(spec, section)
        off = not (value.get("enable_topk") if isinstance(value, Mapping) else value)
        if around and off:
            known = with_value(known, section, {k: v for k, v in around.items() if k != name})
    return {
        key: _without_nulls(value)
        for key, value in known.items()
        if value is not None and key != ENGINE_SECTION
    }


def _without_nulls(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    if isinstance(node, list | tuple):
        return [_without_nulls(item) for item in node]
    return node


def unguarded(run: Run, task: StageTask) -> str | None:
    """What is wrong where TAO's work has begun past our program; None where all nodes have it."""
    for rank in range(task.stage.resources.nodes):
        if not exists(run.node_dir(task, rank) / STARTED_FILE):
            return (
                f"on node {rank} its work began past the program of rtdetr-slurm that keeps it to "
                "its nodes and GPUs, so nobody knows which it had; this version of TAO's image "
                "starts its work in another way and cannot be used"
            )
    return None


def unfinished(results_dir: Path, spec: Mapping[str, Any]) -> str | None:
    """What is missing of a training of which TAO says that it has finished: it says so of one that
    was interrupted, too; None where the last epoch has its checkpoint."""
    epochs, found = value_at(spec, EPOCHS_FIELD), list_checkpoints(results_dir)
    if not found or not isinstance(epochs, int) or found[-1].epoch + 1 >= epochs:
        return None
    return f"its last checkpoint is {found[-1].path.name}, of {epochs} epochs"


def tao_resume_point(
    results_dir: Path, spec: Mapping[str, Any], verify: Verify
) -> CheckpointFile | None:
    """The furthest whole checkpoint that TAO can go on from; with EMA that takes two files."""
    ema = value_at(spec, "train.enable_ema")
    for one in resume_candidates(results_dir):
        files = [one.path, *([one.path.with_name(one.path.stem + EMA_SUFFIX)] if ema else [])]
        if one.step is None and not any(map(verify, files)):
            return one
    return None


def going_on(results_dir: Path, spec: Mapping[str, Any], verify: Verify) -> list[Resolved]:
    """Where a further start goes on: TAO is told, and not left to the link that it would follow.

    Without a whole checkpoint the link goes, for it leads to a torn one, if anywhere.
    """
    found = tao_resume_point(results_dir, spec, verify)
    if found is None:
        for link in latest_links(results_dir):
            link.unlink()
        return []
    return [Resolved(RESUME_FIELD, str(found.path), "resume_model of an earlier start")]


def check_master(inside: Mapping[str, str], layout: Layout) -> None:
    """What TAO asks of the rendezvous of several nodes: an IPv4 address, and on node 0 a port that
    it can bind there in its own way, without reuse.

    Raises:
        SiteError: it would not get that.
    """
    if layout.nodes == 1:
        return
    address, port = inside[Env.MASTER_ADDR], int(inside[Env.MASTER_PORT])
    if ":" in address:
        raise SiteError(f"the first node has no IPv4 address, only {address}, and TAO needs one")
    if layout.rank != 0:
        return
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            raise SiteError(
                f"port {port} cannot be used on {address}, the first node: {error.strerror}; TAO "
                "would go on with this node alone, so it is not started"
            ) from error


def enclosed(
    folder: Path, stage: Stage, layout: Layout, inside: Mapping[str, str]
) -> dict[str, str]:
    """The environment that TAO is told, with our program before the one that starts its work.

    Nothing about nodes where there is but one, for with that begins what it falls back from; and
    that it is to send nothing home, unless the site says otherwise.

    Args:
        folder: the node's own, which the image sees as TAO_FOLDER.
        inside: the launch contract.

    Raises:
        SiteError: no program can be run from there.
    """
    deploys = get_action(stage.action).program == DEPLOY
    program = folder / _BIN / ("python" if deploys else "torchrun")
    program.parent.mkdir(mode=PRIVATE_DIR, exist_ok=True)
    program.write_text(_script(program.name, stage, layout, inside))
    program.chmod(0o755)
    if not os.access(program, os.X_OK):  # also of a file system mounted noexec
        raise SiteError(
            f"nothing in {folder} may be executed on this node (noexec?), and TAO needs a program "
            "there that keeps it to its nodes and GPUs; choose another run_root"
        )
    left_out = _OF_SEVERAL_NODES if layout.nodes == 1 else ()
    told = {name: value for name, value in inside.items() if name not in left_out}
    return {
        "TELEMETRY_OPT_OUT": "yes",
        **{name: value for name, value in told.items() if not name.startswith("RTDETR_")},
        "PREPEND_PATH": f"{TAO_FOLDER}/{_BIN}",  # apptainer's own
    }


_OF_SEVERAL_NODES = frozenset(
    {
        *(Env.WORLD_SIZE, Env.NODE_RANK, Env.RANK, Env.MASTER_ADDR, Env.MASTER_PORT),
        Env.NUM_GPU_PER_NODE,
    }
)
_COUNT_GPUS = (
    "import ctypes; cuda, n = ctypes.CDLL('libcuda.so.1'), ctypes.c_int(); "
    "print(0 if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(n)) else n.value)"
)


def _script(name: str, stage: Stage, layout: Layout, inside: Mapping[str, str]) -> str:
    """What stands before the image's `torchrun`, or in its deploy image before its `python`."""
    gpus, devices = stage.resources.gpus_per_node, inside.get(Env.CUDA_VISIBLE_DEVICES)
    flags = [f"--nnodes={layout.nodes}", f"--nproc-per-node={gpus}"]
    extra = f"--master-port={inside[Env.MASTER_PORT]} "  # instead of a port for all
    if layout.nodes > 1:
        extra = ""
        flags += [
            f"--node-rank={layout.rank}",
            f"--master-addr={inside[Env.MASTER_ADDR]}",
            f"--master-port={inside[Env.MASTER_PORT]}",
        ]
    if name != "torchrun":
        flags, extra = [], ""
    fallen_back = _refusal(
        "TAO has fallen back to another topology than that of the spec, and was stopped before it "
        f"began: it was to start {name} {' '.join(flags)}; its warning is in the log"
    )
    other_gpus = _refusal(
        f"CUDA in TAO's image does not see the {gpus} GPUs of this node's allocation "
        f"({Env.CUDA_VISIBLE_DEVICES}={devices}); are driver and `apptainer exec --nv` in order?"
    )
    visible = "" if devices is None else f"export {Env.CUDA_VISIBLE_DEVICES}={shlex.quote(devices)}"
    count = f"$(python3 -c {shlex.quote(_COUNT_GPUS)})"
    counted = f'[ "{count}" = {gpus} ] || {other_gpus}'
    return f"""\
#!/bin/sh
# Written by rtdetr-slurm. TAO finds it before the image's own {name}.
refuse() {{
    printf '%s\\n' "$1" > {TAO_FOLDER}/{ERROR_JSON}
    exit {ExitCode.SITE_CANNOT}
}}
PATH=${{PATH#{TAO_FOLDER}/{_BIN}:}}
given=" $(printf '%s ' "$@" | tr _ -) "
for flag in {shlex.join(flags)}; do
    case "$given" in
    *" $flag "*) ;;
    *) {fallen_back} ;;
    esac
done
{visible}
{counted if stage.launch.accelerator == "cuda" else ""}
: > {TAO_FOLDER}/{STARTED_FILE}
exec {name} {extra}"$@"
"""


def _refusal(reason: str) -> str:
    """Shell that leaves a node's error and ends."""
    node = node_name(os.environ)
    error: NodeError = {"failure_class": FailureClass.INFRA, "reason": reason, "node": node}
    return f"refuse {shlex.quote(json.dumps(error))}"
