"""Probe jobs: sent as a job of ours is sent, and removed, whatever comes of them."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from rtdetr_slurm.contract import CONTROLLER_ZIP
from rtdetr_slurm.doctor.probe_plan import ProbePlan, probe_stage
from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.files import PRIVATE_DIR, write_atomic
from rtdetr_slurm.launch.probe import PROBE
from rtdetr_slurm.launch.reach import s3_endpoint
from rtdetr_slurm.runs.images import glance
from rtdetr_slurm.runs.probe import (
    End,
    Hello,
    NodeFacts,
    Request,
    write_request,
)
from rtdetr_slurm.runs.run import python_archive
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.slurm.answers import JobInfo, Queued
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.identity import Sought
from rtdetr_slurm.slurm.script import batch_parameters
from rtdetr_slurm.submission.controller import controller_archive

LIMIT_S = 60.0
"""For ranks to meet, and for one all-reduce."""
_REMOVE_S, _REMOVE_EVERY_S = 10.0, 0.5


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


def _remove(folder: Path) -> None:
    """A job that is just ending may still write there."""
    give_up = time.monotonic() + _REMOVE_S
    while folder.exists() and time.monotonic() < give_up:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(_REMOVE_EVERY_S)


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
