"""A site profile from what a cluster and its login node say about themselves. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.slurm.configuration import Cluster, Node, Partition
from rtdetr_slurm.slurm.times import format_minutes
from rtdetr_slurm.yaml_source import to_yaml

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "wekafs", "panfs"),
        *("pvfs2", "orangefs", "fuse.glusterfs", "quobyte", "fuse.juicefs", "virtiofs"),
    }
)
_DAY = 24 * 60
_USUAL_FOLDERS = ("/usr/bin/", "/usr/local/bin/", "/bin/")
_DEPLOYS = re.compile(r"tensorrt|trt|infer|deploy|serv", re.IGNORECASE)
_COLUMN = 34


@dataclass(frozen=True)
class Folder:
    """A folder that the user may write to.

    Attributes:
        kind: of its file system.
        free: bytes.
    """

    path: str
    kind: str
    free: int

    @property
    def shared(self) -> bool:
        """Whether other machines can see it, going by its file system."""
        return self.kind in NETWORK_FILE_SYSTEMS


@dataclass(frozen=True)
class Surroundings:
    """What the login node says.

    Attributes:
        apptainer: path of the program; None where it is not on PATH.
        modules: that are loaded.
        proxies: names of the proxy variables that are set.
    """

    folders: Sequence[Folder]
    apptainer: str | None = None
    modules: Sequence[str] = ()
    proxies: Sequence[str] = ()


@dataclass(frozen=True)
class Draft:
    """The profile's text, and what is left to the user."""

    text: str
    unknown: tuple[str, ...]


def draft_profile(cluster: Cluster, around: Surroundings) -> Draft:
    """A commented profile: each key says where it comes from; what is not known is a comment."""
    return _Writer(cluster, around).draft()


class _Writer:
    def __init__(self, cluster: Cluster, around: Surroundings) -> None:
        self._cluster, self._around = cluster, around
        self._lines: list[str] = []
        self._unknown: list[str] = []

    def draft(self) -> Draft:
        name = self._cluster.setting("ClusterName") or "cluster"
        self._lines += [
            f"# Site profile of cluster {name}, written by `rtdetr-slurm site init` from what",
            "# Slurm and its login node say. docs/site.md explains every key; `rtdetr-slurm",
            "# doctor` tells how far it is right.",
            "",
        ]
        self._key("name", name, "ClusterName")
        train = training_partition(self._cluster)
        self._partition(train)
        self._account()
        self._resources(train)
        self._image()
        self._roles(train)
        self._run_root()
        self._rest(train)
        if self._unknown:
            self._lines += ["", "# Could not be found out:"]
            self._lines += [f"#   - {one}" for one in self._unknown]
        return Draft("\n".join(self._lines) + "\n", tuple(self._unknown))

    def _partition(self, train: Partition | None) -> None:
        self._lines += ["", "# --- what every job gets, unless its role or its spec says otherwise"]
        if train is None:
            self._missing("partition: NAME", "which partition to use: Slurm shows none")
            return
        self._key("partition", train.name, _about(self._cluster.nodes_of(train.name), train))

    def _account(self) -> None:
        accounts = sorted({one.account for one in self._cluster.associations or ()})
        default = self._cluster.default_account
        if default:
            others = [name for name in accounts if name != default]
            more = f"; also yours: {', '.join(others)}" if others else ""
            self._key("account", default, f"your default account{more}")
        elif self._cluster.associations is None:
            self._missing("account: NAME", "your account: sacctmgr does not answer")

    def _resources(self, train: Partition | None) -> None:
        nodes = [] if train is None else self._cluster.nodes_of(train.name)
        if train is not None:
            limit = min(train.max_min or _DAY, _DAY)
            most = (
                "any time" if train.max_min is None else f"at most {format_minutes(train.max_min)}"
            )
            self._key("time", format_minutes(limit), f"of jobs that name none; allowed: {most}")
        with_gpus = [node for node in nodes if node.gpu_count]
        if not with_gpus:
            self._key("accelerator", "cpu", "Slurm shows no GPUs in this partition")
            self._key("gpu", {"request": "none"}, "the same")
            self._unknown.append(
                "whether there are GPUs: Slurm shows none in this partition (if there are: "
                "accelerator: cuda)"
            )
            return
        cpus = min(node.cpus // node.gpu_count for node in with_gpus)
        if cpus:
            self._key("cpus_per_gpu", cpus, "CPUs of a node, shared among its GPUs")
        memory = min(node.memory_mb // node.gpu_count for node in with_gpus) // 1024
        if memory:
            text = (
                f"memory per node; a GPU's share is {memory} GiB. Left out: the cluster's default"
            )
            self._lines.append(_aligned("# mem_gb: " + str(memory), text))
        select = self._cluster.setting("SelectType").removeprefix("select/")
        request = "gpus-per-node" if select in ("cons_tres", "") else "gres"
        gpu: dict[str, Any] = {"request": request}
        types = sorted({kind for node in with_gpus for kind in node.gpus if kind})
        if len(types) > 1:
            gpu["type"] = most_common_type(with_gpus)
        said = f"SelectType {select}" + (f"; types here: {', '.join(types)}" if types else "")
        self._key("gpu", gpu, said)

    def _image(self) -> None:
        self._lines.append("")
        self._missing(
            "image: /shared/images/rtdetr.sif",
            "the image: `rtdetr-slurm image build` makes it (docs/containers.md); then set `image`",
        )
        found = self._around.apptainer
        if found is not None and not found.startswith(_USUAL_FOLDERS):
            self._key("apptainer", found, "found here; nodes must see it under the same path")
        elif found is None:
            self._unknown.append(
                "where apptainer is: it is not on PATH here; the nodes may have it, or a module "
                "(module_lines)"
            )
        modules = [m for m in self._around.modules if re.match(r"apptainer|singularity", m)]
        if modules:
            self._key("module_lines", [f"module load {modules[0]}"], "loaded here")

    def _roles(self, train: Partition | None) -> None:
        roles: dict[str, tuple[Partition, str]] = {}
        others = [one for one in self._cluster.partitions if one != train and one.state == "UP"]
        for one in others:
            nodes = self._cluster.nodes_of(one.name)
            gpus = any(node.gpu_count for node in nodes)
            if gpus and _DEPLOYS.search(one.name):
                roles.setdefault("tensorrt", (one, f"by its name; {_about(nodes, one)}"))
            elif nodes and not gpus:
                roles.setdefault("cpu", (one, f"has no GPUs; {_about(nodes, one)}"))
        if roles:
            self._lines += ["", "# --- what is different for some kinds of jobs", "roles:"]
        for name, (one, said) in sorted(roles.items()):
            self._lines.append(f"  {name}:")
            self._key("partition", one.name, said, indent=4)
        if "tensorrt" not in roles:
            self._unknown.append(
                "where TensorRT engines are built and run: the partition with the GPUs that will "
                "run them (roles.tensorrt.partition); left out, it is that of training"
            )

    def _run_root(self) -> None:
        self._lines += ["", "# --- what every job sees and how it runs"]
        best = best_folder(self._around.folders)
        if best is None:
            self._missing(
                "run_root: /shared/you/runs", "where runs can be kept: no folder was found"
            )
            return
        room = f"{best.kind}, {best.free / 2**30:.0f} GiB free"
        self._key("run_root", f"{best.path.rstrip('/')}/rtdetr-runs", room)
        if not best.shared:
            self._unknown.append(
                f"whether compute nodes see {best.path} ({best.kind}); `rtdetr-slurm doctor` finds "
                "it out"
            )

    def _rest(self, train: Partition | None) -> None:
        if self._around.proxies:
            self._key("env", [*self._around.proxies], "set here; let in")
        grace = train.grace_s if train is not None else 0
        preempts = train is not None and train.preempt_mode.upper() not in ("OFF", "")
        if preempts and 10 <= grace < 120:
            self._key("signal_lead_s", grace, "the partition's GraceTime")

    # --- lines ---------------------------------------------------------------------------------
    def _key(self, name: str, value: Any, comment: str, indent: int = 0) -> None:
        first, *rest = to_yaml({name: value}).rstrip("\n").split("\n")
        pad = " " * indent
        self._lines.append(_aligned(pad + first, comment))
        self._lines += [pad + line for line in rest]

    def _missing(self, line: str, what: str) -> None:
        self._lines.append(_aligned(f"# {line}", "could not be found out, see the end"))
        self._unknown.append(what)


def training_partition(cluster: Cluster) -> Partition | None:
    """The one with GPUs: the default if it has some, else that with the most; without any GPUs the
    default, or the first. Names that speak of inference come last."""

    def rank(one: Partition) -> tuple[bool, bool, bool, bool, int]:
        nodes = [node for node in cluster.nodes_of(one.name) if node.usable]
        gpus = sum(node.gpu_count for node in nodes)
        up = one.state.upper() == "UP"
        return up, gpus > 0, not _DEPLOYS.search(one.name), one.default, gpus

    return max(cluster.partitions, key=rank, default=None)


def most_common_type(nodes: Sequence[Node]) -> str:
    """The type of which there are most; the first by name of equals."""
    counts: dict[str, int] = {}
    for node in nodes:
        for kind, count in node.gpus.items():
            if kind:
                counts[kind] = counts.get(kind, 0) + count
    return max(sorted(counts), key=lambda kind: counts[kind])


def best_folder(folders: Sequence[Folder]) -> Folder | None:
    """Of those that other machines can see, the one with the most room; else of all."""
    return max(folders, key=lambda folder: (folder.shared, folder.free), default=None)


def _about(nodes: Sequence[Node], partition: Partition) -> str:
    return ", ".join(_facts(nodes, partition))


def _facts(nodes: Sequence[Node], partition: Partition) -> Iterator[str]:
    yield f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
    gpus = sorted({node.gpu_count for node in nodes})
    if any(gpus):
        yield f"{' or '.join(map(str, gpus))} GPUs each"
    if partition.default:
        yield "the cluster's default"


def _aligned(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN}} # {comment}" if comment else text
