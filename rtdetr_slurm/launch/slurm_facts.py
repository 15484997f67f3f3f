"""What Slurm lets a running job know about its own end: parsers, pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rtdetr_slurm.launch.outcome import Interruption, Stop

EARLIEST_WARNING_S = 90
"""Slurm may send the warning signal a minute early; the rest is the clocks' and ours."""

_ACTIVE = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"})


@dataclass(frozen=True)
class JobFacts:
    """The lines of `scontrol show job` that tell why a job is asked to end.

    Attributes:
        active: whether it still runs as far as slurmctld is concerned.
        restarts: how often it was put back into the queue, also by Slurm itself, also just now.
        preempted: whether its grace time has begun.
        seconds_left: until the time limit; None where there is none.
    """

    active: bool
    restarts: int
    preempted: bool
    seconds_left: float | None


def parse_job_facts(text: str) -> JobFacts:
    """Facts from `scontrol --oneliner show job ID`."""
    values = dict(re.findall(r"(\w+)=(\S*)", text))
    limit, used = (parse_clock(values.get(key, "")) for key in ("TimeLimit", "RunTime"))
    return JobFacts(
        active=values.get("JobState") in _ACTIVE,
        restarts=int(values.get("Restarts") or 0),
        preempted=values.get("PreemptTime", "None") not in ("None", "N/A", "Unknown"),
        seconds_left=None if limit is None or used is None else limit - used,
    )


def parse_clock(text: str) -> float | None:
    """Seconds of `[days-]hours:minutes:seconds`; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def parse_notice(log: Sequence[str], job_id: str) -> Interruption | None:
    """Why Slurm is ending a job, from slurmstepd's line in the job's log.

    `*** JOB 8 ON node1 CANCELLED AT 2026-… DUE TO PREEMPTION ***`; a line that gives no reason
    means that somebody cancelled the job. None when there is no such line.
    """
    pattern = rf"\*\*\* JOB {job_id} ON \S+ CANCELLED AT \S+(?: DUE TO ([^*]+?))? \*\*\*"
    reasons = {"TIME LIMIT": Interruption.TIMEOUT, None: Interruption.CANCELLED}
    for line in reversed(log):
        if match := re.search(pattern, line):
            # PREEMPTION, JOB REQUEUE, NODE FAILURE: none of them is the user's wish.
            return reasons.get(match[1], Interruption.PREEMPTED)
    return None


def judge_warning(facts: JobFacts, lead_s: int) -> Stop:
    """A signal to a job that Slurm still lets run: what comes of it is up to the job."""
    left = facts.seconds_left
    near = not facts.preempted and left is not None and left <= lead_s + EARLIEST_WARNING_S
    return Stop(Interruption.TIMEOUT if near else Interruption.PREEMPTED, by_scheduler=False)
