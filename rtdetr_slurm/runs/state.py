"""What state a stage is in, from all who know something about it. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.failures import Failure, classify
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.states import (
    ACTIVE,
    COMPLETED,
    ENDED,
    HELD_BY_ADMIN,
    PENDING,
    is_held,
)


class StageState(str, Enum):
    """States of a stage as `status` shows them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Never started, because what it depends on did not succeed."""
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self not in (StageState.QUEUED, StageState.RUNNING, StageState.UNKNOWN)


CANCELLED_BEFORE = "cancelled on request before it started"
NEVER_STARTED = {
    "state": StageState.CANCELLED.value,
    "failure_class": FailureClass.CANCELLED.value,
    "reason": CANCELLED_BEFORE,
}
"""What a `finished` event says of a task that was cancelled in the queue."""
_SENDING = frozenset({"submitting", "submitted", "started", "withdrawn", "unclear"})
READER = "reader"
"""What an event says that a reader of the run has recorded in its job's place."""


@dataclass(frozen=True)
class Signs:
    """What else tells of a task whose end is not on record.

    Attributes:
        status_line: the last line of its status.json, of its latest start.
        log_tail: last lines of the job's log.
        talks: whether rank 0 has just said what it does.
        just_ended: whether the job has ended by itself so lately, by Slurm's word, that what it
            wrote down may still be on its way (NFS shows another node's new files a minute late).
        proof_problem: what is wrong with what proves the action's success; None when it is whole.
    """

    status_line: Mapping[str, Any] | None = None
    log_tail: Sequence[str] = ()
    talks: bool = False
    just_ended: bool = False
    proof_problem: Callable[[], str | None] = lambda: "nobody has looked at what it left"

    @property
    def status(self) -> str | None:
        return None if self.status_line is None else self.status_line.get("status")


@dataclass(frozen=True)
class Judgement:
    """The state of one task, with what there is to say about it."""

    state: StageState
    detail: str = ""
    failure: Failure | None = None


def task_events(events: Sequence[Event], task: StageTask, since: int = 0) -> list[Event]:
    """The events of a stage, or of one task of its array and the array as a whole, since it was
    last submitted.

    Args:
        since: number of the first start of that submission, where the caller knows more than the
            record may show yet.
    """
    own = task_history(events, task)
    first = max(first_start(own), since)
    return [event for event in own if restart_of(event) >= first]


def task_history(events: Sequence[Event], task: StageTask) -> list[Event]:
    """The events of a stage, or of one task of its array, of all its submissions."""
    return [event for event in events if _is_about(event, task)]


def _is_about(event: Event, task: StageTask) -> bool:
    if task.trial is not None:
        return (event.get("search"), event.get("trial")) == (task.stage.name, task.trial)
    if event.get("stage") != task.stage.name or event.get("task") not in (None, task.index):
        return False
    return task.index is None or task.index in event.get("tasks", [task.index])


def first_start(events: Sequence[Event]) -> int:
    """The number that the first start of a task's latest submission has.

    Every start of a task has a number of its own: those of one job are counted by Slurm, and those
    of the job that takes its place after `resume` go on from there.
    """
    sent = (restart_of(event) for event in events if event["event"] == "submitting")
    return max(sent, default=0)


def times_sent(events: Sequence[Event]) -> int:
    """How often stages of a run were sent off; grows with each `submit` and `resume`."""
    return sum(event["event"] == "submitting" for event in events)


def next_start(events: Sequence[Event], stage: str) -> int:
    """The number of a start of a stage that no submission of it has used."""
    used = (restart_of(event) for event in events if event.get("stage") == stage)
    return max(used, default=-1) + 1


def job_id_of(events: Sequence[Event], task: StageTask) -> str | None:
    """The task's job id, from its own events; None while none is recorded."""
    return next(_job_ids(reversed(events), task), None)


def job_ids_of(history: Sequence[Event], task: StageTask) -> list[str]:
    """The ids of all jobs that a task has had, in their order, from its history."""
    return list(dict.fromkeys(_job_ids(history, task)))


def _job_ids(events: Iterable[Event], task: StageTask) -> Iterator[str]:
    for event in events:
        if "job_id" in event:
            yield event["job_id"] if "task" in event else task.job_id(event["job_id"])


def recorded_end(events: Sequence[Event]) -> Event | None:
    """The task's end as its stage run recorded it, unless there was another start after it.

    Starts are compared by their number, which one scheduler gives, and not by clocks.
    """
    ends = [event for event in events if event["event"] == "finished"]
    if not ends:
        return None
    # What the job itself has written wins over what a reader has in its place.
    last = max(ends, key=lambda end: (restart_of(end), end.get("recorded_by") != READER))
    later = [e for e in events if e["event"] in ("started", "requeued")]
    return last if all(restart_of(event) <= restart_of(last) for event in later) else None


def cluster_of(events: Sequence[Event]) -> str | None:
    """The cluster that the task was sent to, where sbatch named one."""
    return next((event["cluster"] for event in reversed(events) if "cluster" in event), None)


def is_to_end(events: Sequence[Event]) -> bool:
    """Whether somebody has asked for the task's end, and it has not come yet.

    Withdrawn, and never clearly queued, means the same: a job that turns up nevertheless ends.
    """
    wish = False
    for event in events:
        if event["event"] in ("cancelling", "withdrawn", "unclear"):
            wish = True
        elif event["event"] in ("not_cancelled", "finished"):
            wish = False
    return wish


def is_taken_back(events: Sequence[Event]) -> bool:
    """Whether a job of the task, should there be one, ends as soon as it starts, come what may."""
    last = next((e["event"] for e in reversed(events) if e["event"] in _SENDING), None)
    return last in ("withdrawn", "unclear")


def is_given_up(events: Sequence[Event]) -> bool:
    """Whether a reader has looked for the task's job long after it was sent, and nobody knew it."""
    given_up = any(e["event"] == "unclear" and e.get("recorded_by") == READER for e in events)
    return given_up and not any("job_id" in event for event in events)


def starts_in_vain(events: Sequence[Event], restart: int, reached: tuple[int, int]) -> int:
    """How many starts in a row, before start number `restart`, began where this one begins.

    Args:
        reached: how far the training is now: epochs, and steps of the next one.
    """
    begins = {restart_of(e): e.get("reached") for e in events if e["event"] == "started"}
    count = 0
    while begins.get(restart - 1 - count) == [*reached]:
        count += 1
    return count


def restart_of(event: Event) -> int:
    """The number of the start that an event belongs to."""
    return event.get("restart", 0)


def judge(events: Sequence[Event], job: JobInfo | None, signs: Signs) -> Judgement:
    """One verdict from the record, the scheduler and whatever else there is.

    The stage run's own `finished` counts first: it was written after every check of success. A
    scheduler that knows nothing never makes a stage failed, only unknown. status.json alone makes
    none successful: its last line is written before what proves the success is looked at.

    Args:
        events: the task's events.
        job: what the scheduler says; None when it was not asked.
    """
    pending = job is not None and job.state in PENDING
    end = recorded_end(events)
    if end is not None and not pending:
        return _recorded(end)
    if job is None or job.gone:
        found = _unheard_of(events, signs, asked=job is not None)
    elif pending:
        found = Judgement(StageState.QUEUED, _why_it_waits(job))
    elif job.state in ACTIVE:
        found = Judgement(StageState.RUNNING, job.reason)
    else:
        found = _ended(job, signs)
    if found.state in (StageState.QUEUED, StageState.RUNNING) and is_to_end(events):
        return Judgement(found.state, "cancelling")
    return found


def _why_it_waits(job: JobInfo) -> str:
    if not is_held(job.state, job.reason):
        return job.reason
    release = f"`scontrol release {job.job_id}`"
    if job.reason == HELD_BY_ADMIN:
        release = "ask an administrator to release it"
    return f"held ({job.reason or job.state}): {release}, or cancel"


def _recorded(end: Event) -> Judgement:
    state, reason = StageState(end["state"]), end.get("reason", "")
    if state is StageState.SUCCESS:
        return Judgement(state, reason)
    return Judgement(state, "", Failure(FailureClass(end["failure_class"]), reason))


def _unheard_of(events: Sequence[Event], signs: Signs, *, asked: bool) -> Judgement:
    if signs.status == Status.SUCCESS.value:
        return _by_its_own_word(signs, asked=asked)
    if signs.status == Status.FAILURE.value:
        return Judgement(StageState.FAILED, "", classify(status_line=signs.status_line))
    if signs.talks and not asked:
        return Judgement(StageState.RUNNING, "so its own record says; Slurm was not heard")
    for event in events:
        if event["event"] == "refused":
            failure = Failure(FailureClass.CONFIG, str(event.get("reason", "")))
            return Judgement(StageState.FAILED, "", failure)
        if event["event"] == "withdrawn":
            failure = Failure(FailureClass.CANCELLED, str(event.get("reason", "")))
            return Judgement(StageState.CANCELLED, "", failure)
    was_queued = any(event.get("job_id") for event in events)
    was_sent = any(event["event"] == "submitting" for event in events)
    if is_to_end(events) and ((was_queued and asked) or not (was_queued or was_sent)):
        failure = Failure(FailureClass.CANCELLED, "cancelled on request")
        return Judgement(StageState.CANCELLED, "", failure)
    if not was_queued:
        detail = "submission was begun, and no answer of it recorded"
        return Judgement(StageState.UNKNOWN, detail if was_sent else "not submitted")
    known = "does not know the job" if asked else "says nothing of the job"
    return Judgement(StageState.UNKNOWN, f"the scheduler {known}, and no end is recorded")


def _by_its_own_word(signs: Signs, *, asked: bool) -> Judgement:
    """Of a job whose status.json ends with SUCCESS, and of which the scheduler says nothing."""
    said = "status.json says success"
    if not asked:
        return Judgement(StageState.UNKNOWN, f"{said}; whether the job has ended is not known")
    problem = signs.proof_problem()
    if problem is None:
        detail = f"{said}, and what proves it is whole; the scheduler has forgotten the job"
        return Judgement(StageState.SUCCESS, detail)
    failure = Failure(FailureClass.UNKNOWN, f"the action reported success, but {problem}")
    return Judgement(StageState.FAILED, "", failure)


def _ended(job: JobInfo, signs: Signs) -> Judgement:
    if job.state not in ENDED and job.source != "local":
        return Judgement(StageState.UNKNOWN, f"Slurm calls its state {job.state}")
    if job.state == COMPLETED and signs.status == Status.SUCCESS.value:
        return Judgement(StageState.SUCCESS)  # its exit code says that the proof was looked at
    if signs.just_ended:
        detail = f"{job.state} says Slurm; what the job wrote down of its end is not here yet"
        return Judgement(StageState.RUNNING, detail)
    failure = classify(
        slurm_state=job.state,
        status_line=signs.status_line,
        exit_code=job.exit_code,
        signal=job.signal,
        log_tail=signs.log_tail,
    )
    if failure.failure_class is FailureClass.CANCELLED:
        return Judgement(StageState.CANCELLED, "", failure)
    return Judgement(StageState.FAILED, "", failure)
