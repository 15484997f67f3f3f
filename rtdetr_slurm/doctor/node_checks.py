"""What a node's record of itself means for jobs there. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from rtdetr_slurm.doctor.finding import Finding, Outcome, failure, ok, warning
from rtdetr_slurm.doctor.probe import Probe
from rtdetr_slurm.runs.probe import NodeFacts

_GIB = 2**30
_OLDEST_APPTAINER = (1, 1)
_LITTLE_SHM_GIB, _LITTLE_SCRATCH_GIB = 1.0, 5.0
_REMEDIES = {
    "node.gpus": "set gpu and accelerator in the profile to what the nodes have; administrators: "
    "gres.conf, and the driver on the nodes",
    "node.apptainer": "set apptainer in the profile to its path, or module_lines to what loads it",
    "node.image": "put the image on a file system that every node sees, and set image to it",
    "node.scratch": "set scratch in the profile to a folder that every node has, or leave it out",
    "node.python": "make the environment on a file system that every node sees",
    "node.names": "administrators: the nodes' names must resolve to addresses of their network",
}


def check_nodes(nodes: Sequence[NodeFacts], probe: Probe) -> Iterator[Finding]:
    """A line for each check, and more than one where nodes differ."""
    checks: list[tuple[str, Callable[[NodeFacts, Probe], Finding]]] = [
        ("node.names", _names),
        ("node.gpus", _gpus),
        ("node.scratch", _scratch),
        ("node.shm", _shm),
    ]
    stage_has_container = probe.site.merged_role(probe.plan.role).container == "apptainer"
    if stage_has_container and probe.site.scheduler == "slurm":
        checks += [("node.apptainer", _apptainer), ("node.image", _image)]
    else:
        checks += [("node.python", _python)]
    for check, judge in checks:
        found: dict[tuple[Outcome, str, str], list[str]] = defaultdict(list)
        for node in nodes:
            if problem := node["problems"].get(check):
                said, _, advice = problem.partition("; ")
                one = failure(check, said, advice or _REMEDIES[check])
            else:
                one = judge(node, probe)
            found[one.outcome, one.found, one.remedy].append(node["host"])
        for (outcome, said, remedy), hosts in found.items():
            only = f"{', '.join(hosts)}: " if len(found) > 1 else ""
            yield Finding(check, outcome, only + said, remedy, probe.plan.where)


def _names(node: NodeFacts, _probe: Probe) -> Finding:
    interface = node["interface"]
    said = f"node 0 can be addressed; the default route leads through {interface or 'nothing'}"
    return ok("node.names", said)


def _gpus(node: NodeFacts, probe: Probe) -> Finding:
    check, devices, physical = "node.gpus", node["devices"], node["physical"]
    if not probe.plan.gpus:
        return ok(check, "none asked for")
    if devices is None:
        return ok(check, "Slurm manages none")
    given = f"CUDA_VISIBLE_DEVICES={devices}"
    given += f" (driver {node['driver']})" if node["driver"] else ""
    if physical is not None and devices != physical:
        return ok(check, f"{given}: renumbered from {physical}")
    count = len(devices.split(","))
    if not node["present"]:
        return ok(check, f"{given}; there are no NVIDIA devices on the node")
    if node["usable"] == count < node["present"]:
        return ok(check, f"{given}; a job can open its own {count} of {node['present']} devices")
    if node["usable"] > count:
        return ok(
            check,
            f"{given}: physical numbers, and all {node['present']} devices can be opened (no "
            "ConstrainDevices); jobs keep to their numbers",
        )
    return ok(check, f"{given}: all {node['present']} devices of the node")


def _scratch(node: NodeFacts, _probe: Probe) -> Finding:
    said = f"{node['scratch']} takes files, {node['scratch_free'] / _GIB:.0f} GiB free"
    if node["scratch_free"] < _LITTLE_SCRATCH_GIB * _GIB:
        return warning("node.scratch", said, "set scratch in the profile to a folder with room")
    return ok("node.scratch", said)


def _shm(node: NodeFacts, _probe: Probe) -> Finding:
    said = f"/dev/shm has {node['shm_free'] / _GIB:.1f} GiB free; umask {node['umask']}"
    if node["shm_free"] < _LITTLE_SHM_GIB * _GIB:
        return warning(
            "node.shm",
            said,
            "lower dataset.workers; administrators: a larger /dev/shm, and none of --contain or "
            "--containall in apptainer.conf",
        )
    return ok("node.shm", said)


def _python(_node: NodeFacts, probe: Probe) -> Finding:
    role = probe.site.merged_role(probe.plan.role)
    return ok("node.python", f"{role.python or 'the Python of the login node'} is there")


def _apptainer(node: NodeFacts, _probe: Probe) -> Finding:
    check, text = "node.apptainer", node["apptainer"]
    numbers = re.search(r"(\d+)\.(\d+)", text or "")
    if text is None or numbers is None:
        return failure(check, "it does not say its version", _REMEDIES[check])
    ways = {True: "setuid", False: "user namespaces", None: "setuid or not is not known"}
    said = f"{text}, {ways[node['setuid']]}"
    if "singularity" in text.lower():
        return warning(check, said, "this is tested with Apptainer; report what goes wrong")
    if (int(numbers[1]), int(numbers[2])) < _OLDEST_APPTAINER:
        return failure(
            check, said, "at least 1.1 is needed (--no-eval, and --no-mount of several places)"
        )
    if node["setuid"] is False and node["userns"]:
        return failure(
            check,
            f"{said}, but {node['userns']}",
            "administrators: allow user namespaces, or install apptainer-suid",
        )
    return ok(check, said)


def _image(_node: NodeFacts, _probe: Probe) -> Finding:
    return ok("node.image", "image and binds are there; the image is the login node's")
