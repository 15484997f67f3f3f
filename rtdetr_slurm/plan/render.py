"""A plan as text for people."""

from __future__ import annotations

import shlex

from rtdetr_slurm.plan.model import Array, Container, Dependency, Plan, Stage
from rtdetr_slurm.slurm.times import format_minutes


def render_plan(plan: Plan, *, run_dir: str, site_name: str) -> str:
    """The stages, their resources, commands and dependencies, a few lines each."""
    lines = [f"run folder  {run_dir}", f"site        {site_name}"]
    lines += [f"note        {note}" for note in plan.notes]
    for number, stage in enumerate(plan.stages, start=1):
        lines += ["", f"stage {number}     {stage.name}"]
        lines += [f"  {key:<9} {value}" for key, value in _facts(stage)]
    return "\n".join(lines)


def _facts(stage: Stage) -> list[tuple[str, str]]:
    facts = [
        ("resources", _resources(stage)),
        *([] if stage.array is None else [("array", _array(stage.array))]),
        ("command", shlex.join(stage.command) or _work(stage)),
        ("results", stage.results_dir),
        ("after", ", ".join(map(_after, stage.depends_on)) or "nothing: starts at once"),
    ]
    for one in stage.inputs:
        if one.origin or one.uri:
            facts.append(("input", f"{one.field}: {one.source}"))
    facts += [("copied", f"{field}: to {stage.launch.scratch}") for field in stage.local_copy]
    if stage.container is not None:
        facts[1:1] = _container_facts(stage.container, stage.launch.engine)
    elif stage.launch.python is not None:
        facts[1:1] = [("python", stage.launch.python)]
    return facts


def _work(stage: Stage) -> str:
    """What a stage does that runs no command."""
    if stage.upload is not None:
        return f"puts a copy of the run below {stage.upload.to}"
    if stage.staging is None:
        return f"finds the best trial of {stage.best_of}"
    objects = {one.object.uri for one in stage.staging.fields}
    what = "source" if len(objects) == 1 else "sources"
    return f"brings {len(objects)} {what} to {stage.staging.cache}, and checks the data"


def _array(array: Array) -> str:
    throttle = "" if array.throttle is None else f", {array.throttle} at a time"
    return f"{array.size} {'jobs' if array.size > 1 else 'job'} of these{throttle}"


def _after(dependency: Dependency) -> str:
    return f"{dependency.on} ({dependency.kind})"


def _resources(stage: Stage) -> str:
    r = stage.resources
    unit = "process" if stage.launch.accelerator == "cpu" else "GPU"
    kind = f" ({r.gpu_type})" if r.gpu_type else ""
    plural = ("es" if unit == "process" else "s") * (r.gpus_per_node != 1)
    parts = [
        f"{r.nodes} node{'s' * (r.nodes != 1)}"
        + (f" × {r.gpus_per_node} {unit}{plural}{kind}" if r.gpus_per_node else ""),
        f"{r.cpus_per_task} CPUs per node" if r.cpus_per_task else "",
        f"{r.mem_gb:g} GiB per node" if r.mem_gb else "",
        f"time limit {format_minutes(r.time_min)}" if r.time_min else "no time limit of its own",
        f"partition {r.partition}" if r.partition else "",
        f"account {r.account}" if r.account else "",
        f"qos {r.qos}" if r.qos else "",
        f"constraint {r.constraint}" if r.constraint else "",
        "whole nodes" if r.exclusive else "",
    ]
    return ", ".join(part for part in parts if part)


def _container_facts(container: Container, engine: str) -> list[tuple[str, str]]:
    pinned = f" (sha256 {container.image.sha256[:12]}…)" if container.image.sha256 else ""
    whose = ", NVIDIA TAO's" if engine == "tao" else ""
    facts = [("image", container.image.path + pinned + whose)]
    for bind in container.binds:
        where = bind.source if bind.source == bind.target else f"{bind.source} as {bind.target}"
        facts.append(("bind", where + (" (read-only)" if bind.read_only else "")))
    return facts
