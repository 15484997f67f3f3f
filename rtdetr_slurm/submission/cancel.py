"""Ending a run's jobs, queued or running."""

from __future__ import annotations

from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission.backends import backend_of, open_tasks


def cancel_run(run: Run) -> dict[str, str]:
    """Cancel what has not ended, the whole chain; returns task name → job id of what was cancelled.

    The wish is recorded first, so that the stage run, which sees only a signal, knows why.

    Raises:
        SiteError: the scheduler refuses, or the job is a process of another machine.
    """
    events = run.events()
    backend = backend_of(run.plan)
    tasks = list(open_tasks(run, events))
    jobs = {t.task.name: j for t, j in zip(tasks, backend.jobs(tasks), strict=True) if j}
    report = report_run(run, jobs, events)
    ended = {stage.name for stage in report.stages if stage.state.ended}
    wanted = [one for one in tasks if one.task.name not in ended]
    for one in wanted:
        index = one.task.index
        task = {} if index is None else {"task": index}
        run.record("cancelling", stage=one.task.stage.name, job_id=one.job_id, **task)
    if wanted:
        backend.cancel(wanted)
    keep_summary(run)
    return {one.task.name: one.job_id for one in wanted}
