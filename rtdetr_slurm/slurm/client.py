"""Questions that the login node asks Slurm, answered from whoever knows. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from rtdetr_slurm.slurm.commands import Slurm
from rtdetr_slurm.slurm.environment import submission_environment
from rtdetr_slurm.slurm.parse import JobInfo
from rtdetr_slurm.slurm.states import ENDED


class SlurmClient(Slurm):
    """Slurm as seen by the current user, whatever an enclosing job left in the environment."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(submission_environment(os.environ if environ is None else environ))

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
        found = {i: job for i, job in self.squeue().items() if i in wanted}
        if missing := wanted - set(found):
            accounted = self.sacct(missing, since)
            found |= {i: job for i, job in accounted.items() if i in missing}
        # squeue shows ended jobs for a few minutes, but not how they ended; scontrol does.
        for job_id in sorted(wanted):
            job = found.get(job_id)
            if job is None or (job.source == "squeue" and job.state in ENDED):
                shown = self.show_job(job_id)
                if shown is not None:
                    found[job_id] = shown
        return found

    def find_by_comment(self, comment: str, since: str | None = None) -> list[str]:
        """Ids of this user's jobs that carry exactly this comment.

        Raises:
            SlurmUnreachable: squeue does not answer, so that nothing can be said.
        """
        known = self.sacct(None, since) | self.squeue()
        return sorted(i for i, job in known.items() if job.comment == comment)
