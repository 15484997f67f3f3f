"""A typed client of Slurm's commands: argument lists only, a time limit on each, no shell."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.state import JobInfo
from rtdetr_slurm.slurm.environment import submission_environment
from rtdetr_slurm.slurm.parse import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    parse_sacct,
    parse_sbatch,
    parse_scontrol_job,
    parse_squeue,
)

TIMEOUT_S = 60.0
"""Slurm's own clients retry for a while when the controller is slow; this is beyond that."""


class SlurmUnreachable(SiteError):
    """A Slurm command gave no usable answer; what it was asked may or may not have happened."""


class SubmissionRefused(SiteError):
    """sbatch said no: nothing was queued."""


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


class SlurmClient:
    """Calls sbatch, squeue, sacct, scontrol and scancel for the current user."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._env = submission_environment(os.environ if environ is None else environ)

    def submit(self, script: Path) -> str:
        """Queue a batch script; returns the job id.

        Raises:
            SubmissionRefused: sbatch rejected the job and says why.
            SlurmUnreachable: there is no knowing whether the job was queued.
        """
        answer = self._call(["sbatch", "--parsable", str(script)])
        job_id = parse_sbatch(answer.out)
        if job_id is not None:
            return job_id
        message = answer.err.strip() or answer.out.strip() or f"exit code {answer.code}"
        if answer.code == 0 or _is_unclear(message):
            raise SlurmUnreachable(f"sbatch gave no clear answer: {message}")
        raise SubmissionRefused(f"sbatch refused the job: {message}")

    def jobs(self, job_ids: Iterable[str], since: str | None = None) -> dict[str, JobInfo]:
        """What is known about the jobs: one squeue, then sacct, then scontrol for the rest.

        Jobs that nobody knows (any more) are left out. Without accounting, sacct simply adds
        nothing.

        Args:
            since: ISO date and time from which sacct looks; its own default is midnight.

        Raises:
            SlurmUnreachable: not even squeue answers.
        """
        wanted = set(job_ids)
        if not wanted:
            return {}
        found = {i: job for i, (job, _) in self._queue().items() if i in wanted}
        if missing := wanted - set(found):
            found |= {i: job for i, (job, _) in self._accounting(missing, since).items()}
        # squeue shows ended jobs for a few minutes, but not how they ended; scontrol does.
        for job_id in sorted(wanted):
            job = found.get(job_id)
            if job is None or (job.source == "squeue" and _needs_exit_code(job)):
                shown = self._shown(job_id)
                if shown is not None:
                    found[job_id] = replace(shown, job_id=job_id)
        return found

    def find_by_comment(self, comment: str, since: str | None = None) -> list[str]:
        """Ids of this user's jobs that carry exactly this comment.

        Raises:
            SlurmUnreachable: squeue does not answer, so that nothing can be said.
        """
        known = self._queue() | self._accounting(None, since)
        return sorted(i for i, (_, text) in known.items() if text == comment)

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended already are no error.

        Raises:
            SiteError: scancel says no.
        """
        answer = self._call(["scancel", *job_ids])
        if answer.code != 0 and "already completed" not in answer.err:
            raise SiteError(f"scancel {' '.join(job_ids)}: {answer.err.strip()}")

    def _queue(self) -> dict[str, tuple[JobInfo, str]]:
        argv = ["squeue", "--me", "--noheader", "--states=all", f"--format={SQUEUE_FORMAT}"]
        answer = self._call(argv)
        if answer.code != 0:
            raise SlurmUnreachable(f"squeue does not answer: {answer.err.strip()}")
        return parse_squeue(answer.out)

    def _accounting(
        self, job_ids: Iterable[str] | None, since: str | None
    ) -> dict[str, tuple[JobInfo, str]]:
        argv = ["sacct", "-X", "--noheader", "--parsable2", f"--format={SACCT_FIELDS}"]
        argv += [f"--starttime={since}"] if since else []
        argv += [f"--jobs={','.join(sorted(job_ids))}"] if job_ids is not None else []
        try:
            answer = self._call(argv)
        except SiteError:
            return {}  # no accounting on this cluster, or none that answers: others are asked
        return parse_sacct(answer.out) if answer.code == 0 else {}

    def _shown(self, job_id: str) -> JobInfo | None:
        answer = self._call(["scontrol", "--oneliner", "show", "job", job_id])
        return parse_scontrol_job(answer.out) if answer.code == 0 else None

    def _call(self, argv: list[str]) -> Answer:
        try:
            done = subprocess.run(
                argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise SiteError(
                f"there is no '{argv[0]}' on PATH; is this a Slurm login node?"
            ) from None
        except subprocess.TimeoutExpired:
            raise SlurmUnreachable(f"{argv[0]} gave no answer in {TIMEOUT_S:.0f} s") from None
        return Answer(done.returncode, done.stdout, done.stderr)


def _is_unclear(message: str) -> bool:
    """Whether sbatch failed in the talk with the controller rather than on the request."""
    signs = ("timed out", "Unable to contact", "Socket", "Zero Bytes", "communication", "Transport")
    return any(sign.lower() in message.lower() for sign in signs)


def _needs_exit_code(job: JobInfo) -> bool:
    return job.state in ("FAILED", "COMPLETED", "OUT_OF_MEMORY", "TIMEOUT")
