"""Probe jobs watched for as long as the user wants to wait, and read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from rtdetr_slurm.doctor.probe import Probe
from rtdetr_slurm.doctor.probe_plan import probe_stage
from rtdetr_slurm.doctor.trace import why_no_trace
from rtdetr_slurm.launch.probe import PROBE
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.failures import classify
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.probe import (
    ANSWER,
    END,
    HELLO,
    Answer,
    End,
    Hello,
    read_nodes,
    read_record,
    write_record,
)
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.states import PENDING

_POLL_S, _SLOW_POLL_S = 0.5, 5.0
_SLOW_AFTER_S = 30.0
_LATE_S = 75.0
"""So long may NFS keep a job's last words back after the job has ended."""
_UNSEEN_S = 5.0
"""After that a job that has left nothing is looked into."""
_SILENCE_S = 120.0
"""So long may Slurm give no answer."""


def run_here(probe: Probe) -> None:
    """The probe of site `local`, on this machine."""
    log = probe.folder / "probe.log"
    argv = [sys.executable, "-m", "rtdetr_slurm.controller", PROBE, str(probe.folder)]
    with log.open("wb") as stream:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False)
    _read(probe)
    if probe.end is None:
        probe.evidence = classify(log_tail=tail(log)).evidence
    probe.over = True


def wait(sent: Sequence[Probe], patience_s: float, on_note: Callable[[str], None]) -> None:
    """Until every probe has ended, or has waited in the queue for longer than `patience_s`.

    Args:
        on_note: is told what changes.

    Raises:
        SlurmUnreachable: Slurm gives no answer.
    """
    clusters = {probe.queued.cluster for probe in sent if probe.queued is not None}
    clients = {cluster: SlurmClient(cluster) for cluster in clusters}
    began = heard = time.monotonic()
    said: dict[str, str] = {}
    asked = -_SLOW_POLL_S
    while waiting := [probe for probe in sent if not probe.over]:
        for probe in waiting:
            _read(probe)
        now = time.monotonic()
        if now - asked >= min(2.0 + (now - began) / 30, 15.0):
            asked = now
            try:
                for cluster, client in clients.items():
                    _ask(client, [p for p in waiting if p.queued and p.queued.cluster == cluster])
                heard = now
            except SlurmUnreachable:
                if now - heard > _SILENCE_S:
                    raise
        for probe in waiting:
            _judge(probe, now - began, patience_s)
            if (line := _progress(probe)) != said.get(probe.plan.where):
                said[probe.plan.where] = line
                on_note(line)
        time.sleep(_POLL_S if now - began < _SLOW_AFTER_S or _runs(waiting) else _SLOW_POLL_S)


def _read(probe: Probe) -> None:
    """What the job has left by now; a damaged record counts as its end."""
    try:
        if probe.hello is None and (hello := read_record(Hello, probe.folder, HELLO)):
            now = time.time()
            answer: Answer = {"time": now}
            write_record(probe.folder, ANSWER, answer)
            probe.hello, probe.started_after_s = hello, now - probe.sent
            probe.seen_after_s = now - hello["time"]
        probe.end = read_record(End, probe.folder, END)
        if probe.end is not None:
            probe.nodes = read_nodes(probe.folder)
            probe.over = True
    except BadRecord as error:
        probe.evidence, probe.over = str(error), True


def _ask(client: SlurmClient, waiting: Sequence[Probe]) -> None:
    for probe, job in zip(waiting, client.find([p.sought for p in waiting]), strict=True):
        probe.job = job


def _judge(probe: Probe, waited: float, patience_s: float) -> None:
    """Give up on a job that waits for too long, or has ended and left no last words."""
    job = probe.job
    if probe.over or job is None:
        return
    if job.state in PENDING and waited > patience_s:
        probe.gave_up = probe.over = True
    elif job.over:
        if probe.ended_after_s is None:
            probe.ended_after_s = waited
        lines = tail(probe.folder / f"{job.job_id}_0_log.out")
        late = waited - probe.ended_after_s > (_LATE_S if probe.hello is not None else _UNSEEN_S)
        if lines or late:
            _read(probe)
            if not probe.over:
                probe.evidence = classify(
                    slurm_state=job.state, exit_code=job.exit_code, log_tail=lines
                ).evidence
                probe.nodes, probe.over = read_nodes(probe.folder), True
                if probe.hello is None and not lines:
                    stage = probe_stage(probe.site, probe.plan, probe.folder)
                    probe.trace = why_no_trace(stage, probe.folder, job)


def _runs(waiting: Sequence[Probe]) -> bool:
    return any(probe.job is not None and probe.job.state not in PENDING for probe in waiting)


def _progress(probe: Probe) -> str:
    job = probe.job
    if job is None or probe.queued is None:
        return f"probe of {probe.plan.where}: sent"
    said = f"probe of {probe.plan.where}: job {probe.queued.job_id} {job.state.lower()}"
    if job.state in PENDING:
        said += f" ({job.reason})" if job.reason else ""
        said += f", expected to start {job.expected_start}" if job.expected_start else ""
    return said
