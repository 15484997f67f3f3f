"""How a stage ended, decided from all who know something about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rtdetr_slurm.contract import ExitCode, FailureClass, Status
from rtdetr_slurm.runs.failures import Failure, classify


@dataclass(frozen=True)
class Witnesses:
    """Everything known when the step is over.

    Attributes:
        exit_code: of srun, or of the node wrapper on the local machine.
        interruption: why the step was asked to stop; None when it was not.
        last_line: the last line of status.json that this start wrote.
        node_error: what a node wrapper refused.
        artefact_problem: what is wrong with what proves the success; None when it is whole.
        resume_from: where a further start would go on; None when it would begin anew.
        progressed: whether this start has left a checkpoint further on than the one it found.
        starts_in_vain: how many starts in a row, this one included, began where this one did.
        requeue_allowed: by the site and by the spec.
    """

    exit_code: int
    interruption: FailureClass | None = None
    last_line: Mapping[str, Any] | None = None
    node_error: Failure | None = None
    artefact_problem: str | None = None
    resume_from: str | None = None
    progressed: bool = False
    starts_in_vain: int = 1
    requeue_allowed: bool = False
    log_tail: Sequence[str] = ()

    def last_status(self) -> str | None:
        return None if self.last_line is None else str(self.last_line.get("status"))


MAX_STARTS_IN_VAIN = 10
"""So often in a row may a job start without getting further before it is given up."""


class Kind(str, Enum):
    SUCCESS = "success"
    REQUEUE = "requeue"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Verdict:
    """What is done now.

    Attributes:
        write_status: whether status.json still lacks its closing line.
    """

    kind: Kind
    reason: str = ""
    failure_class: FailureClass | None = None
    write_status: bool = False

    @property
    def exit_code(self) -> int:
        codes = {Kind.SUCCESS: ExitCode.OK, Kind.REQUEUE: ExitCode.INTERRUPTED}
        return codes.get(self.kind, ExitCode.FAILED)


_NOT_THE_INTERRUPTION = frozenset(
    {FailureClass.CONFIG.value, FailureClass.OOM_GPU.value, FailureClass.OOM_HOST.value}
)


def decide(end: Witnesses) -> Verdict:
    """The verdict. Success needs exit code 0, a SUCCESS line and a whole artefact."""
    if end.node_error is not None:
        return _failed(end.node_error, write=True)
    if end.exit_code == ExitCode.OK and end.last_status() == Status.SUCCESS.value:
        if end.artefact_problem is None:
            return Verdict(Kind.SUCCESS)
        reason = f"the action reported success, but {end.artefact_problem}"
        return _failed(Failure(FailureClass.UNKNOWN, reason), write=True)
    if _was_interrupted(end):
        return _interrupted(end)
    if end.exit_code == ExitCode.OK:
        failure = Failure(FailureClass.UNKNOWN, "status.json has no SUCCESS line from this start")
        if end.last_status() == Status.FAILURE.value:
            failure = classify(status_line=end.last_line)
        return _failed(
            replace(failure, evidence=f"exit code 0, but {failure.evidence}"), write=True
        )
    failure = classify(status_line=end.last_line, exit_code=end.exit_code, log_tail=end.log_tail)
    return _failed(failure, write=end.last_status() != Status.FAILURE.value)


def _was_interrupted(end: Witnesses) -> bool:
    if end.exit_code == ExitCode.INTERRUPTED:
        return True
    if end.interruption is None:
        # A training that a killed neighbour takes along also ends as if it were preempted.
        return False
    # srun reports the highest code of all nodes, so 75 can hide behind a killed neighbour's 137;
    # the PREEMPTED line is written only after the full checkpoint.
    line = end.last_line or {}
    return line.get("failure_class") not in _NOT_THE_INTERRUPTION


def _interrupted(end: Witnesses) -> Verdict:
    why = end.interruption or FailureClass.PREEMPTED
    if why is FailureClass.CANCELLED:
        return Verdict(Kind.CANCELLED, "cancelled on request", FailureClass.CANCELLED, True)
    told = "the time limit is near" if why is FailureClass.TIMEOUT else "the job was preempted"
    obstacle = _obstacle(end, why)
    if obstacle is not None:
        return Verdict(Kind.FAILED, f"{told}; {obstacle}", why, True)
    onward = f"goes on from {end.resume_from}" if end.resume_from else "starts anew"
    write = end.last_status() != Status.PREEMPTED.value
    return Verdict(Kind.REQUEUE, f"{told}; {onward} after requeue", why, write)


def _obstacle(end: Witnesses, why: FailureClass) -> str | None:
    """Why the job must not go back to the queue, or None."""
    if not end.requeue_allowed:
        left = f"; {end.resume_from} is left to resume from" if end.resume_from else ""
        return f"requeue is not allowed (job.requeue, or the site){left}"
    if why is FailureClass.TIMEOUT and not end.progressed:
        return "no checkpoint was written since its start, so another start would end the same way"
    if not end.progressed and end.starts_in_vain >= MAX_STARTS_IN_VAIN:
        return given_up(end.starts_in_vain).reason
    return None


def given_up(starts: int) -> Verdict:
    """The verdict on a job that Slurm has started so often, and always in vain."""
    reason = f"{starts} starts in a row have not got further, so it does not go back to the queue"
    return Verdict(Kind.FAILED, reason, FailureClass.PREEMPTED, write_status=True)


def _failed(failure: Failure, *, write: bool) -> Verdict:
    return Verdict(Kind.FAILED, failure.evidence, failure.failure_class, write)
