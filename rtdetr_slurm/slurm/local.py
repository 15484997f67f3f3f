"""Jobs of the local site: processes of this machine, known by id and start time."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.state import JobInfo


def process_facts(pid: str) -> dict[str, Any]:
    """What tells this process from a later one with the same id: host and start time (ticks)."""
    return {"host": os.uname().nodename, "process_start": _start_time(pid)}


def local_job(submitted: Mapping[str, Any]) -> JobInfo | None:
    """The job of a `submitted` event; None on another machine than the one it runs on."""
    if submitted.get("host") != os.uname().nodename:
        return None
    pid = str(submitted["job_id"])
    alive = _start_time(pid) == submitted.get("process_start") is not None
    return JobInfo(pid, "RUNNING" if alive else "ENDED", source="local")


def stop_local_job(submitted: Mapping[str, Any]) -> None:
    """Ask a local job to end; one that has ended already is no error.

    Raises:
        SiteError: it runs on another machine.
    """
    job = local_job(submitted)
    if job is None:
        raise SiteError(f"the job runs on {submitted.get('host')}; cancel it there")
    if job.state == "RUNNING":
        os.kill(int(job.job_id), signal.SIGTERM)


def _start_time(pid: str) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may hold anything, also spaces and ')'.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
