"""Text of Slurm's commands → values. Pure; formats are asked for by name, never human tables."""

from __future__ import annotations

import re

from rtdetr_slurm.runs.state import JobInfo

SQUEUE_FORMAT = "%i|%T|%r|%S|%N|%k"
SACCT_FIELDS = "JobID,State,ExitCode,Reason,NodeList,Comment"
SQUEUE_STATE_PATTERN = re.compile(r"[A-Z_]+")

_NOTHING = frozenset({"", "None", "(null)", "N/A", "Unknown", "None assigned"})


def parse_squeue(text: str) -> dict[str, tuple[JobInfo, str]]:
    """Job id → (job, its comment) from `squeue --noheader --format SQUEUE_FORMAT`."""
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 5)
        if len(fields) != 6:
            continue
        job_id, state, reason, start, nodes, comment = fields
        jobs[job_id] = (
            JobInfo(
                job_id,
                state=first_word(state),
                reason=_or_empty(reason),
                expected_start=_or_empty(start) or None,
                nodes=_or_empty(nodes),
                source="squeue",
            ),
            _or_empty(comment),
        )
    return jobs


def parse_sacct(text: str) -> dict[str, tuple[JobInfo, str]]:
    """Job id → (job, its comment) from `sacct -X --noheader --parsable2 -o SACCT_FIELDS`.

    A requeued job has one record per start; the last one counts.
    """
    jobs = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) != 6 or not fields[0].isdigit():
            continue
        job_id, state, exit_code, reason, nodes, comment = fields
        code, signal = parse_exit_code(exit_code)
        jobs[job_id] = (
            JobInfo(
                job_id,
                state=first_word(state),
                reason=_or_empty(reason),
                exit_code=code,
                signal=signal,
                nodes=_or_empty(nodes),
                source="sacct",
            ),
            _or_empty(comment),
        )
    return jobs


def parse_scontrol_job(text: str) -> JobInfo | None:
    """The job of `scontrol --oneliner show job ID`, None when there is none in the text."""
    values = dict(re.findall(r"(\w+)=(\S*)", text))
    if "JobId" not in values or "JobState" not in values:
        return None
    code, signal = parse_exit_code(values.get("ExitCode", ""))
    return JobInfo(
        values["JobId"],
        state=first_word(values["JobState"]),
        reason=_or_empty(values.get("Reason", "")),
        exit_code=code,
        signal=signal,
        expected_start=_or_empty(values.get("StartTime", "")) or None,
        nodes=_or_empty(values.get("NodeList", "")),
        source="scontrol",
    )


def parse_sbatch(text: str) -> str | None:
    """The job id in the answer of `sbatch --parsable` (`id` or `id;cluster`)."""
    match = re.search(r"^(\d+)(;\S+)?$", text.strip(), re.MULTILINE)
    return match[1] if match else None


def parse_exit_code(text: str) -> tuple[int | None, int | None]:
    """`code:signal` as two numbers; (None, None) when it is not that."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (None, None)


def first_word(state: str) -> str:
    """The state itself of `CANCELLED by 1000`, `CANCELLED+` and the like."""
    match = SQUEUE_STATE_PATTERN.match(state.strip())
    return match[0] if match else state.strip()


def _or_empty(text: str) -> str:
    return "" if text.strip() in _NOTHING else text.strip()
