"""Probe jobs: sent as a job of ours is sent, watched for as long as the user wants to wait, read,
and removed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from rtdetr_slurm.contract import CONTROLLER_ZIP
from rtdetr_slurm.doctor.probe_plan import ProbePlan, probe_stage
from rtdetr_slurm.doctor.trace import why_no_trace
from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.launch.probe import PROBE
from rtdetr_slurm.launch.reach import s3_endpoint
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.failures import classify
from rtdetr_slurm.runs.images import glance
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.probe import (
    ANSWER,
    END,
    HELLO,
    Answer,
    End,
    Hello,
    NodeFacts,
    Request,
    read_nodes,
    read_record,
    write_record,
    write_request,
)
from rtdetr_slurm.runs.run import PRIVATE_DIR, python_archive
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.identity import Sought
from rtdetr_slurm.slurm.parse import JobInfo, Queued
from rtdetr_slurm.slurm.script import batch_parameters
from rtdetr_slurm.slurm.states import PENDING
from rtdetr_slurm.submission.controller import controller_archive

LIMIT_S = 60.0
"""For ranks to meet, and for one all-reduce."""
_POLL_S, _SLOW_POLL_S = 0.5, 5.0
_SLOW_AFTER_S = 30.0
_LATE_S = 75.0
"""So long may NFS keep a job's last words back after the job has ended."""
_UNSEEN_S = 5.0
"""After that a job that has left nothing is looked into."""
_REMOVE_S = 10.0
_SILENCE_S = 120.0
"""So long may Slurm give no answer."""


@dataclass
class Probe:
    """A probe job and what has come of it.

    Attributes:
        token_sent: whether Slurm may know of it.
        blocked: why it was not sent: what other lines have told already.
        refused: why it was not queued.
        started_after_s: from being sent to its first words being seen here; None: never.
        seen_after_s: from its first words to their being seen here, by the clocks of both.
        job: what Slurm said last.
        gave_up: whether it was still waiting when the user's patience was over.
        trace: why a job that ended left nothing, where that was found out.
        evidence: of its log, where it ended early.
    """

    plan: ProbePlan
    site: Site
    folder: Path
    token: str = ""
    queued: Queued | None = None
    sent: float = 0.0
    token_sent: bool = False
    blocked: str = ""
    refused: str = ""
    started_after_s: float | None = None
    seen_after_s: float | None = None
    job: JobInfo | None = None
    ended_after_s: float | None = None
    gave_up: bool = False
    trace: str = ""
    evidence: str = ""
    hello: Hello | None = None
    nodes: Sequence[NodeFacts] = field(default_factory=list)
    end: End | None = None
    over: bool = False

    @property
    def sought(self) -> Sought:
        since = datetime.fromtimestamp(self.sent).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        number = self.queued.job_id if self.queued is not None else None
        return Sought(self.token, str(self.folder), since, number)


@contextmanager
def probes(
    site: Site,
    plans: Sequence[ProbePlan],
    run_root: Path,
    obstacle: Callable[[ProbePlan], str] = lambda _: "",
) -> Iterator[list[Probe]]:
    """Send probe jobs; whatever happens, none is left in the queue and no folder on the disk.

    Args:
        obstacle: why a probe need not be sent, for that is known already; empty where nothing is.
    """
    sent: list[Probe] = []
    try:
        for plan in plans:
            probe = _planned(site, plan, run_root)
            sent.append(probe)  # first, so that whatever happens it is looked after
            probe.blocked = obstacle(plan)
            probe.over = bool(probe.blocked) or not _prepared(probe)
            if not probe.over:
                _send(probe)
        yield sent
    except KeyboardInterrupt as interrupt:
        jobs = [probe.queued.job_id for probe in sent if probe.queued and not probe.end]
        interrupt.args = (f"probe jobs are cancelled: {', '.join(jobs) or 'none was queued'}",)
        raise
    finally:
        for probe in sent:
            _cancel(probe)
        for probe in sent:
            _remove(probe.folder)


def _planned(site: Site, plan: ProbePlan, run_root: Path) -> Probe:
    moment = datetime.now(timezone.utc)
    name = f".doctor-{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return Probe(plan, site, run_root / name, token=f"rtdetr-slurm:{name}")


def _prepared(probe: Probe) -> bool:
    """Make its folder, with the request in it; whether that could be done."""
    site, plan = probe.site, probe.plan
    try:
        stage = probe_stage(site, plan, probe.folder)
        image = None
        if stage.container is not None:
            image = glance(Path(stage.container.image.path))
        probe.folder.parent.mkdir(parents=True, exist_ok=True)
        probe.folder.mkdir(mode=PRIVATE_DIR)
        endpoint = s3_endpoint(site.env, os.environ)
        request = Request(stage, probe.token, image, plan.enters, LIMIT_S, endpoint)
        write_request(probe.folder, request)
        write_atomic(probe.folder / CONTROLLER_ZIP, controller_archive(), mode=0o600)
    except (UserError, OSError) as error:
        probe.refused = str(explained(error))
        return False
    return True


def _command(probe: Probe) -> list[str]:
    return [*python_archive(probe.folder / CONTROLLER_ZIP), PROBE, str(probe.folder)]


def _send(probe: Probe) -> None:
    stage = probe_stage(probe.site, probe.plan, probe.folder)
    probe.sent = time.time()
    if stage.launch.scheduler == "local":
        return
    from rtdetr_slurm.slurm.executor import BatchExecutor  # submitit is slow to import

    folder = str(probe.folder)
    parameters = batch_parameters(
        stage, chdir=folder, job_dir=folder, comment=probe.token, job_name="rtdetr-doctor"
    )
    probe.token_sent = True
    try:
        probe.queued = BatchExecutor(probe.folder, _command(probe), parameters).send(
            secrets=stage.launch.secrets
        )
    except (UserError, OSError) as error:
        probe.refused, probe.over = str(explained(error)), True


def run_here(probe: Probe) -> None:
    """The probe of site `local`, on this machine."""
    log = probe.folder / "probe.log"
    argv = [sys.executable, "-m", "rtdetr_slurm.launch", PROBE, str(probe.folder)]
    with log.open("wb") as stream:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False)
    _read(probe)
    if probe.end is None:
        probe.evidence = classify(log_tail=tail(log)).evidence
    probe.over = True


# --- waiting ---------------------------------------------------------------------------------
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


def _remove(folder: Path) -> None:
    """A job that is just ending may still write there."""
    give_up = time.monotonic() + _REMOVE_S
    while folder.exists() and time.monotonic() < give_up:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(_POLL_S)


def _cancel(probe: Probe) -> None:
    """End its job, unless that has ended by itself."""
    if not probe.token_sent or probe.end is not None or (probe.job and probe.job.over):
        return
    with suppress(UserError):
        client = SlurmClient(probe.queued.cluster if probe.queued is not None else None)
        # What sbatch was interrupted in may have been queued all the same: its token tells.
        found = [job.job_id for job in client.find([probe.sought]) if not job.over]
        if found:
            client.scancel(found)
