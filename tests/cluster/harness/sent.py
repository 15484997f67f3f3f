"""What Slurm really has of a run, against what the run's record and its user know."""

from __future__ import annotations

from collections import Counter

from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, first_start, is_to_end, task_events
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.resume import resume_run
from rtdetr_slurm.submission.sending import token
from rtdetr_slurm.submission.survey import survey_run


def live(run: Run) -> dict[str, list[JobInfo]]:
    """The jobs of each stage that wait and would do something, by the stage's name.

    A job that is to end, or in whose place another was sent, ends as soon as it starts.
    """
    events = run.events()
    queued = [job for job in SlurmClient().squeue().jobs.values() if not job.over]
    tokens = Counter(job.comment for job in queued)
    found: dict[str, list[JobInfo]] = {}
    for task in run.plan.tasks():
        own = task_events(events, task)
        mark = token(run.id, task.name, first_start(own))
        assert tokens[mark] <= 1, f"{task.name} was sent twice"
        there = [job for job in queued if job.comment == mark]
        found[task.name] = [] if is_to_end(own) else there
    return found


def check(run: Run, *, wanted: bool) -> None:
    """Whatever would run is known, and, where it is `wanted`, all of it is there."""
    report, _ = survey_run(run.path)
    jobs = live(run)
    for stage in report.stages:
        if there := jobs[stage.name]:
            assert stage.state is StageState.QUEUED, f"{stage.name} is {stage.state.value}"
            assert stage.job_id == there[0].job_id
        assert there or not wanted, f"{stage.name} is lost"


def recover(run: Run) -> None:
    """One more `resume`, and the run is queued: all of it, once, in its order."""
    if any(is_to_end(task_events(run.events(), task)) for task in run.plan.tasks()):
        cancel_run(run)  # what it did not reach
    resume_run(run)
    check(run, wanted=True)
    assert resume_run(run) == {}
    jobs = {name: there[0].job_id for name, there in live(run).items()}
    waits = ["squeue", "--noheader", f"--jobs={jobs['evaluate']}", "--format=%E"]
    assert f"afterok:{jobs['train']}" in SlurmClient().output(waits)


def clear(run: Run) -> None:
    """Take all jobs of a run out of the queue."""
    slurm = SlurmClient()
    mine = [job for job in slurm.squeue().jobs.values() if f":{run.id}:" in job.comment]
    if waiting := [job.job_id for job in mine if not job.over]:
        slurm.scancel(waiting)
