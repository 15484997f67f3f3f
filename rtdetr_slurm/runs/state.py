"""What state a stage is in, from all who know something about it. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.runs.failures import Failure, classify

PENDING_STATES = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
ACTIVE_STATES = frozenset(
    {
        "RUNNING",
        "CONFIGURING",
        "COMPLETING",
        "SUSPENDED",
        "STOPPED",
        "SIGNALING",
        "STAGE_OUT",
        "RESIZING",
    }
)


class StageState(str, Enum):
    """States of a stage as `status` shows them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self in (StageState.SUCCESS, StageState.FAILED, StageState.CANCELLED)


@dataclass(frozen=True)
class JobInfo:
    """What a scheduler says about one job now.

    Attributes:
        state: the first word of Slurm's state (`RUNNING`, `CANCELLED`, ...).
        reason: why it is pending or ended, empty when Slurm gives none.
        source: who said it: `squeue`, `sacct`, `scontrol`, or `local`.
    """

    job_id: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    expected_start: str | None = None
    nodes: str = ""
    source: str = "squeue"


@dataclass(frozen=True)
class StageReport:
    """The verdict on one stage."""

    state: StageState
    detail: str = ""
    failure: Failure | None = None
    job_id: str | None = None
    restarts: int = 0


def stage_events(events: Sequence[Mapping[str, Any]], stage: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("stage") == stage]


def job_id_of(events: Sequence[Mapping[str, Any]]) -> str | None:
    """The job id of a stage, from its own events."""
    ids = [event["job_id"] for event in events if event.get("job_id")]
    return str(ids[-1]) if ids else None


def finished_event(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The stage's end as its controller recorded it, unless it was started again after that."""
    for event in events[::-1]:
        kind = event["event"]
        if kind == "finished":
            return event
        if kind in ("started", "submitted", "requeued"):
            return None
    return None


def reconcile(
    events: Sequence[Mapping[str, Any]],
    job: JobInfo | None,
    status_line: Mapping[str, Any] | None,
    log_tail: Sequence[str] = (),
) -> StageReport:
    """One verdict from the record, the scheduler and status.json.

    The controller's own `finished` counts first: it was written after every check of success. A
    scheduler that knows nothing never makes a stage failed, only unknown.

    Args:
        events: the stage's events, oldest first.
        job: what the scheduler says; None when it does not know the job (any more).
        status_line: the last line of the stage's status.json.
        log_tail: last lines of the job's log.
    """
    job_id = job_id_of(events)
    restarts = max((int(event.get("restart", 0)) for event in events), default=0)
    pending = job is not None and job.state in PENDING_STATES
    end = finished_event(events)
    if end is not None and not pending:
        state, detail, failure = _recorded(end)
    elif job is None:
        state, detail, failure = _unheard_of(events, status_line)
    elif pending:
        state, detail, failure = StageState.QUEUED, job.reason, None
    elif job.state in ACTIVE_STATES:
        state, detail, failure = StageState.RUNNING, job.reason, None
    else:
        state, detail, failure = _ended(job, status_line, log_tail)
    if not state.ended and any(event["event"] == "cancelling" for event in events):
        detail = "cancelling"
    return StageReport(state, detail, failure, job_id, restarts)


_Verdict = tuple[StageState, str, Failure | None]


def _recorded(end: Mapping[str, Any]) -> _Verdict:
    state = StageState(end["state"])
    reason = str(end.get("reason", ""))
    if state is StageState.SUCCESS:
        return state, reason, None
    return state, "", Failure(FailureClass(end["failure_class"]), reason)


def _unheard_of(
    events: Sequence[Mapping[str, Any]], status_line: Mapping[str, Any] | None
) -> _Verdict:
    if status_line is not None and status_line.get("status") == Status.SUCCESS.value:
        return StageState.SUCCESS, "status.json says so; the scheduler has forgotten the job", None
    if status_line is not None and status_line.get("status") == Status.FAILURE.value:
        return StageState.FAILED, "", classify(status_line=status_line)
    names = {event["event"] for event in events}
    if "refused" in names:
        refusal = next(str(e.get("reason", "")) for e in events if e["event"] == "refused")
        return StageState.FAILED, "", Failure(FailureClass.CONFIG, refusal)
    if job_id_of(events) is None:
        return StageState.UNKNOWN, "submission was begun, and no answer of it recorded", None
    return StageState.UNKNOWN, "the scheduler does not know the job, and no end is recorded", None


def _ended(
    job: JobInfo, status_line: Mapping[str, Any] | None, log_tail: Sequence[str]
) -> _Verdict:
    succeeded = status_line is not None and status_line.get("status") == Status.SUCCESS.value
    if job.state == "COMPLETED" and succeeded:
        return StageState.SUCCESS, "", None
    failure = classify(
        slurm_state=job.state,
        status_line=status_line,
        exit_code=job.exit_code,
        signal=job.signal,
        log_tail=log_tail,
    )
    if failure.failure_class is FailureClass.CANCELLED:
        return StageState.CANCELLED, "", failure
    return StageState.FAILED, "", failure
