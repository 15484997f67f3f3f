"""Spec + site → Plan. Pure: no Slurm, no clock, no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import RESULTS_DIR
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import Parent, Searching, chain
from rtdetr_slurm.plan.deploy import targets_of
from rtdetr_slurm.plan.hardware import notes_on_hardware
from rtdetr_slurm.plan.limits import check_hours, check_limits, notes_on_time, within_gpu_hours
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.plan.notify import command_of, with_mail
from rtdetr_slurm.plan.stages import check_paths, make_stage
from rtdetr_slurm.plan.staging import StagedField, Staging, Upload
from rtdetr_slurm.slurm.names import has_control_character
from rtdetr_slurm.spec.paths import absolute_paths

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site
    from rtdetr_slurm.spec import LoadedSpec

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
    searching: Searching | None = None,
    staging: Staging | None = None,
    upload: Upload | None = None,
    copied: Sequence[StagedField] = (),
) -> Plan:
    """The stages of one submission: the spec's own action and its follow-ups.

    Args:
        spec: `frozen_spec()` of `loaded`.
        run_dir: absolute path the run's folder has or will have.
        parent: the run that job.parent names.
        searching: that the spec's own action, a training, is a search.
        staging: what is brought before any stage begins that reads it.
        upload: where a copy of the run goes once all of them have ended.
        copied: what is brought, whoever brings it, of which nodes copy the images to their scratch.

    Raises:
        RequestError: the spec asks for what cannot be (gpu_ids that are not 0..n-1, two stages
            with one name or one results folder, no time to run in).
        SiteError: the site has no image for it, or a limit is exceeded.
    """
    check_run_dir(run_dir, site)
    check_paths([str(run_dir), spec["results_dir"]])
    deployed_on = targets_of(loaded, spec, site)
    targets = [target.name for target in deployed_on]
    positions = chain(loaded, spec, parent, targets, searching, staging, upload)
    stages = tuple(make_stage(one, loaded, spec, site, run_dir, copied) for one in positions)
    stages = with_mail(stages, loaded.job.notify, site)
    _check_results_folders(stages)
    stages = within_gpu_hours(stages, site.limits)
    check_limits(stages, site)
    check_hours(stages)
    notes = [*loaded.notes, *notes_on_time(stages)]
    notes += _notes_on_gpus(stages)
    notes += notes_on_hardware(stages, site, loaded.experiment)
    notes += [] if loaded.key is None else [_ENCRYPTED]
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


def check_run_dir(run_dir: Path, site: Site) -> None:
    """Refuse a folder that sbatch would misread."""
    folder = str(run_dir)
    if site.scheduler == "slurm" and ({*"%\\"} & {*folder} or has_control_character(folder)):
        raise SiteError(
            f"run_root: {str(run_dir.parent)!r} has a '%', a backslash, a line break or another "
            "control character, which sbatch would read as something else; choose another folder"
        )


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
