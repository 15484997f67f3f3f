"""What the ranks of this node find in their environment: devices, threads, temporary files.

It is decided before torch is imported, which reads it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.contract import Env
from rtdetr_slurm.devices import chosen_devices
from rtdetr_slurm.engine.process.rendezvous import Rendezvous
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec import Topology

_SOCKET_PATH = 107
"""Bytes that Linux has for the path of a socket."""
_SOCKET_NAME = len("/pymp-01234567/listener-4194304-0123-01234567")
"""What Python adds to the folder for temporary files, for the sockets that loading processes hand
their batches over with. One whose path is too long is never opened, and its reader waits."""
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def accelerated(environ: Mapping[str, str], asked: Topology) -> Mapping[str, str]:
    """The environment with the device that the spec settles, where it does."""
    return {**environ, Env.ACCELERATOR: "cpu"} if asked.on_cpu else environ


def rank_environment(
    environ: Mapping[str, str], asked: Topology, rendezvous: Rendezvous
) -> dict[str, str]:
    """The environment that the ranks of this node have in common.

    Args:
        environ: of the launching process.
        asked: what the spec asks for.

    Raises:
        SiteError: gpu_ids name devices that are not there, or there is no folder for temporary
            files whose path is short enough.
    """
    environment = dict(environ)
    if environ.get(Env.ACCELERATOR) != "cpu" and not rendezvous.launched:
        visible = environ.get(Env.CUDA_VISIBLE_DEVICES)
        environment[Env.CUDA_VISIBLE_DEVICES] = chosen_devices(asked.gpu_ids, visible)
    threads = max(1, node_cpus(environ) // rendezvous.processes_per_node)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    # Threads that wait spin a little and then sleep: as fast as GNU OpenMP's default on idle cores,
    # and several times faster where other processes want them, too.
    environment.setdefault("GOMP_SPINCOUNT", "10000")
    environment["TMPDIR"] = short_folder(tempfile.gettempdir())
    return environment


def node_cpus(environ: Mapping[str, str]) -> int:
    """CPU cores of this node that are this start's: the job's share, where the launch has told it,
    and no more than this process may run on."""
    visible, told = len(os.sched_getaffinity(0)), environ.get(Env.CPUS)
    if told is None:
        return visible
    if not told.isdecimal() or int(told) < 1:
        raise SiteError(f"{Env.CPUS} is '{told}', which is not a number of CPU cores")
    return min(visible, int(told))


def short_folder(folder: str) -> str:
    """`folder`, or one of the system's for temporary files where its path is too long for a socket.

    Raises:
        SiteError: none of them takes files.
    """
    room = _SOCKET_PATH - _SOCKET_NAME
    if len(os.fsencode(folder)) <= room:
        return folder
    for short in _SHORT_FOLDERS:
        if Path(short).is_dir() and os.access(short, os.W_OK | os.X_OK):
            print(
                f"rtdetr: temporary files are in {short}: the path of TMPDIR, {folder}, is longer "
                f"than the {room} bytes that leave room for a socket's name",
                flush=True,
            )
            return short
    raise SiteError(
        f"TMPDIR is {folder}: its path is longer than the {room} bytes that leave room for a "
        f"socket's name, and none of {', '.join(_SHORT_FOLDERS)} takes files. Set TMPDIR (scratch "
        "in the site profile) to a shorter one"
    )
