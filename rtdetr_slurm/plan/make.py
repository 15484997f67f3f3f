"""Spec + site → Plan. Pure: no Slurm, no clock, no files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import RESULTS_DIR, SPEC_YAML
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.model import Bind, Container, Image, Launch, Plan, Resources, Stage
from rtdetr_slurm.plan.paths import absolute_paths, read_paths
from rtdetr_slurm.site.profile import Role, Site
from rtdetr_slurm.slurm.times import format_minutes, parse_minutes

if TYPE_CHECKING:
    from rtdetr_slurm.spec import LoadedSpec

_PLAIN_TRAINING = "plain training: no AutoML sweep (automl.policy was left at its default)"


def frozen_spec(loaded: LoadedSpec, *, run_dir: Path, cwd: Path) -> dict[str, Any]:
    """The resolved spec with absolute paths; results go to the run folder where it names none."""
    spec = absolute_paths(loaded.resolved(), cwd)
    if not spec.get("results_dir"):
        spec["results_dir"] = str(run_dir / RESULTS_DIR)
    return spec


def make_plan(loaded: LoadedSpec, spec: Mapping[str, Any], site: Site, *, run_dir: Path) -> Plan:
    """The stages of one submission.

    Args:
        spec: `frozen_spec()` of `loaded`.
        run_dir: absolute path the run's folder has or will have.

    Raises:
        RequestError: the spec asks for what cannot be (gpu_ids that are not 0..n-1).
        SiteError: the site has no image or partition for it, or a limit is exceeded.
    """
    action = loaded.action
    if site.scheduler == "slurm" and ("%" in str(run_dir) or "\n" in str(run_dir)):
        raise SiteError(
            f"run_root: {str(run_dir.parent)!r} has a '%' or a line break, which sbatch would read "
            "as something else; choose another folder"
        )
    role = site.for_role(ACTIONS[action].role)
    resources = _resources(loaded, site, role)
    _check_limits(resources, site)
    results_dir = action_results_dir(spec, action)
    stage = Stage(
        name=action,
        action=action,
        resources=resources,
        launch=_launch(loaded, site, role),
        container=_container(spec, action, site, role, run_dir, results_dir),
        command=_command(loaded),
        results_dir=results_dir,
    )
    notes = [_PLAIN_TRAINING] if action == "train" and not loaded.automl_explicit else []
    return Plan(stages=(stage,), notes=tuple(notes))


def action_results_dir(spec: Mapping[str, Any], action: str) -> str:
    """`<action>.results_dir`, else `results_dir/<action>`, as in TAO."""
    section = spec.get(action) or {}
    return str(section.get("results_dir") or Path(spec["results_dir"]) / action)


def _resources(loaded: LoadedSpec, site: Site, role: Role) -> Resources:
    job, nodes, gpu_ids = loaded.job, loaded.topology.num_nodes, loaded.topology.gpu_ids
    wanted = tuple(range(len(gpu_ids)))
    if site.scheduler == "slurm" and gpu_ids != wanted:
        raise RequestError(
            f"{loaded.action}.gpu_ids: found {list(gpu_ids)}; on Slurm these are indices within "
            f"the allocation, so {len(gpu_ids)} GPUs are {list(wanted)}"
        )
    if site.scheduler == "local" and nodes != 1:
        raise RequestError(
            f"{loaded.action}.num_nodes: found {nodes}; site '{site.name}' runs on this machine "
            "only, so it must be 1"
        )
    time = job.time if job.time is not None else role.time
    return Resources(
        nodes=nodes,
        gpu_ids=gpu_ids,
        gpu_request=role.gpu.request,
        gpu_type=role.gpu.type,
        cpus_per_task=job.cpus_per_task or role.cpus_per_node(len(gpu_ids)),
        mem_gb=job.mem_gb or role.mem_gb,
        time_min=None if time is None else parse_minutes(time),
        partition=job.partition or role.partition,
        account=job.account or role.account,
        qos=job.qos or role.qos,
        constraint=role.constraint,
    )


def _check_limits(resources: Resources, site: Site) -> None:
    limits = site.limits
    problems = []
    if limits.max_nodes is not None and resources.nodes > limits.max_nodes:
        problems.append(f"num_nodes: found {resources.nodes}; at most {limits.max_nodes}")
    gpus = resources.gpus_per_node
    if limits.max_gpus_per_node is not None and gpus > limits.max_gpus_per_node:
        problems.append(f"num_gpus: found {gpus}; at most {limits.max_gpus_per_node} per node")
    if limits.max_time is not None:
        longest = format_minutes(limits.max_time)
        if resources.time_min is None:
            problems.append(f"job.time: none given; name one of at most {longest}")
        elif resources.time_min > limits.max_time:
            found = format_minutes(resources.time_min)
            problems.append(f"job.time: found {found}; at most {longest}")
    if limits.partitions is not None and resources.partition not in limits.partitions:
        allowed = ", ".join(limits.partitions) or "none"
        problems.append(f"job.partition: found {resources.partition}; allowed: {allowed}")
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise SiteError(f"the limits of site '{site.name}' are exceeded:{lines}")


def _launch(loaded: LoadedSpec, site: Site, role: Role) -> Launch:
    return Launch(
        scheduler=site.scheduler,
        accelerator=site.accelerator,
        signal_lead_s=site.signal_lead_s,
        requeue=site.scheduler == "slurm" and site.requeue and loaded.job.requeue,
        network_interface=site.network_interface,
        scratch=site.scratch,
        env=tuple(name for name, value in site.env.items() if value is None),
        set_env=tuple((name, value) for name, value in site.env.items() if value is not None),
        python=role.python,
        module_lines=tuple(site.module_lines),
        wckey=site.wckey,
    )


def _command(loaded: LoadedSpec) -> tuple[str, ...]:
    command = ["rtdetr", loaded.action, "-e", SPEC_YAML]
    if loaded.action == "train" and loaded.job.bad_images == "skip":
        command += ["--bad-images", "skip"]
    return tuple(command)


def _container(
    spec: Mapping[str, Any], action: str, site: Site, role: Role, run_dir: Path, results_dir: str
) -> Container | None:
    if role.image is None:
        return None
    binds = [Bind(str(run_dir), str(run_dir)), Bind(results_dir, results_dir)]
    binds += [Bind(path, path, read_only=True) for path in read_paths(spec, action)]
    binds += [Bind(b.source, b.target or b.source, b.read_only) for b in site.binds]
    return Container(
        image=Image(role.image.path, role.image.sha256),
        binds=needed_binds(binds),
        apptainer=site.apptainer,
        flags=tuple(site.apptainer_flags),
    )


def needed_binds(binds: list[Bind]) -> tuple[Bind, ...]:
    """`binds` from the outermost to the innermost, without those an outer one already provides."""
    kept: list[Bind] = []
    for bind in sorted(
        set(binds), key=lambda b: (len(Path(b.target).parts), b.target, b.read_only)
    ):
        outer = [b for b in kept if Path(bind.target).is_relative_to(b.target)]
        if not (outer and _provides(outer[-1], bind)):
            kept.append(bind)
    return tuple(kept)


def _provides(outer: Bind, inner: Bind) -> bool:
    inside = Path(inner.target).relative_to(outer.target)
    same_source = Path(outer.source) / inside == Path(inner.source)
    return same_source and (inner.read_only or not outer.read_only)
