"""How a stage ended, decided from all who know something about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from rtdetr_slurm.contract import ExitCode, FailureClass, Status
from rtdetr_slurm.launch.history import History
from rtdetr_slurm.launch.node_errors import Refusal
from rtdetr_slurm.launch.suspects import suspects
from rtdetr_slurm.plan.model import Endurance
from rtdetr_slurm.runs.failures import Failure, classify, is_apptainers_refusal


@dataclass(frozen=True)
class Witnesses:
    """Everything known when the step is over.

    Attributes:
        exit_code: of srun, or of the node wrapper on the local machine.
        interruption: why the step was asked to stop; None when it was not.
        last_line: the last line of status.json that this start wrote.
        refusal: what node wrappers refused.
        artefact_problem: what is wrong with what proves the success; None when it is whole.
        resume_from: where a further start would go on; None when it would begin anew.
        progressed: whether this start has left a checkpoint further on than the one it found.
        starts_in_vain: how many starts in a row, this one included, began where this one did.
        requeue_allowed: by the site and by the spec.
        restart: how often the job was put back before this start.
        history: of the starts before.
        endurance: what is allowed.
        out_of_hours: whether all that job.max_hours allows is used up.
        nodes: names of the job's nodes, in order; none where Slurm does not say.
    """

    exit_code: int
    interruption: FailureClass | None = None
    last_line: Mapping[str, Any] | None = None
    refusal: Refusal | None = None
    artefact_problem: str | None = None
    resume_from: str | None = None
    progressed: bool = False
    starts_in_vain: int = 1
    requeue_allowed: bool = False
    restart: int = 0
    history: History = field(default_factory=History)
    endurance: Endurance = field(default_factory=Endurance)
    out_of_hours: bool = False
    nodes: Sequence[str] = ()
    ranks_per_node: int = 1
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
        bad_nodes: the nodes that a failure of class infra is put down to.
        refusal: why nothing was started, in words that name no node.
        misplaced: whether the job only goes back because it stands on a bad node.
        by_slurm: whether Slurm puts it back by itself, for a node that failed; no retry of ours.
        evidence: of a failure that is tried again: what it was.
    """

    kind: Kind
    reason: str = ""
    failure_class: FailureClass | None = None
    write_status: bool = False
    bad_nodes: tuple[str, ...] = ()
    refusal: str | None = None
    misplaced: bool = False
    by_slurm: bool = False
    evidence: str = ""

    @property
    def exit_code(self) -> int:
        codes = {Kind.SUCCESS: ExitCode.OK, Kind.REQUEUE: ExitCode.INTERRUPTED}
        return codes.get(self.kind, ExitCode.FAILED)


_NOT_THE_INTERRUPTION = frozenset(
    {FailureClass.CONFIG.value, FailureClass.OOM_GPU.value, FailureClass.OOM_HOST.value}
)


def decide(end: Witnesses) -> Verdict:
    """The verdict. Success needs exit code 0, a SUCCESS line and a whole artefact."""
    if end.refusal is not None:
        return _ended_badly(end, end.refusal.failure, write=True)
    if end.exit_code == ExitCode.OK and end.last_status() == Status.SUCCESS.value:
        if end.artefact_problem is None:
            return Verdict(Kind.SUCCESS)
        if end.interruption is None:
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
    return _ended_badly(end, failure, write=end.last_status() != Status.FAILURE.value)


def _ended_badly(end: Witnesses, failure: Failure, *, write: bool) -> Verdict:
    """A failure, or one more try where the cluster is at fault and another node may do better."""
    retries = end.endurance.max_infra_retries
    may_retry = failure.failure_class is FailureClass.INFRA and end.requeue_allowed and retries
    if not may_retry:
        return _failed(failure, write=write)
    refusals = _refusals(end, failure)
    obstacle = _budget_obstacle(end)
    if end.history.infra_retries >= retries:
        obstacle = f"this was tried again {retries} times already (job.max_infra_retries)"
    elif end.refusal is not None and end.refusal.by_all and len(refusals) == 1:
        obstacle = "all nodes refuse alike, so it is not tried on others"
    elif refusals and refusals <= end.history.refusals:
        obstacle = "other nodes refused alike, so it is not tried again"
    elif end.out_of_hours:
        obstacle = _hours_used_up(end.endurance)
    if obstacle is not None:
        return _failed(Failure(FailureClass.INFRA, f"{failure.evidence}; {obstacle}"), write=write)
    count = f"retry {end.history.infra_retries + 1} of {retries}"
    return Verdict(
        Kind.REQUEUE,
        f"{failure.evidence}; {_onward(end)} after requeue ({count})",
        FailureClass.INFRA,
        write_status=True,  # what the engine has written is not the end
        bad_nodes=suspects(
            end.nodes,
            end.ranks_per_node,
            refusing=() if end.refusal is None else end.refusal.nodes,
            node_rank=(end.last_line or {}).get("node_rank"),
            log_tail=end.log_tail,
        ),
        refusal=min(refusals, default=None),
        evidence=failure.evidence,
    )


def _refusals(end: Witnesses, failure: Failure) -> frozenset[str]:
    """Why nothing was started, in words that another node would use as well; none where
    something was."""
    if end.refusal is not None:
        return end.refusal.words
    refused = is_apptainers_refusal(failure.evidence) or end.exit_code == ExitCode.SITE_CANNOT
    return frozenset({failure.evidence}) if refused else frozenset()


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


_TOLD = {
    FailureClass.TIMEOUT: "the time limit is near",
    FailureClass.PREEMPTED: "the job was preempted",
    FailureClass.INFRA: "a node of the job failed",
}


def _interrupted(end: Witnesses) -> Verdict:
    why = end.interruption or FailureClass.PREEMPTED
    if why is FailureClass.CANCELLED:
        return Verdict(Kind.CANCELLED, "cancelled on request", FailureClass.CANCELLED, True)
    told = _TOLD[why]
    if end.out_of_hours and why is FailureClass.TIMEOUT:
        told = "it was stopped in time"
    obstacle = _obstacle(end, why)
    if obstacle is not None:
        return Verdict(Kind.FAILED, f"{told}; {obstacle}", why, True)
    write = end.last_status() != Status.PREEMPTED.value
    lost = why is FailureClass.INFRA
    reason = f"{told}; {_onward(end)} after requeue"
    return Verdict(Kind.REQUEUE, reason, why, write, by_slurm=lost)


def _onward(end: Witnesses) -> str:
    return f"goes on from {end.resume_from}" if end.resume_from else "starts anew"


def _obstacle(end: Witnesses, why: FailureClass) -> str | None:
    """Why the job must not go back to the queue, or None."""
    left = f"; {end.resume_from} is left to resume from" if end.resume_from else ""
    if end.out_of_hours:
        return f"{_hours_used_up(end.endurance)}{left}"
    if not end.requeue_allowed:
        return f"requeue is not allowed (job.requeue, or the site){left}"
    if (obstacle := _budget_obstacle(end)) is not None:
        return f"{obstacle}{left}"
    if why is FailureClass.TIMEOUT and not end.progressed:
        return "no checkpoint was written since its start, so another start would end the same way"
    if not end.progressed and end.starts_in_vain >= MAX_STARTS_IN_VAIN:
        return given_up(end.starts_in_vain).reason
    return None


def _budget_obstacle(end: Witnesses) -> str | None:
    most = end.endurance.max_requeues
    return None if end.restart < most else f"it was put back {most} times (job.max_requeues)"


def _hours_used_up(endurance: Endurance) -> str:
    return f"the {endurance.max_hours:g} hours that it may take in all are used up (job.max_hours)"


def before_step(
    endurance: Endurance,
    history: History,
    restart: int,
    *,
    seconds_needed: float,
    nodes: Sequence[str],
    starts_in_vain: int,
) -> Verdict | None:
    """The verdict on a start that is not to begin, by what the starts before it came to.

    Args:
        restart: how often the job was put back before.
        seconds_needed: without so much time left, nothing comes of it.
    """
    if starts_in_vain >= MAX_STARTS_IN_VAIN:
        return given_up(starts_in_vain)
    if restart > endurance.max_requeues:
        reason = f"it was put back {restart} times; allowed are {endurance.max_requeues} "
        reason += "(job.max_requeues)"
        return Verdict(Kind.FAILED, reason, FailureClass.PREEMPTED, write_status=True)
    left = seconds_left(endurance, history)
    if left is not None and left <= seconds_needed:
        return Verdict(Kind.FAILED, _hours_used_up(endurance), FailureClass.TIMEOUT, True)
    wrong = [node for node in nodes if node in history.excluded]
    if wrong and not history.misplaced and restart < endurance.max_requeues:
        reason = f"{', '.join(wrong)} was to be left out, and Slurm has given it again"
        return Verdict(Kind.REQUEUE, reason, FailureClass.INFRA, True, misplaced=True)
    return None


def seconds_left(endurance: Endurance, history: History) -> float | None:
    """What job.max_hours leaves to this start; None without a limit."""
    if endurance.max_hours is None:
        return None
    return endurance.max_hours * 3600 - history.seconds


def given_up(starts: int) -> Verdict:
    """The verdict on a job that Slurm has started so often, and always in vain."""
    reason = f"{starts} starts in a row have not got further, so it does not go back to the queue"
    return Verdict(Kind.FAILED, reason, FailureClass.PREEMPTED, write_status=True)


def _failed(failure: Failure, *, write: bool) -> Verdict:
    return Verdict(Kind.FAILED, failure.evidence, failure.failure_class, write)
