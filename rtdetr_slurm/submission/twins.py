"""The same submission once more: an equal spec, on the same site, while such a run is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import RUN_JSON, SUMMARY_JSON
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.records import exists, read_json
from rtdetr_slurm.runs.run import Run, open_run, run_ids
from rtdetr_slurm.runs.state import StageState, is_given_up, is_to_end
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.sending import open_tasks
from rtdetr_slurm.submission.survey import survey_run


def find_twin(
    run_dir: Path, plan: Plan, spec: Mapping[str, Any], site: str, *, complete: bool
) -> RunReport | None:
    """A run of this user that does the same and is under way; None where there is none.

    The same is an equal frozen spec and equal stages, with their resources and inputs, on the same
    site; only what names the run's own folder may differ, and what the run is called.

    Args:
        run_dir: of the run that is (to be) submitted; its twin lies beside it.
        spec: the frozen one.
        site: name of the site.
        complete: record the end of a run whose job could not.
    """
    for folder in _of_this_spec(run_dir, spec):
        try:
            run = open_run(folder)
            named = str(run.manifest.site.get("name"))
            does_the_same = _stages(run.plan, folder) == _stages(plan, run_dir) and named == site
            if not run.is_own or not does_the_same:
                continue
            report, _ = survey_run(folder, complete=complete)
            if _is_under_way(run, report):
                return report
        except RequestError:
            continue  # what cannot be read cannot be compared; `status` says so
    return None


def _of_this_spec(run_dir: Path, spec: Mapping[str, Any]) -> Iterator[Path]:
    """Folders of the runs that have not ended and have an equal spec, without a look at the rest
    of their records: there may be a thousand."""
    ids: list[str] = []
    action, wanted = run_dir.name.split("-", 1)[0], _without(run_dir, spec)
    with suppress(RequestError):  # no folder; whoever makes a run in it says so
        ids = run_ids(run_dir.parent)
    for run_id in ids:
        folder = run_dir.parent / run_id
        if folder == run_dir or run_id.split("-", 1)[0] != action:
            continue
        try:
            if exists(folder / SUMMARY_JSON):
                continue
            content = read_json(folder / RUN_JSON)
            if _without(folder, content["spec"]["resolved"]) == wanted:
                yield folder
        except (RequestError, FileNotFoundError, LookupError, TypeError):
            continue  # it is removed or damaged


def refusal(twin: RunReport) -> str:
    """What there is to say about a twin, and what to do."""
    stages = ", ".join(
        f"{one.name} {one.state.value}" + (f" as job {one.job_id}" if one.job_id else "")
        for one in twin.stages
    )
    return (
        f"run {twin.run_id} does exactly this already ({stages}): the same spec, stages and site. "
        f"See `rtdetr-slurm status {twin.run_id}`, end it with `rtdetr-slurm cancel "
        f"{twin.run_id}`, or do it a second time with --again"
    )


def _stages(plan: Plan, run_dir: Path) -> str:
    return _without(run_dir, plan.to_json()["stages"])


def _without(run_dir: Path, what: Any) -> str:
    """Plain data as text in which a run's own folder has no name."""
    return json.dumps(what, sort_keys=True).replace(json.dumps(str(run_dir))[1:-1], "")


def _is_under_way(run: Run, report: RunReport) -> bool:
    """Whether a job of it waits or runs, or whether that cannot be told."""
    stages = {stage.name: stage for stage in report.stages}
    for one in open_tasks(run, run.events()):
        if is_to_end(one.events) or is_given_up(one.events):
            continue
        stage = stages[one.task.name]
        not_told = stage.job is None or (stage.job.gone and one.job_id is None)
        if stage.state in (StageState.QUEUED, StageState.RUNNING) or (
            stage.state is StageState.UNKNOWN and not_told
        ):
            return True
    return False
