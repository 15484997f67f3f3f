"""Sending a run's stages off, each exactly once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import JOBS_DIR
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import stage_events
from rtdetr_slurm.slurm.client import SlurmClient, SlurmUnreachable
from rtdetr_slurm.slurm.executor import BatchExecutor, adopt, submit_locally, submit_to_slurm
from rtdetr_slurm.slurm.local import process_facts, stop_local_job
from rtdetr_slurm.slurm.survey import survey

_LOOKS, _LOOK_EVERY_S = 4, 3.0


def token(run_id: str, stage: str) -> str:
    """What marks a job as this stage of this run, in the job's comment."""
    return f"rtdetr-slurm:{run_id}:{stage}"


def job_name(stage: Stage, name: str | None) -> str:
    return name or f"rtdetr-{stage.name}"


def scripts(plan: Plan, run_dir: Path, name: str | None) -> dict[str, str]:
    """The batch script of each stage, exactly as it would be sent; empty for the local site.

    Touches nothing.
    """
    return {
        stage.name: BatchExecutor(
            run_dir / JOBS_DIR, stage, token(run_dir.name, stage.name), job_name(stage, name)
        ).script()
        for stage in plan.stages
        if stage.launch.scheduler == "slurm"
    }


def cancel_run(run: Run) -> dict[str, str]:
    """Cancel what has not ended; returns stage name → job id of what was cancelled.

    The wish is recorded first, so that the controller, which sees only a signal, knows why.

    Raises:
        SiteError: the scheduler refuses, or the job is a process of another machine.
    """
    surveys, _ = survey([run])
    cancelled = {}
    for found in surveys[0].stages:
        stage, job_id = found.stage, found.report.job_id
        if found.report.state.ended or job_id is None:
            continue
        run.record("cancelling", stage=stage.name, job_id=job_id)
        if stage.launch.scheduler == "slurm":
            SlurmClient().cancel([job_id])
        else:
            events = stage_events(run.events(), stage.name)
            stop_local_job(next(e for e in events if e["event"] == "submitted"))
        cancelled[stage.name] = job_id
    return cancelled


def submit_run(run: Run) -> dict[str, str]:
    """Submit every stage; returns stage name → job id.

    Raises:
        SubmissionRefused: the scheduler refused a stage.
        SlurmUnreachable: sbatch's answer was unclear, and so is whether the job exists.
        SiteError: the local job did not start.
    """
    return {stage.name: _submit_stage(run, stage) for stage in run.plan.stages}


def _submit_stage(run: Run, stage: Stage) -> str:
    mark = token(run.id, stage.name)
    facts: dict[str, Any] = {}
    run.record("submitting", stage=stage.name, token=mark)
    try:
        if stage.launch.scheduler == "local":
            job_id = submit_locally(run, stage)
            facts = process_facts(job_id)
        else:
            job_id = submit_to_slurm(run, stage, mark, job_name(stage, run.manifest["name"]))
    except SlurmUnreachable as error:
        job_id = _reconciled(run, stage, mark, error)
    except SiteError as error:
        run.record("refused", stage=stage.name, reason=str(error))
        raise
    run.record("submitted", stage=stage.name, job_id=job_id, **facts)
    return job_id


def _reconciled(run: Run, stage: Stage, mark: str, unclear: SlurmUnreachable) -> str:
    """The id of the job that an unclear sbatch did queue, found by its token."""
    found_none = ""
    for _ in range(_LOOKS):  # a controller too slow to answer may also be slow to list the job
        try:
            found = SlurmClient().find_by_comment(mark)
        except SiteError as error:
            found_none = f"; nor can the queue be asked ({error})"
        else:
            if len(found) == 1:
                adopt(run, found[0])
                return found[0]
            found_none = f"; the queue shows {len(found)} jobs with the comment '{mark}'"
        time.sleep(_LOOK_EVERY_S)
    run.record("unclear", stage=stage.name, reason=str(unclear))
    raise SlurmUnreachable(
        f"{unclear}{found_none}. The job is not sent again, lest it run twice: look for that "
        f"comment in `squeue --me -o '%i %k'`; if nothing shows up, submit once more "
        f"(run folder: {run.path})"
    )
