"""Why a probe job has left nothing at all: a second job, which needs neither the run root nor
Python, tells by its exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rtdetr_slurm.contract import CONTROLLER_ZIP
from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.identity import Sought
from rtdetr_slurm.slurm.script import batch_parameters

_NOWHERE, _ANOTHER, _NOT_WRITABLE, _NO_PYTHON, _ALL_THERE = 41, 42, 43, 44, 45
_SCRIPT = (
    # Not the folder itself: a newer slurmd makes the one that a job's output goes to.
    f'[ -d "$1" ] || exit {_NOWHERE}; [ -e "$2/{CONTROLLER_ZIP}" ] || exit {_ANOTHER}; '
    f'[ -w "$2" ] || exit {_NOT_WRITABLE}; [ -x "$3" ] || exit {_NO_PYTHON}; exit {_ALL_THERE}'
)
_SAID: Mapping[int, str] = {
    _NOWHERE: "run_root {root} is not there on {node}",
    _ANOTHER: "run_root {root} is another folder on {node}: what is written here is not seen there",
    _NOT_WRITABLE: "run_root {root} is not writable on {node}",
    _NO_PYTHON: "the Python that runs rtdetr-slurm, {python}, is not there on {node}",
    _ALL_THERE: "run_root {root} is there on {node}, but what is written there is not seen here",
}
_WAIT_S, _LOOK_EVERY_S = 90.0, 1.0


def why_no_trace(stage: Stage, folder: Path, job: JobInfo) -> str:
    """What the node of a job says that has left nothing in its folder; empty where it says nothing.

    Args:
        stage: of the job.
    """
    from rtdetr_slurm.slurm.executor import BatchExecutor  # submitit is slow to import

    token = f"rtdetr-slurm:{folder.name}:trace"
    own = folder / "trace"
    command = ["/bin/sh", "-c", _SCRIPT, "sh", str(folder.parent), str(folder), sys.executable]
    since = datetime.now().astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    try:
        node = SlurmClient().hostnames(job.nodes)[0] if job.nodes else None
        parameters = batch_parameters(
            stage, chdir="/", job_dir="/tmp", comment=token, job_name="rtdetr-doctor"
        )
        parameters["additional_parameters"] |= {"output": "/dev/null", "nodes": 1, "time": 2}
        parameters["additional_parameters"] |= {} if node is None else {"nodelist": node}
        own.mkdir()
        sent = BatchExecutor(own, command, parameters).send(secrets=stage.launch.secrets)
    except (UserError, OSError):
        return ""
    client = SlurmClient(sent.cluster)
    try:
        code, where = _end_of(client, Sought(token, "/", since, sent.job_id))
    finally:
        with suppress(SiteError):
            client.scancel([sent.job_id])
    said = _SAID.get(code or 0, "")
    return said.format(root=folder.parent, python=sys.executable, node=where or node)


def _end_of(client: SlurmClient, sought: Sought) -> tuple[int | None, str]:
    """Exit code and node of a job; no code where it does not end in time."""
    give_up = time.monotonic() + _WAIT_S
    while time.monotonic() < give_up:
        time.sleep(_LOOK_EVERY_S)
        with suppress(SiteError):
            [job] = client.find([sought])
            if job.over:
                return job.exit_code, job.nodes
    return None, ""
