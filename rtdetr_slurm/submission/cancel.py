"""Ending a run's jobs, queued or running."""

from __future__ import annotations

from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import NEVER_STARTED
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
        run.record("cancelling", **one.task.event_facts(one.job_id))
    if wanted:
        backend.cancel(wanted)
    for one in wanted:
        # What has not started has nobody else to write down its end.
        if not any(event["event"] == "started" for event in one.events):
            run.record("finished", **one.task.event_facts(one.job_id), **NEVER_STARTED)
    keep_summary(run)
    return {one.task.name: one.job_id for one in wanted}
