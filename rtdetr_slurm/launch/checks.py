"""What must be true on a node before the container starts. Each check raises one clear line."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import Env
from rtdetr_slurm.devices import chosen_devices, nvidia_devices
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch.allocation import topology_of
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.rendezvous import MASTER_HOST, Layout, resolve
from rtdetr_slurm.plan.model import Bind, Container, Resources, Stage
from rtdetr_slurm.runs.images import FileRecord, ImageRecord, check_unchanged, site_weights


def check_layout(layout: Layout, stage: Stage) -> None:
    """As many nodes as the spec says."""
    if layout.nodes != stage.resources.nodes:
        raise SiteError(
            f"the job step has {layout.nodes} nodes, the spec's {topology_of(stage)}.num_nodes is "
            f"{stage.resources.nodes}"
        )


def visible_devices(environ: Mapping[str, str], stage: Stage) -> str | None:
    """CUDA_VISIBLE_DEVICES for the engine: the allocation's own ids, or None to leave it unset.

    With cgroup device constraint Slurm numbers the ids from 0, without it they are the node's
    physical ones; both are right as they are. What is never done is to replace them by gpu_ids.
    Where nobody has given devices to the job, gpu_ids choose among those that are visible.

    Raises:
        SiteError: not as many GPUs as the spec needs, or MIG slices or GPU UUIDs.
    """
    resources, given = stage.resources, environ.get(Env.CUDA_VISIBLE_DEVICES)
    if not resources.gpus_per_node:
        return given
    if resources.gpu_request == "none":
        if stage.launch.accelerator == "cpu":
            return given
        devices = chosen_devices(resources.gpu_ids, given)
        if not devices and stage.launch.accelerator == "cuda":
            raise SiteError(
                f"{Env.CUDA_VISIBLE_DEVICES} is empty on this node, the spec's "
                f"{topology_of(stage)}.num_gpus is {resources.gpus_per_node}"
            )
        return devices
    if given is None:
        raise SiteError(
            f"Slurm gave this task no GPUs ({Env.CUDA_VISIBLE_DEVICES} is not set), "
            f"the spec's {topology_of(stage)}.num_gpus is {resources.gpus_per_node}"
        )
    ids = [part.strip() for part in given.split(",") if part.strip()]
    if odd := [i for i in ids if not i.isdigit()]:
        raise SiteError(
            f"{Env.CUDA_VISIBLE_DEVICES} is '{given}': {odd[0]} is a MIG slice or a GPU UUID, and "
            "only whole GPUs by number are supported; ask for whole GPUs (gpu.type in the site "
            "profile)"
        )
    if len(set(ids)) != resources.gpus_per_node:
        raise SiteError(
            f"the allocation has {len(set(ids))} GPUs on this node "
            f"({Env.CUDA_VISIBLE_DEVICES}={given}), the spec's {topology_of(stage)}.num_gpus is "
            f"{resources.gpus_per_node}"
        )
    return given


def usable_devices(dev: Path = Path("/dev")) -> int:
    """NVIDIA devices that can be opened (a cgroup that forbids one shows only then)."""
    usable = 0
    for device in nvidia_devices(dev):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError:
            continue
        usable += 1
    return usable


def check_gpu_devices(resources: Resources, dev: Path = Path("/dev")) -> None:
    """Enough NVIDIA devices can be opened here."""
    usable = usable_devices(dev)
    if usable < resources.gpus_per_node:
        raise SiteError(
            f"{usable} NVIDIA devices in {dev} can be opened on this node, "
            f"{resources.gpus_per_node} are needed; is the driver loaded?"
        )


def check_container(container: Container, binds: Sequence[Bind], recorded: ImageRecord) -> None:
    """Image and bind sources are here, and the image is the one that was submitted.

    Args:
        binds: besides those of the plan.
        recorded: the image, as it was then.
    """
    check_unchanged(recorded)
    for bind in (*container.binds, *binds):
        if not os.path.lexists(bind.source):
            raise SiteError(f"{bind.source} does not exist on this node; it must, to be bound")
        if not os.access(bind.source, os.R_OK):
            raise SiteError(f"{bind.source} cannot be read on this node")


def check_weights(models: Mapping[str, FileRecord]) -> None:
    """The site's weights that the training starts from are those of the submission."""
    for name, recorded in models.items():
        check_unchanged(recorded, site_weights(name))


def check_python(python: str | None) -> None:
    """The Python that a job without a container runs with is here."""
    if python is not None and not (Path(python).is_file() and os.access(python, os.X_OK)):
        raise SiteError(
            f"python {python} (of the site profile) is not a program on this node; make the "
            "environment on a file system that every node sees"
        )


def check_engine(python: str, env: Mapping[str, str]) -> None:
    """The environment of a job without a container has this package; another version is said.

    It may have been upgraded since the run was submitted, or between two starts of it.
    """
    code = "import rtdetr_slurm; print(rtdetr_slurm.__version__)"
    argv = [python, "-c", code]
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or "no reason given").splitlines()[-1]
        raise SiteError(f"{python} cannot load rtdetr_slurm on this node: {reason}") from error
    if (found := done.stdout.strip()) != __version__:
        say(
            f"NOTE: this start runs the engine of rtdetr-slurm {found} ({python}); the run was "
            f"submitted with {__version__}"
        )


def check_results(folder: Path) -> None:
    """The results folder takes files from this node."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"results_dir {folder} is not writable on this node")


def check_master(environ: Mapping[str, str], layout: Layout) -> None:
    """Node 0 can be reached under its address, and its port is free.

    Raises:
        SiteError: another process has the port, or the address leads back to this node itself.
    """
    address, port = resolve(environ[Env.MASTER_ADDR]), int(environ[Env.MASTER_PORT])
    if layout.rank == 0:
        _check_port(port)
    elif ipaddress.ip_address(address).is_loopback and environ[MASTER_HOST] != socket.gethostname():
        raise SiteError(
            f"the first node, {environ[MASTER_HOST]}, calls itself {address}, which on this node "
            "is this node; its name must resolve to an address of the network (/etc/hosts there)"
        )


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        # As the rendezvous itself: old connections in TIME_WAIT are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise SiteError(
                f"port {port} (MASTER_PORT) cannot be used on the first node: {error.strerror}; "
                "somebody has taken it since the launch looked; submit again to get another one"
            ) from error
