"""Which probe jobs a site needs, and what each asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.actions import ENGINE
from rtdetr_slurm.plan.make import check_run_dir
from rtdetr_slurm.plan.model import Bind, Endurance, Resources, Stage
from rtdetr_slurm.plan.stages import container_of, launch_of
from rtdetr_slurm.site.profile import ROLES, TENSORRT_ROLE, TRAIN_ROLE, Role, RoleName, Site
from rtdetr_slurm.slurm.configuration import Cluster, Node

MINUTES = 15
"""Time limit of a probe job; most are done in one."""
_MOST_NODES, _MOST_GPUS = 2, 2
_MOST_GIB, _MOST_CPUS_PER_GPU = 16.0, 4
"""A probe is to start soon, so it takes no more of a node than it needs."""


@dataclass(frozen=True)
class ProbePlan:
    """One probe job.

    Attributes:
        where: its partition, for people.
        partition: as sbatch gets it; None: the cluster's default.
        enters: whether the engine is started in the container.
    """

    where: str
    role: RoleName
    partition: str | None
    nodes: int
    gpus: int
    enters: bool


def plan_probes(site: Site, cluster: Cluster, only: str | None = None) -> list[ProbePlan]:
    """A probe for each partition and image that jobs of the site's roles use.

    Args:
        only: the one partition to look at, as the role would that uses it, else as training.
    """
    plans: dict[tuple[object, ...], ProbePlan] = {}
    users = [name for name in ROLES if only in (None, site.merged_role(name).partition)]
    for name in users or [TRAIN_ROLE]:
        role = site.merged_role(name)
        if name == "cpu" and not site.roles.cpu.model_fields_set:
            continue  # nothing of its own
        partition = only or role.partition
        key = (partition, role.image and role.image.path)
        plans.setdefault(key, _plan(site, cluster, name, role, partition))
    return list(plans.values())


def _plan(
    site: Site, cluster: Cluster, name: RoleName, role: Role, partition: str | None
) -> ProbePlan:
    found = cluster.partition((partition or "").split(",")[0] or None)
    where = partition or (found.name if found is not None else "default")
    gpus = _gpus(site, cluster, name, role, found.name if found is not None else "")
    nodes = 1
    if name == TRAIN_ROLE and found is not None:
        by_number = role.gpu.request == "none"
        usable = [node for node in cluster.nodes_of(found.name) if node.usable]
        able = [node for node in usable if by_number or _count(node, role) >= gpus]
        most = [_MOST_NODES, len(able), found.max_nodes, site.limits.max_nodes]
        nodes = max(1, min(number for number in most if number is not None))
    # TAO's image has no program of ours to meet with others by.
    return ProbePlan(where, name, partition, nodes, gpus, enters=role.engine == "rtdetr")


def _gpus(site: Site, cluster: Cluster, name: RoleName, role: Role, partition: str) -> int:
    if name == "cpu":
        return 0
    most = 1 if name == TENSORRT_ROLE else _MOST_GPUS
    if site.limits.max_gpus_per_node is not None:
        most = min(most, site.limits.max_gpus_per_node)
    if role.gpu.request == "none":
        # How many there are is not known; on the CPU any number of processes will do.
        return most if site.accelerator == "cpu" else 1
    counts = [_count(node, role) for node in cluster.nodes_of(partition) if node.usable]
    return min(most, max(counts, default=most) or most)


def _count(node: Node, role: Role) -> int:
    return node.gpu_count if role.gpu.type is None else node.gpus.get(role.gpu.type, 0)


def probe_stage(site: Site, plan: ProbePlan, folder: Path) -> Stage:
    """The probe as a stage, such as a job of the role has.

    Raises:
        SiteError: the role has no image, or the folder's name is none for sbatch.
    """
    check_run_dir(folder, site)
    role = site.for_role(plan.role)
    cpus, most = role.cpus_per_node(max(1, plan.gpus)), _MOST_CPUS_PER_GPU * max(1, plan.gpus)
    return Stage(
        name="probe",
        action="gen_trt_engine" if plan.role == TENSORRT_ROLE else "train",
        resources=Resources(
            nodes=plan.nodes,
            gpu_ids=tuple(range(plan.gpus)),
            gpu_request=role.gpu.request,
            gpu_type=role.gpu.type,
            cpus_per_task=None if cpus is None else min(cpus, most),
            mem_gb=None if role.mem_gb is None else min(role.mem_gb, _MOST_GIB),
            time_min=MINUTES if site.scheduler == "slurm" else None,
            partition=plan.partition,
            account=role.account,
            qos=role.qos,
            constraint=role.constraint,
        ),
        launch=launch_of(site, role, requeue=True, endurance=Endurance(max_infra_retries=0)),
        container=container_of(site, role, [Bind(str(folder), str(folder))]),
        command=(ENGINE, "probe"),
        results_dir=str(folder),
    )
