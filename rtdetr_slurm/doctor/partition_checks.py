"""Whether jobs of a site can start in a partition. Pure."""

from __future__ import annotations

from rtdetr_slurm.doctor.finding import Finding, failure, ok, warning
from rtdetr_slurm.site.profile import Role, Site
from rtdetr_slurm.slurm.configuration import Cluster


def check_partition(cluster: Cluster, name: str | None, role: Role, site: Site) -> Finding:
    """Whether jobs of a role can start in a partition.

    Args:
        name: None: the cluster's default.
    """
    found = cluster.partition(name)
    where = found.name if found is not None else name or "default"
    check = "slurm.partition"
    if found is None:
        known = ", ".join(one.name for one in cluster.partitions) or "none"
        said = f"there is no partition {name}" if name else "there is no default partition"
        return failure(check, said, f"set partition in the profile to one of: {known}", where)
    nodes = cluster.nodes_of(found.name)
    usable = [node for node in nodes if node.usable]
    gpus = [node.gpu_count for node in usable]
    longest = f"at most {found.max_min} min" if found.max_min is not None else "any time"
    said = (
        f"{found.state.lower()}, {len(usable)} of {len(nodes)} nodes in use or free, "
        f"{_range(gpus)} GPUs each, {longest}"
    )
    if found.state.upper() != "UP":
        return failure(
            check, said, "choose another partition, or ask the administrator when it is back", where
        )
    if not usable:
        return failure(
            check, said, "choose another partition; `sinfo -R` says why its nodes are out", where
        )
    if role.time is not None and found.max_min is not None and role.time > found.max_min:
        return failure(
            check,
            f"{said}; the profile's time is {role.time} min",
            f"set time in the profile to at most {found.max_min} min",
            where,
        )
    if found.accounts is not None and role.account and role.account not in found.accounts:
        return failure(
            check,
            f"{said}; account {role.account} may not use it",
            f"set account to one of: {', '.join(found.accounts)}",
            where,
        )
    return _with_gpus(cluster, found.name, role, site, said)


def _with_gpus(cluster: Cluster, name: str, role: Role, site: Site, said: str) -> Finding:
    check = "slurm.partition"
    if role.gpu.request == "none" or site.accelerator != "cuda":
        return ok(check, said, name)
    types = sorted({kind for node in cluster.nodes_of(name) for kind in node.gpus})
    if not types:
        return failure(
            check,
            f"{said}; Slurm manages no GPUs there",
            "choose a partition with GPUs, or set gpu: {request: none} where Slurm does not "
            "manage them",
            name,
        )
    if role.gpu.type is not None and role.gpu.type not in types:
        named = ", ".join(filter(None, types))
        return failure(
            check,
            f"{said}; no GPU of type {role.gpu.type}",
            f"set gpu.type to one of: {named}" if named else "leave gpu.type out",
            name,
        )
    slices = [kind for kind in types if "gb" in kind and "g." in kind]
    if slices and role.gpu.type is None:
        return warning(
            check,
            f"{said}; among them MIG slices ({', '.join(slices)}), which are refused",
            "set gpu.type to a type of whole GPUs",
            name,
        )
    return ok(check, f"{said}, types: {', '.join(filter(None, types)) or 'unnamed'}", name)


def _range(numbers: list[int]) -> str:
    if not numbers:
        return "no"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
