"""`rtdetr` as in NVIDIA TAO's images: what its entry points do with nodes, GPUs and exit codes.

Written from their documented behaviour. TAO_FAULT in the environment asks for a fault: `busy-port`
(its test of the rendezvous port on the first node fails), `interrupt` (somebody interrupts it in
the second epoch), `exception` (a rank fails without a word in status.json) or `slow` (a training
that goes on from nothing does not get through its third epoch).
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import yaml

WORK = "/opt/tao/work.py"
DEPLOY = ("gen_trt_engine",)


def log(message: str) -> None:
    print(f"[TAO Toolkit] {message}", flush=True)


def device_count() -> int:
    """torch.cuda.device_count(), of a machine with eight GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return 8 if visible is None else len([one for one in visible.split(",") if one.strip()])


def validate() -> None:
    """Several nodes, by the environment alone; whatever displeases is a ValueError."""
    nodes, rank = int(os.environ["WORLD_SIZE"]), os.environ.get("NODE_RANK")
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    gpus = os.environ.get("NUM_GPU_PER_NODE")
    if nodes < 1 or (rank is not None and not 0 <= int(rank) < nodes):
        raise ValueError("node rank out of range")
    if gpus is not None and not 1 <= int(gpus) <= device_count():
        raise ValueError("number of GPUs out of range")
    if port is not None and not 1024 <= int(port) <= 65535:
        raise ValueError("port out of range")
    if nodes == 1:
        return
    if address is None or port is None or rank is None:
        raise ValueError("address, port and rank are needed for several nodes")
    socket.gethostbyname(address)
    if int(rank) == 0:
        if os.environ.get("TAO_FAULT") == "busy-port":
            raise ValueError(f"port {port} is in use")
        with socket.socket() as probe:  # without reuse, and to this very address
            probe.bind((address, int(port)))
            probe.listen(1)


def topology(subtask: str, path: Path) -> tuple[list[str], list[int]]:
    """(--nnodes=…, …) of torchrun, and the GPU ids; the spec is written anew under WORLD_SIZE."""
    spec = yaml.safe_load(path.read_text())
    section = spec.get("train" if subtask == "distill" else subtask, {})
    gpus, ids, nodes = section.get("num_gpus", 1), section.get("gpu_ids", [0]), 1
    if subtask in ("train", "evaluate", "inference", "distill"):
        nodes = section.get("num_nodes", 1)
    else:
        gpus, ids = 1, [0]
    if gpus != len(ids):
        gpus = max(gpus, len(ids))
        ids = list(range(gpus)) if len(ids) != gpus else ids
    flags = [f"--nnodes={nodes}", f"--nproc-per-node={gpus}"]
    if os.environ.get("WORLD_SIZE"):
        try:
            validate()
            nodes = int(os.environ["WORLD_SIZE"])
            gpus = int(os.environ.get("NUM_GPU_PER_NODE", device_count()))
            ids = list(range(gpus))
            spec["train"] = {**spec.get("train", {}), "num_nodes": nodes, "num_gpus": gpus}
            spec["train"]["gpu_ids"] = ids
            path.write_text(yaml.dump(spec, default_flow_style=False))
            flags = [
                f"--nnodes={nodes}",
                f"--nproc-per-node={gpus}",
                f"--node-rank={os.environ.get('NODE_RANK') or os.environ.get('RANK')}",
                f"--master-addr={os.environ.get('MASTER_ADDR', 'localhost')}",
                f"--master-port={os.environ.get('MASTER_PORT', '29500')}",
            ]
        except Exception as error:
            log(f"WARNING: [Multinode] Error overriding configs: {error}")
            log("WARNING: [Multinode] Using default configs.")
            gpus = device_count()
            ids = list(range(gpus))
            flags = ["--nnodes=1", f"--nproc-per-node={gpus}"]
    return flags, ids


def main() -> int:
    subtask, path = sys.argv[1], Path(sys.argv[sys.argv.index("-e") + 1])
    if not path.exists():
        print(f"ERROR: The indicated experiment spec file `{path}` doesn't exist!")
        return 1
    folder, name = os.path.split(path)
    arguments = f"{subtask} --config-path {os.path.realpath(folder)} --config-name {name}"
    os.environ["TAO_ENTRY_PID"] = str(os.getpid())
    if subtask in DEPLOY:
        call = f"bash -c ' CUDA_VISIBLE_DEVICES=0 python {WORK} {arguments}'"
    else:
        flags, ids = topology(subtask, path)
        os.environ["TAO_VISIBLE_DEVICES"] = str(ids)[1:-1]
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["TAO_VISIBLE_DEVICES"]
        if not os.environ.get("RANK") and os.environ.get("NODE_RANK"):
            os.environ["RANK"] = os.environ["NODE_RANK"]
        call = f"torchrun {' '.join(flags)} {WORK} {arguments}"
    passed = False
    try:
        done = subprocess.run(shlex.split(call), check=False)
        log(f"Command completed with return code {done.returncode}")
        passed = done.returncode == 0
    except (KeyboardInterrupt, SystemExit):
        log("Command was interrupted")
        passed = True
    if os.environ.get("TELEMETRY_OPT_OUT") != "yes":
        log("Sending telemetry data.")
    log(f"Execution status: {'PASS' if passed else 'FAIL'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
