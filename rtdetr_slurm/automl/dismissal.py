"""Workers that are still in the queue when a search is over. Standard library only."""

from __future__ import annotations

from rtdetr_slurm.contract import EVENTS_DIR
from rtdetr_slurm.launch.allocation import Allocation, Standing
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.events import record_once
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import READER, restart_of, task_events
from rtdetr_slurm.slurm.job_ids import array_of


def dismiss_waiting(run: Run, allocation: Allocation) -> None:
    """Take the workers of an array out of the queue that wait there: they would have nothing to do,
    and what finds the best trial would wait for them.

    Raises:
        SiteError: the scheduler refuses; they end by themselves then, once they start.
        OSError: it cannot be recorded.
    """
    array = array_of(allocation.job_id)
    tasks = {task.job_id(array): task for task in allocation.task.stage.tasks()}
    standing = allocation.standing(tasks)
    waiting = {job: tasks[job] for job, one in standing.items() if one is Standing.WAITS}
    for job, task in waiting.items():
        _record_end(run, task, job, allocation.first)
    if waiting:
        allocation.dismiss_waiting()


def _record_end(run: Run, task: StageTask, job: str, first: int) -> None:
    """In its job's place, before a reader calls it cancelled. Should it start nevertheless, its own
    word counts."""
    start = max(map(restart_of, task_events(run.events(), task, first)), default=first)
    record_once(
        run.path / EVENTS_DIR,
        f"end-{task.name}-{start}",
        "finished",
        **task.event_facts(job),
        restart=start,
        recorded_by=READER,
        state="success",
        reason="it was not needed: no trial was left for it",
    )
