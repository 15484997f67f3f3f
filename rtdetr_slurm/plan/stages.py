"""From a place in the chain to a stage: what its job asks for, and how it enters its container.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import Action, get_action
from rtdetr_slurm.contract import BAD_IMAGES, COSTS, Env
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.binds import needed_binds
from rtdetr_slurm.plan.chain import Position
from rtdetr_slurm.plan.deploy import deploy_options
from rtdetr_slurm.plan.model import (
    Bind,
    Container,
    Endurance,
    Image,
    Launch,
    Resources,
    Stage,
)
from rtdetr_slurm.plan.search import WORKERS_DIR, Search
from rtdetr_slurm.plan.sources import staged_for
from rtdetr_slurm.plan.staging import StagedField
from rtdetr_slurm.spec.paths import fields_of, path_problem, read_paths, written_paths

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Role, Site
    from rtdetr_slurm.spec import LoadedSpec, Topology
    from rtdetr_slurm.spec.job import JobConfig


_BEST_MIN = 60
"""Time limit in minutes of a stage that finds the best trial, where its role has none."""


def make_stage(
    position: Position,
    loaded: LoadedSpec,
    spec: Mapping[str, Any],
    site: Site,
    run_dir: Path,
    copied: Sequence[StagedField] = (),
) -> Stage:
    """The stage at a place in the chain.

    Args:
        copied: what was brought, or will be, for nodes to copy the images among it.

    Raises:
        RequestError: the spec asks for what its job cannot have.
        SiteError: the site has no image for it.
    """
    results_dir = _results_dir(spec, position)
    moves_files = position.staging or position.upload
    if position.best_of is not None or moves_files:
        return _on_host(position, loaded, site, results_dir)
    action = get_action(position.action)
    target = site.target(position.target)
    role = site.for_role(action.role, target)
    named = [*read_paths(spec, action.name), *written_paths(spec, action.name)]
    check_paths([results_dir, *named])
    launch = _launch(action, loaded, site, role)
    searching = position.searching
    search = None if searching is None else searching.search
    written = results_dir if search is None else search.folder
    return Stage(
        name=position.name,
        action=action.name,
        resources=_resources(action, position, loaded, site, role),
        launch=launch,
        container=_container(spec, position, site, role, run_dir, written),
        command=(
            *_command(action, loaded, launch, search),
            *deploy_options(action, loaded, launch, target),
        ),
        results_dir=results_dir,
        depends_on=position.depends_on,
        array=None if searching is None else searching.workers,
        inputs=position.inputs,
        target=position.target,
        search=search,
        local_copy=tuple(
            one.field for one in staged_for(spec, action.name, copied) if one.object.kind != "file"
        ),
    )


def _on_host(position: Position, loaded: LoadedSpec, site: Site, results_dir: str) -> Stage:
    """A stage that runs no action: a job without container or GPU."""
    role = site.merged_role("cpu")
    longest = site.limits.max_time
    if position.best_of is not None:
        longest = _BEST_MIN if longest is None else min(_BEST_MIN, longest)
    launch = launch_of(site, role, requeue=loaded.job.requeue, endurance=_endurance(loaded.job))
    secrets = _secrets(launch, loaded)
    if (moves_files := position.staging or position.upload) is not None:
        secrets = tuple(dict.fromkeys([*secrets, *moves_files.secrets]))
    return Stage(
        name=position.name,
        action=position.action,
        resources=Resources(
            nodes=1,
            gpu_ids=(),
            cpus_per_task=role.cpus_per_node(1),
            mem_gb=role.mem_gb,
            time_min=role.time or longest,
            partition=role.partition,
            account=loaded.job.account or role.account,
            qos=role.qos,
            constraint=role.constraint,
        ),
        launch=replace(launch, accelerator="cpu", secrets=secrets),
        container=None,
        command=(),
        results_dir=results_dir,
        depends_on=position.depends_on,
        best_of=position.best_of,
        staging=position.staging,
        upload=position.upload,
    )


def _results_dir(spec: Mapping[str, Any], position: Position) -> str:
    """The action's own `results_dir`, else a folder of the stage's name in the common one."""
    if position.searching is not None:
        search = position.searching.search
        return search.folder if position.best_of is not None else str(search.path / WORKERS_DIR)
    section = spec.get(get_action(position.action).section) or {}
    named_by_itself = position.is_of_search or position.staging or position.upload
    own = None if named_by_itself else section.get("results_dir")
    return str(own or Path(spec["results_dir"]) / position.name)


def _resources(
    action: Action, position: Position, loaded: LoadedSpec, site: Site, role: Role
) -> Resources:
    """A follow-up's job is its entry's; the account that is charged is the chain's."""
    asked = position.follow_up or loaded.job
    wanted = loaded.topology_of(action.name)
    nodes, gpu_ids = wanted.num_nodes, wanted.gpu_ids
    section = action.gpu_section
    if site.scheduler == "slurm" and gpu_ids != tuple(range(len(gpu_ids))):
        raise RequestError(
            f"{section}.gpu_ids: found {list(gpu_ids)}; on Slurm these are indices within "
            f"the allocation, so {len(gpu_ids)} GPUs are {list(range(len(gpu_ids)))}"
        )
    if site.scheduler == "local" and nodes != 1:
        raise RequestError(
            f"{section}.num_nodes: found {nodes}; site '{site.name}' runs on this machine "
            "only, so it must be 1"
        )
    return Resources(
        nodes=nodes,
        gpu_ids=gpu_ids,
        gpu_request="none" if _without_gpu(wanted, role) else role.gpu.request,
        gpu_type=role.gpu.type,
        cpus_per_task=asked.cpus_per_task or role.cpus_per_node(len(gpu_ids)),
        mem_gb=asked.mem_gb or role.mem_gb,
        time_min=asked.time or role.time,
        partition=asked.partition or role.partition,
        account=asked.account or loaded.job.account or role.account,
        qos=asked.qos or role.qos,
        constraint=role.constraint,
        exclusive=role.exclusive,
    )


def launch_of(
    site: Site, role: Role, *, requeue: bool, endurance: Endurance | None = None
) -> Launch:
    """What a job of a role is told about the site.

    Args:
        requeue: whether it wants to go back to the queue, where the site allows that.
        endurance: what it goes through before it is given up.
    """
    return Launch(
        scheduler=site.scheduler,
        accelerator=site.accelerator,
        signal_lead_s=site.signal_lead_s,
        requeue=site.scheduler == "slurm" and site.requeue and requeue,
        network_interface=site.network_interface,
        scratch=site.scratch,
        env=dict(site.env),
        secrets=tuple(site.secrets),
        module_lines=tuple(site.module_lines),
        wckey=site.wckey,
        python=role.python,
        engine=role.engine,
        endurance=endurance or Endurance(),
    )


def _launch(action: Action, loaded: LoadedSpec, site: Site, role: Role) -> Launch:
    launch = launch_of(site, role, requeue=loaded.job.requeue, endurance=_endurance(loaded.job))
    if loaded.key is not None:
        if role.engine == "tao":
            raise RequestError(
                f"encryption_key: {action.name} runs in TAO's image, which does not encrypt what "
                f"it writes; allowed: none or a placeholder, and no {Env.ENCRYPTION_KEY} in the "
                "environment"
            )
        launch = replace(launch, secrets=_secrets(launch, loaded))
    without = _without_gpu(loaded.topology_of(action.name), role)
    return replace(launch, accelerator="cpu") if without else launch


def _secrets(launch: Launch, loaded: LoadedSpec) -> tuple[str, ...]:
    """Names of what is secret: the site's, and the key where model files are encrypted."""
    return (*launch.secrets, *([] if loaded.key is None else [Env.ENCRYPTION_KEY]))


def _without_gpu(wanted: Topology, role: Role) -> bool:
    """Whether a stage gets no GPU at all; TAO's programs want one in any case."""
    return wanted.on_cpu and role.engine == "rtdetr"


def _endurance(job: JobConfig) -> Endurance:
    return Endurance(
        max_requeues=job.max_requeues,
        max_infra_retries=job.max_infra_retries,
        max_hours=job.max_hours,
        hang_minutes=job.hang_minutes,
    )


def _command(
    action: Action, loaded: LoadedSpec, launch: Launch, search: Search | None
) -> Iterator[str]:
    """What runs an action that trains, or uses a checkpoint.

    Raises:
        RequestError: TAO's image cannot do what is asked.
    """
    yield from action.command(launch.engine)
    if action.trains and loaded.job.bad_images == "skip":
        if launch.engine == "tao":
            raise RequestError(
                "job.bad_images: found 'skip', which TAO's image cannot do; leave it out, and "
                "repair or remove such images"
            )
        yield from (BAD_IMAGES, "skip")
    measured = [one.metric for one in search.objectives] if search is not None else []
    if costs := [name for name in measured if name in COSTS]:
        yield from ("--costs", ",".join(costs))


def _container(
    spec: Mapping[str, Any],
    position: Position,
    site: Site,
    role: Role,
    run_dir: Path,
    results_dir: str,
) -> Container | None:
    binds = [Bind(str(run_dir), str(run_dir)), Bind(results_dir, results_dir)]
    read = read_paths(spec, position.action)
    binds += [Bind(path, path, read_only=True) for path in read]
    made = [path for _, _, path in fields_of(spec, position.action, "new", "update") if path]
    folders = [str(Path(path).parent) for path in made]
    binds += [Bind(folder, folder) for folder in folders]
    return container_of(site, role, binds)


def container_of(site: Site, role: Role, binds: Sequence[Bind]) -> Container | None:
    """How a job of a role enters its container; None where it has none.

    Args:
        binds: besides those of the site.
    """
    if role.image is None:
        return None
    of_site = [Bind(b.source, b.target or b.source, b.read_only) for b in site.binds]
    return Container(
        image=Image(role.image.path, role.image.sha256),
        binds=needed_binds([*binds, *of_site]),
        apptainer=site.apptainer,
        flags=tuple(site.apptainer_flags),
    )


def check_paths(paths: Sequence[str]) -> None:
    """What the folder of submission made of relative paths; a job reads them by the same rule.

    The others were refused where they stand.
    """
    for path in paths:
        if reason := path_problem(path):
            raise RequestError(f"found {path}; {reason}")
