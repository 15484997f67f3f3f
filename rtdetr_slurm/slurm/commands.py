"""Slurm's commands, each called in one place: argument lists only, a time limit on each, no shell.

Standard library only: login node and compute node share it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.slurm.answers import AsKept, JobInfo, Listing, OwnFacts, Queued
from rtdetr_slurm.slurm.parse import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    parse_as_kept,
    parse_kill_wait,
    parse_max_array_size,
    parse_own_facts,
    parse_partition_nodes,
    parse_sacct,
    parse_sbatch,
    parse_scontrol_jobs,
    parse_squeue,
)

TIMEOUT_S = 60.0
"""Slurm's own clients retry for a while when the controller is slow; this is beyond that."""
SBATCH_TIMEOUT_S = 300.0
"""sbatch itself tries for some minutes while the queue is full or the controller busy."""

_KILLED = 128
"""A shell's exit code above this says by which signal its command ended."""


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
        cluster: that is meant; None: the one that the environment leads to.
        uid: of whose jobs are meant; None: this user's.
    """

    def __init__(
        self, environ: Mapping[str, str], cluster: str | None = None, uid: int | None = None
    ) -> None:
        # Else squeue cuts the list of an array's waiting tasks off after 64 characters.
        self._environ = {**environ, "SLURM_BITSTR_LEN": "0"}
        self._whose = [] if uid is None else [f"--user={uid}"]
        self._there = [] if cluster is None else [f"--clusters={cluster}"]

    def sbatch(self, script: Path) -> Queued:
        """Queue a batch script.

        Raises:
            SubmissionRefused: sbatch rejected the job and says why.
            SlurmUnreachable: there is no knowing whether the job was queued.
        """
        argv = ["sbatch", "--parsable", *self._there, str(script)]
        answer = self.call(argv, SBATCH_TIMEOUT_S)
        queued = parse_sbatch(answer.out)
        if queued is not None:
            return queued
        if _is_unclear(answer):
            raise SlurmUnreachable(f"sbatch gave no clear answer: {answer.message}")
        raise SubmissionRefused(f"sbatch refused the job: {answer.message}")

    def squeue(self) -> Listing:
        """The user's jobs, also those that ended minutes ago.

        Raises:
            SlurmUnreachable: it does not answer.
        """
        argv = ["squeue", "--noheader", "--states=all", f"--format={SQUEUE_FORMAT}"]
        answer = self.call([*argv, *(self._whose or ["--me"]), *self._there])
        if answer.code != 0:
            raise SlurmUnreachable(f"squeue does not answer: {answer.message}")
        return parse_squeue(answer.out)

    def sacct(
        self, job_ids: Iterable[str] | None = None, since: str | None = None
    ) -> dict[str, JobInfo]:
        """What accounting knows; nothing where there is none, or none that answers.

        Args:
            job_ids: None: all of the user's.
            since: ISO date and time from which it looks; its own default is midnight.
        """
        argv = ["sacct", "-X", "--noheader", "--parsable2", f"--format={SACCT_FIELDS}"]
        argv += [f"--starttime={since}"] if since else []
        argv += [f"--jobs={','.join(sorted(job_ids))}"] if job_ids is not None else []
        try:
            answer = self.call([*argv, *self._whose, *self._there])
        except SiteError:
            return {}
        return parse_sacct(answer.out) if answer.code == 0 else {}

    def show_jobs(self, job_ids: Sequence[str]) -> dict[str, JobInfo]:
        """Jobs and array tasks as slurmctld has them; those that it has forgotten are left out.

        scontrol takes one id or none: one job is asked for, of several all that there are.
        """
        if not job_ids:
            return {}
        which = job_ids if len(job_ids) == 1 else []
        try:
            answer = self.call(["scontrol", *self._there, "--oneliner", "show", "job", *which])
        except SiteError:
            return {}
        known = parse_scontrol_jobs(answer.out) if answer.code == 0 else {}
        return {i: job for i, job in known.items() if i in job_ids}

    def own_facts(self, job_id: str) -> OwnFacts:
        """Why and when the calling job is to end.

        Raises:
            SiteError: scontrol does not say.
        """
        text = self.output(["scontrol", "--oneliner", "show", "job", job_id])
        try:
            return parse_own_facts(text)
        except ValueError as error:
            raise SlurmUnreachable(f"scontrol show job {job_id}: {error}") from error

    def as_kept(self, job_id: str) -> AsKept:
        """What slurmctld keeps of a job.

        Raises:
            SiteError: scontrol does not say.
        """
        return parse_as_kept(self.output(["scontrol", "--oneliner", "show", "job", job_id]))

    def hostnames(self, nodelist: str) -> list[str]:
        """`node[1-3]` as names, in order."""
        return self.output(["scontrol", "show", "hostnames", nodelist]).split()

    def requeue(self, job_id: str) -> None:
        """Put a job back into the queue; raises SiteError when that is refused."""
        self.output(["scontrol", "requeue", job_id])

    def set_mail_types(self, job_id: str, types: Sequence[str]) -> None:
        """What Slurm still sends mail about, of a job; raises SiteError when that is refused."""
        self.output(["scontrol", "update", f"JobId={job_id}", f"MailType={','.join(types)}"])

    def exclude(self, job_id: str, nodes: Sequence[str]) -> None:
        """Have a job that waits in the queue leave out `nodes`, and no others; raises SiteError
        when that is refused."""
        self.output(["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}"])

    def refusal_without(self, script: Path, nodes: Sequence[str]) -> str | None:
        """Why a batch script could never start without `nodes`; None where it could.

        Raises:
            SiteError: sbatch cannot be asked.
        """
        argv = ["sbatch", "--test-only", f"--exclude={','.join(nodes)}"]
        argv += ["--dependency="]  # takes the script's own off: what that is on may be forgotten
        answer = self.call([*argv, str(script)])
        return None if answer.code == 0 else answer.message

    def partition_nodes(self, partition: str) -> int:
        """How many nodes a partition has; raises SiteError when Slurm does not say."""
        text = self.output(["scontrol", "--oneliner", "show", "partition", partition])
        count = parse_partition_nodes(text)
        if count is None:
            raise SiteError(f"scontrol does not say how many nodes partition {partition} has")
        return count

    def kill_wait(self) -> int | None:
        """Seconds between TERM and KILL when Slurm ends a job itself; None: it does not say."""
        try:
            return parse_kill_wait(self.output(["scontrol", "show", "config"]))
        except SiteError:
            return None

    def max_array_size(self) -> int | None:
        """Tasks that an array may have; None: it does not say."""
        try:
            return parse_max_array_size(self.output(["scontrol", "show", "config"]))
        except SiteError:
            return None

    def scancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended already are no error.

        Raises:
            SiteError: scancel says no.
        """
        self._scancel(job_ids)

    def scancel_waiting(self, job_id: str) -> None:
        """Cancel what of a job, or of its array, waits in the queue.

        Raises:
            SiteError: scancel says no.
        """
        self._scancel(["--state=PENDING", job_id])

    def _scancel(self, words: Sequence[str]) -> None:
        answer = self.call(["scancel", *self._there, *words])
        over = ("already completed", "completing or completed", "Invalid job id")
        errors = [line for line in answer.err.splitlines() if "error" in line]
        # Each job has its own line, and one that has ended says nothing of the others.
        all_over = errors and all(any(words in line for words in over) for line in errors)
        if answer.code != 0 and not all_over:
            raise SiteError(f"scancel {' '.join(words)}: {answer.message}")

    def signal_steps(self, job_id: str, signum: int) -> None:
        """Signal every process of a job's steps, and not its batch script.

        Raises:
            SiteError: Slurm says no.
        """
        name = signal.Signals(signum).name.removeprefix("SIG")
        targets = [job_id]
        if signum == signal.SIGKILL:  # for a job, this is the end of its batch script, too
            steps = ["squeue", "--steps", "--noheader", "--format=%i", f"--jobs={job_id}"]
            numbers = [step.rpartition(".")[2] for step in self.output(steps).split()]
            targets = [f"{job_id}.{number}" for number in numbers if number.isdecimal()]
        if targets:
            self.output(["scancel", f"--signal={name}", *targets])

    def output(self, argv: Sequence[str]) -> str:
        """What a command prints; raises SiteError when it fails."""
        answer = self.call(argv)
        if answer.code != 0:
            raise SiteError(f"{' '.join(argv)}: {answer.message}")
        return answer.out

    def call(self, argv: Sequence[str], timeout_s: float | None = None) -> Answer:
        """Run one command, in a session of its own: what is given up is given up with all that
        it has started (many sites have sbatch in a wrapper), and Ctrl-C reaches only us.

        Raises:
            SiteError: there is no such command here.
            SlurmUnreachable: it took too long.
        """
        limit = TIMEOUT_S if timeout_s is None else timeout_s
        try:
            process = subprocess.Popen(
                argv,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError:
            raise SiteError(
                f"there is no '{argv[0]}' on PATH; is this a node of a Slurm cluster?"
            ) from None
        except OSError as error:
            raise SiteError(f"{argv[0]} cannot be started: {error.strerror}") from error
        with process:
            try:
                out, err = process.communicate(timeout=limit)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    message = f"{argv[0]} gave no answer in {limit:.0f} s"
                    raise SlurmUnreachable(message) from None
                raise
        return Answer(process.returncode, out, err)


def _is_unclear(answer: Answer) -> bool:
    """Whether sbatch was cut short, or failed in the talk with the controller rather than on the
    request: then the job may be queued, or about to be."""
    if answer.code <= 0 or answer.code > _KILLED:
        return True
    signs = ("timed out", "Unable to contact", "Socket", "Zero Bytes", "communication", "Transport")
    return any(sign.lower() in answer.message.lower() for sign in signs)
