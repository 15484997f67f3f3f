"""Spec + site → Plan. Pure: no Slurm, no clock, no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import Action, get_action
from rtdetr_slurm.contract import RESULTS_DIR, Env
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.binds import needed_binds
from rtdetr_slurm.plan.chain import Parent, Position, chain
from rtdetr_slurm.plan.deploy import deploy_options, targets_of
from rtdetr_slurm.plan.hardware import notes_on_hardware
from rtdetr_slurm.plan.limits import check_hours, check_limits, notes_on_time
from rtdetr_slurm.plan.model import (
    Bind,
    Container,
    Endurance,
    Image,
    Launch,
    Plan,
    Resources,
    Stage,
)
from rtdetr_slurm.plan.notify import command_of, with_mail
from rtdetr_slurm.slurm.names import has_control_character
from rtdetr_slurm.spec.paths import (
    absolute_paths,
    fields_of,
    path_problem,
    read_paths,
    written_paths,
)

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Role, Site
    from rtdetr_slurm.spec import LoadedSpec, Topology
    from rtdetr_slurm.spec.job import JobConfig

_PLAIN_TRAINING = "plain training: no AutoML sweep (automl.policy was left at its default)"

_ENCRYPTED = "checkpoints and ONNX files are encrypted; without the key nobody can read them"


def frozen_spec(loaded: LoadedSpec, *, run_dir: Path, cwd: Path) -> dict[str, Any]:
    """The resolved spec with absolute paths; results go to the run folder where it names none."""
    spec = absolute_paths(loaded.resolved(), cwd)
    if not spec.get("results_dir"):
        spec["results_dir"] = str(run_dir / RESULTS_DIR)
    return spec


def make_plan(
    loaded: LoadedSpec,
    spec: Mapping[str, Any],
    site: Site,
    *,
    run_dir: Path,
    parent: Parent | None = None,
) -> Plan:
    """The stages of one submission: the spec's own action and its follow-ups.

    Args:
        spec: `frozen_spec()` of `loaded`.
        run_dir: absolute path the run's folder has or will have.
        parent: the run that job.parent names.

    Raises:
        RequestError: the spec asks for what cannot be (gpu_ids that are not 0..n-1, two stages
            with one name or one results folder, no time to run in).
        SiteError: the site has no image for it, or a limit is exceeded.
    """
    check_run_dir(run_dir, site)
    _check_paths([str(run_dir), spec["results_dir"]])
    deployed_on = targets_of(loaded, spec, site)
    positions = chain(loaded, spec, parent, [target.name for target in deployed_on])
    stages = tuple(_stage(position, loaded, spec, site, run_dir) for position in positions)
    stages = with_mail(stages, loaded.job.notify, site)
    _check_results_folders(stages)
    check_limits(stages, site)
    check_hours(stages)
    trains = get_action(loaded.action).trains
    notes = [*loaded.notes, *notes_on_time(stages)]
    notes += _notes_on_gpus(stages)
    notes += notes_on_hardware(stages, site, loaded.experiment)
    notes += [] if loaded.key is None else [_ENCRYPTED]
    notes += [_PLAIN_TRAINING] if trains and not loaded.automl_explicit else []
    return Plan(stages, tuple(notes), command_of(loaded.job.notify, site))


def _notes_on_gpus(stages: Sequence[Stage]) -> Iterator[str]:
    """What the site profile should say otherwise, by the looks of it."""
    if any(s.launch.engine == "tao" and s.launch.accelerator == "cpu" for s in stages):
        yield "accelerator is cpu, and TAO's images work on GPUs alone"
    for stage in stages:
        resources, launch = stage.resources, stage.launch
        unmanaged = launch.scheduler == "slurm" and resources.gpu_request == "none"
        if unmanaged and launch.accelerator == "cuda" and not resources.exclusive:
            yield (
                f"{stage.name}: Slurm gives out no GPUs here (gpu.request is none), so another job "
                "on its nodes may use the same ones; exclusive: true in the site profile prevents "
                "that"
            )


def _stage(
    position: Position, loaded: LoadedSpec, spec: Mapping[str, Any], site: Site, run_dir: Path
) -> Stage:
    action = get_action(position.action)
    target = site.target(position.target)
    role = site.for_role(action.role, target)
    results_dir = _results_dir(spec, position)
    named = [*read_paths(spec, action.name), *written_paths(spec, action.name)]
    _check_paths([results_dir, *named])
    launch = _launch(action, loaded, site, role)
    return Stage(
        name=position.name,
        action=action.name,
        resources=_resources(action, position, loaded, site, role),
        launch=launch,
        container=_container(spec, action, site, role, run_dir, results_dir),
        command=_command(action, loaded, launch, deploy_options(action, loaded, launch, target)),
        results_dir=results_dir,
        depends_on=position.depends_on,
        inputs=position.inputs,
        target=position.target,
    )


def _results_dir(spec: Mapping[str, Any], position: Position) -> str:
    """The action's own `results_dir`, else a folder of the stage's name in the common one."""
    section = spec.get(get_action(position.action).section) or {}
    return str(section.get("results_dir") or Path(spec["results_dir"]) / position.name)


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


def check_run_dir(run_dir: Path, site: Site) -> None:
    """Refuse a folder that sbatch would misread."""
    folder = str(run_dir)
    if site.scheduler == "slurm" and ({*"%\\"} & {*folder} or has_control_character(folder)):
        raise SiteError(
            f"run_root: {str(run_dir.parent)!r} has a '%', a backslash, a line break or another "
            "control character, which sbatch would read as something else; choose another folder"
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
        launch = replace(launch, secrets=(*launch.secrets, Env.ENCRYPTION_KEY))
    without = _without_gpu(loaded.topology_of(action.name), role)
    return replace(launch, accelerator="cpu") if without else launch


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
    action: Action, loaded: LoadedSpec, launch: Launch, deploy: Sequence[str]
) -> tuple[str, ...]:
    command = (*action.command(launch.engine), *deploy)
    if not (action.trains and loaded.job.bad_images == "skip"):
        return command
    if launch.engine == "tao":
        raise RequestError(
            "job.bad_images: found 'skip', which TAO's image cannot do; leave it out, and repair "
            "or remove such images"
        )
    return (*command, "--bad-images", "skip")


def _container(
    spec: Mapping[str, Any],
    action: Action,
    site: Site,
    role: Role,
    run_dir: Path,
    results_dir: str,
) -> Container | None:
    binds = [Bind(str(run_dir), str(run_dir)), Bind(results_dir, results_dir)]
    binds += [Bind(path, path, read_only=True) for path in read_paths(spec, action.name)]
    made = [path for _, _, path in fields_of(spec, action.name, "new", "update") if path]
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


def _check_paths(paths: Sequence[str]) -> None:
    """What the folder of submission made of relative paths; a job reads them by the same rule.

    The others were refused where they stand.
    """
    for path in paths:
        if reason := path_problem(path):
            raise RequestError(f"found {path}; {reason}")


def _check_results_folders(stages: tuple[Stage, ...]) -> None:
    """No two stages write to one folder."""
    seen: dict[str, str] = {}
    for stage in stages:
        other = seen.setdefault(stage.results_dir, stage.name)
        if other != stage.name:
            section = get_action(stage.action).section
            raise RequestError(
                f"{section}.results_dir: stages {other} and {stage.name} would both write to "
                f"{stage.results_dir}; leave it empty, so that each has a folder of its own name"
            )
