"""What a site allows, against what a plan asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import OF_SEARCH
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.slurm.times import format_minutes

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Limits, Site


def check_limits(stages: Sequence[Stage], site: Site) -> None:
    """Refuse a plan that exceeds the site's limits.

    Raises:
        SiteError: naming all that is too much, by the fields that say so, and whose limit it is.
    """
    problems = [
        problem
        for stage, job in zip(stages, _jobs(stages), strict=True)
        for problem in _problems(stage, site.limits, job)
    ]
    problems += _too_many_gpu_hours(stages, site.limits)
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise SiteError(f"the limits of site '{site.name}' are exceeded:{lines}")


def within_gpu_hours(stages: tuple[Stage, ...], limits: Limits) -> tuple[Stage, ...]:
    """The stages with a budget for a search that has none and could otherwise take more GPU hours
    than one submission may: what the others leave of them."""
    most = limits.max_gpu_hours
    search = next((stage for stage in stages if stage.search is not None), None)
    if most is None or search is None or search.search is None:
        return stages
    own = gpu_hours(search)
    others = [gpu_hours(stage) for stage in stages if stage is not search]
    left = most - sum(hours for hours in others if hours is not None)
    if search.search.gpu_hours is not None or (own is not None and own <= left) or left <= 0:
        return stages
    limited = replace(search, search=replace(search.search, gpu_hours=round(left, 3)))
    return tuple(limited if stage is search else stage for stage in stages)


def check_hours(stages: Sequence[Stage]) -> None:
    """Refuse hours that are used up as soon as a job starts.

    Raises:
        RequestError: there are some.
    """
    for stage in stages:
        hours, lead = stage.launch.endurance.max_hours, stage.launch.signal_lead_s
        if hours is not None and hours * 3600 <= lead:
            raise RequestError(
                f"job.max_hours: found {hours:g}; a job is asked to stop {lead} s before they are "
                "used up (signal_lead_s of the site profile), so this leaves it nothing; give it "
                "more, or null"
            )


def notes_on_time(stages: Sequence[Stage]) -> Iterator[str]:
    """Stages whose time limit leaves nothing before the signal that ends them."""
    for stage, job in zip(stages, _jobs(stages), strict=True):
        lead, limit = stage.launch.signal_lead_s, stage.resources.time_min
        if stage.launch.scheduler == "slurm" and limit is not None and limit * 60 <= lead:
            yield (
                f"{job}.time: stage {stage.name} has {format_minutes(limit)}, and is "
                f"asked to stop {lead} s before its end (signal_lead_s of the site profile), so as "
                "soon as it starts; give it more time"
            )


def gpu_hours(stage: Stage) -> float | None:
    """What a stage may use at most in one start of each of its jobs, or as a search; None where
    nothing limits it."""
    resources = stage.resources
    gpus = resources.nodes * resources.gpus_per_node * len(stage.tasks())
    if not gpus:
        return 0.0
    budget = None if stage.search is None else stage.search.gpu_hours
    asked = None if resources.time_min is None else gpus * resources.time_min / 60
    return min((hours for hours in (budget, asked) if hours is not None), default=None)


def _jobs(stages: Sequence[Stage]) -> list[str]:
    """The section of the spec that each stage's job has its own settings from; those of one action
    for several targets have one, and so have those of a search, and what moves its files."""
    searches = any(stage.search is not None for stage in stages)
    first = next(stage.name for stage in stages if stage.runs_action)

    def entry(stage: Stage) -> str:
        moves_files = stage.staging is not None or stage.upload is not None
        if moves_files or (searches and stage.name in OF_SEARCH):
            return first
        return stage.name.removesuffix(f".{stage.target}") if stage.target else stage.name

    entries = list(dict.fromkeys(map(entry, stages)))
    return [
        f"job.then[{number - 1}]" if (number := entries.index(entry(stage))) else "job"
        for stage in stages
    ]


def _problems(stage: Stage, limits: Limits, job: str) -> Iterator[str]:
    """What is too much about one stage; `job` is the section that its entry is in."""
    resources = stage.resources
    section = get_action(stage.action).gpu_section
    if limits.max_nodes is not None and resources.nodes > limits.max_nodes:
        at = limits.place("max_nodes")
        yield f"{section}.num_nodes: found {resources.nodes}; at most {limits.max_nodes}{at}"
    gpus, most = resources.gpus_per_node, limits.max_gpus_per_node
    if most is not None and gpus > most:
        at = limits.place("max_gpus_per_node")
        yield f"{section}.num_gpus: found {gpus}; at most {most} per node{at}"
    if limits.max_time is not None:
        longest, at = format_minutes(limits.max_time), limits.place("max_time")
        if resources.time_min is None:
            yield f"{job}.time: none given; name one of at most {longest}{at}"
        elif resources.time_min > limits.max_time:
            yield f"{job}.time: found {format_minutes(resources.time_min)}; at most {longest}{at}"
    if limits.partitions is not None:
        partitions = resources.partition.split(",") if resources.partition else [""]
        if not set(partitions) <= set(limits.partitions):
            found = f"found {resources.partition}" if resources.partition else "none given"
            allowed = ", ".join(limits.partitions) or "none"
            yield f"{job}.partition: {found}; allowed: {allowed}{limits.place('partitions')}"


def _too_many_gpu_hours(stages: Sequence[Stage], limits: Limits) -> Iterator[str]:
    if limits.max_gpu_hours is None:
        return
    most, at = f"{limits.max_gpu_hours:g}", limits.place("max_gpu_hours")
    total = 0.0
    for stage, job in zip(stages, _jobs(stages), strict=True):
        hours = gpu_hours(stage)
        if hours is None:
            yield f"{job}.time: none given; name one, for at most {most} GPU hours{at}"
            return
        total += hours
    searches = any(stage.search is not None for stage in stages)
    if total > limits.max_gpu_hours:
        yield (
            f"{total:g} GPU hours (nodes × GPUs × time limit of {len(stages)} "
            f"{'stages' if len(stages) > 1 else 'stage'}); at most {most}{at}: lower job.time, "
            f"the nodes or the GPUs{', or automl.max_gpu_hours' if searches else ''}"
        )
