"""Slurm's commands, each called in one place: argument lists only, a time limit on each, no shell.

Standard library only: login node and compute node share it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.slurm.parse import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    JobInfo,
    OwnFacts,
    parse_own_facts,
    parse_sacct,
    parse_sbatch,
    parse_scontrol_jobs,
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

    @property
    def message(self) -> str:
        return self.err.strip() or self.out.strip() or f"exit code {self.code}"


class Slurm:
    """Calls sbatch, squeue, sacct, scontrol and scancel.

    Args:
        environ: of the commands; Slurm takes options from it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)

    def sbatch(self, script: Path) -> str:
        """Queue a batch script; returns the job id.

        Raises:
            SubmissionRefused: sbatch rejected the job and says why.
            SlurmUnreachable: there is no knowing whether the job was queued.
        """
        answer = self.call(["sbatch", "--parsable", str(script)])
        job_id = parse_sbatch(answer.out)
        if job_id is not None:
            return job_id
        if answer.code == 0 or _is_unclear(answer.message):
            raise SlurmUnreachable(f"sbatch gave no clear answer: {answer.message}")
        raise SubmissionRefused(f"sbatch refused the job: {answer.message}")

    def squeue(self) -> dict[str, JobInfo]:
        """This user's jobs, also those that ended minutes ago.

        Raises:
            SlurmUnreachable: it does not answer.
        """
        argv = ["squeue", "--me", "--noheader", "--states=all", f"--format={SQUEUE_FORMAT}"]
        answer = self.call(argv)
        if answer.code != 0:
            raise SlurmUnreachable(f"squeue does not answer: {answer.err.strip()}")
        return parse_squeue(answer.out)

    def sacct(
        self, job_ids: Iterable[str] | None = None, since: str | None = None
    ) -> dict[str, JobInfo]:
        """What accounting knows; nothing where there is none, or none that answers.

        Args:
            job_ids: None: all of this user's.
            since: ISO date and time from which it looks; its own default is midnight.
        """
        argv = ["sacct", "-X", "--noheader", "--parsable2", f"--format={SACCT_FIELDS}"]
        argv += [f"--starttime={since}"] if since else []
        argv += [f"--jobs={','.join(sorted(job_ids))}"] if job_ids is not None else []
        try:
            answer = self.call(argv)
        except SiteError:
            return {}
        return parse_sacct(answer.out) if answer.code == 0 else {}

    def show_job(self, job_id: str) -> JobInfo | None:
        """One job or array task as slurmctld has it; None when it has forgotten it."""
        answer = self.call(["scontrol", "--oneliner", "show", "job", job_id])
        return parse_scontrol_jobs(answer.out).get(job_id) if answer.code == 0 else None

    def own_facts(self, job_id: str) -> OwnFacts:
        """Why and when the calling job is to end.

        Raises:
            SiteError: scontrol does not say.
        """
        return parse_own_facts(self.output(["scontrol", "--oneliner", "show", "job", job_id]))

    def hostnames(self, nodelist: str) -> list[str]:
        """`node[1-3]` as names, in order."""
        return self.output(["scontrol", "show", "hostnames", nodelist]).split()

    def requeue(self, job_id: str) -> None:
        """Put a job back into the queue; raises SiteError when that is refused."""
        self.output(["scontrol", "requeue", job_id])

    def scancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended already are no error.

        Raises:
            SiteError: scancel says no.
        """
        answer = self.call(["scancel", *job_ids])
        if answer.code != 0 and "already completed" not in answer.err:
            raise SiteError(f"scancel {' '.join(job_ids)}: {answer.err.strip()}")

    def signal_steps(self, job_id: str, signum: int) -> None:
        """Signal every process of a job's steps, and not its batch script.

        Raises:
            SiteError: scancel says no.
        """
        name = Signals(signum).name.removeprefix("SIG")
        self.output(["scancel", f"--signal={name}", job_id])

    def output(self, argv: Sequence[str]) -> str:
        """What a command prints; raises SiteError when it fails."""
        answer = self.call(argv)
        if answer.code != 0:
            raise SiteError(f"{' '.join(argv)}: {answer.message}")
        return answer.out

    def call(self, argv: Sequence[str]) -> Answer:
        """Run one command.

        Raises:
            SiteError: there is no such command here.
            SlurmUnreachable: it took too long.
        """
        try:
            done = subprocess.run(
                argv,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise SiteError(
                f"there is no '{argv[0]}' on PATH; is this a node of a Slurm cluster?"
            ) from None
        except subprocess.TimeoutExpired:
            raise SlurmUnreachable(f"{argv[0]} gave no answer in {TIMEOUT_S:.0f} s") from None
        return Answer(done.returncode, done.stdout, done.stderr)


def _is_unclear(message: str) -> bool:
    """Whether sbatch failed in the talk with the controller rather than on the request."""
    signs = ("timed out", "Unable to contact", "Socket", "Zero Bytes", "communication", "Transport")
    return any(sign.lower() in message.lower() for sign in signs)
