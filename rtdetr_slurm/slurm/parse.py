"""Text of Slurm's commands → values. Pure; formats are asked for by name, never human tables.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.slurm.answers import AsKept, JobInfo, Listing, OwnFacts, Queued
from rtdetr_slurm.slurm.job_ids import expand
from rtdetr_slurm.slurm.states import ENDING
from rtdetr_slurm.slurm.times import parse_clock

SQUEUE_FORMAT = "%i|%T|%r|%S|%N|%k|"
"""The comment, which may hold anything, also line breaks, comes last, and a mark behind it."""
SACCT_FIELDS = "JobID,State,ExitCode,Reason,NodeList,End,Comment,WorkDir"

_STATE = re.compile(r"[A-Z_]+")
_NOTHING = frozenset({"", "None", "(null)", "N/A", "Unknown", "None assigned"})


def parse_squeue(text: str) -> Listing:
    """The jobs of `squeue --noheader --format SQUEUE_FORMAT`; array tasks one by one."""
    jobs: dict[str, JobInfo] = {}
    unreadable: list[str] = []
    *lines, cut_off = text.split("\n")
    record = ""
    for line in lines:
        record = f"{record}\n{line}".strip()
        # Where a cluster is named, squeue names it too, in a line of its own.
        if record.startswith("CLUSTER: "):
            record = ""
        if not record.endswith("|"):
            continue
        job = _queued_job(record)
        if job is None:
            unreadable.append(record)
            job = _queued_job(line)
        if job is not None:
            jobs.update(_one_by_one(job))
        record = ""
    unreadable += [text for text in (record, cut_off.strip()) if text]
    return Listing(jobs, unreadable[0] if unreadable else None)


def _queued_job(record: str) -> JobInfo | None:
    fields = record.removesuffix("|").split("|", 5)
    if len(fields) != 6 or not expand(fields[0]) or any("\n" in one for one in fields[:5]):
        return None
    ids, state, reason, start, nodes, comment = fields
    return JobInfo(
        ids,
        state=first_word(state),
        reason=_or_empty(reason),
        expected_start=_or_empty(start) or None,
        nodes=_or_empty(nodes),
        comment=_or_empty(comment),
        source="squeue",
    )


def parse_sacct(text: str) -> dict[str, JobInfo]:
    """Job id → job from `sacct -X --noheader --parsable2 -o SACCT_FIELDS`.

    A requeued job has one record per start; the last one counts.
    """
    jobs = {}
    for line in text.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8:
            continue
        ids, state, exit_code, reason, nodes, ended, comment, work_dir = fields
        code, signal = parse_exit_code(exit_code)
        job = JobInfo(
            ids,
            state=first_word(state),
            reason=_or_empty(reason),
            exit_code=code,
            signal=signal,
            nodes=_or_empty(nodes),
            comment=_or_empty(comment),
            work_dir=work_dir,
            source="sacct",
            ended=_or_empty(ended) or None,
        )
        jobs.update(_one_by_one(job))
    return jobs


def parse_scontrol_jobs(text: str) -> dict[str, JobInfo]:
    """Job id → job from `scontrol --oneliner show job`, one line per job or array task."""
    jobs = {}
    for line in text.splitlines():
        values = _values(line)
        if "JobId" not in values or "JobState" not in values:
            continue
        code, signal = parse_exit_code(values.get("ExitCode", ""))
        task = values.get("ArrayTaskId")
        ids = values["JobId"] if task is None else f"{values['ArrayJobId']}_{_bracketed(task)}"
        job = JobInfo(
            ids,
            state=first_word(values["JobState"]),
            reason=_or_empty(values.get("Reason", "")),
            exit_code=code,
            signal=signal,
            expected_start=_or_empty(values.get("StartTime", "")) or None,
            nodes=_or_empty(values.get("NodeList", "")),
            comment=_or_empty(values.get("Comment", "")),
            source="scontrol",
            ended=_or_empty(values.get("EndTime", "")) or None,
        )
        jobs.update(_one_by_one(job))
    return jobs


def _one_by_one(job: JobInfo) -> dict[str, JobInfo]:
    """Job id → job, for each of those that a compressed id (`5_[0-3]`) stands for."""
    return {job_id: replace(job, job_id=job_id) for job_id in expand(job.job_id)}


def parse_own_facts(text: str) -> OwnFacts:
    """Facts about oneself from `scontrol --oneliner show job ID`.

    Raises:
        ValueError: it says nothing of a job.
    """
    values = _values(text)
    if "JobState" not in values:
        raise ValueError(f"no job's state in the answer {text.strip()[:80]!r}")
    limit, used = (parse_clock(values.get(key, "")) for key in ("TimeLimit", "RunTime"))
    return OwnFacts(
        running=first_word(values.get("JobState", "")) not in ENDING,
        restarts=int(values.get("Restarts") or 0),
        preempted=bool(_or_empty(values.get("PreemptTime", ""))),
        seconds_left=None if limit is None or used is None else limit - used,
        partition=_or_empty(values.get("Partition", "")),
        excluded=_or_empty(values.get("ExcNodeList", "")),
    )


def parse_as_kept(text: str) -> AsKept:
    """What slurmctld keeps of a job, from `scontrol --oneliner show job ID`."""
    values = _values(text)
    requeue = values.get("Requeue")
    return AsKept(None if requeue is None else requeue == "1", _or_empty(values.get("Comment", "")))


def parse_notice(log: Sequence[str], number: str) -> FailureClass | None:
    """Why Slurm is ending a job, from slurmstepd's line in the job's log.

    `*** JOB 8 ON node1 CANCELLED AT 2026-… DUE TO PREEMPTION ***`; a line that gives no reason
    means that somebody cancelled the job. None when there is no such line.

    Args:
        number: SLURM_JOB_ID; array tasks are named by their own number here.
    """
    pattern = rf"\*\*\* JOB {number} ON \S+ CANCELLED AT \S+(?: DUE TO ([^*]+?))? \*\*\*"
    reasons = {
        "": FailureClass.CANCELLED,
        "TIME LIMIT": FailureClass.TIMEOUT,
        "NODE FAILURE": FailureClass.INFRA,
    }
    for line in reversed(log):
        if match := re.search(pattern, line):
            # PREEMPTION, JOB REQUEUE: Slurm takes the nodes, and the job may come back.
            reason = (match[1] or "").partition(",")[0]
            return reasons.get(reason, FailureClass.PREEMPTED)
    return None


def parse_sbatch(text: str) -> Queued | None:
    """The answer of `sbatch --parsable`: a line with `id`, or `id;cluster`; None when it is
    neither, or cut off: the beginning of an id is another job's."""
    match = re.search(r"^(\d+)(?:;(\S+))?\n", text, re.MULTILINE)
    return Queued(match[1], match[2]) if match else None


def parse_partition_nodes(text: str) -> int | None:
    """Number of nodes from `scontrol --oneliner show partition NAME`; None where it says none."""
    count = _values(text).get("TotalNodes", "")
    return int(count) if count.isdecimal() else None


def parse_kill_wait(text: str) -> int | None:
    """Seconds between TERM and KILL from `scontrol show config`."""
    match = re.search(r"^KillWait\s*=\s*(\d+) sec", text, re.MULTILINE)
    return int(match[1]) if match else None


def parse_max_array_size(text: str) -> int | None:
    """Tasks that an array may have, from `scontrol show config`."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else None


def parse_exit_code(text: str) -> tuple[int | None, int | None]:
    """`code:signal` as two numbers; (None, None) when it is not that."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (None, None)


def first_word(state: str) -> str:
    """The state itself of `CANCELLED by 1000`, `CANCELLED+` and the like."""
    match = _STATE.match(state.strip())
    return match[0] if match else state.strip()


def _values(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", line))


def _bracketed(task: str) -> str:
    """ArrayTaskId of one task as it is, of several pending ones as squeue writes them."""
    return task if task.isdigit() else f"[{task}]"


def _or_empty(text: str) -> str:
    return "" if text.strip() in _NOTHING else text.strip()
