"""Questions that the login node asks Slurm, answered from whoever knows. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.commands import Slurm, SlurmUnreachable
from rtdetr_slurm.slurm.configuration import (
    Cluster,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
)
from rtdetr_slurm.slurm.environment import submission_environment
from rtdetr_slurm.slurm.identity import Sought, gone, in_accounting, in_queue
from rtdetr_slurm.slurm.states import ENDED


class SlurmClient(Slurm):
    """Slurm as seen by the current user, whatever an enclosing job left in the environment.

    Args:
        cluster: that sbatch named; None where there is but one.
        uid: of whose jobs are meant; None: this user's.
        secrets: names of variables that Slurm must not see.
    """

    def __init__(
        self,
        cluster: str | None = None,
        uid: int | None = None,
        environ: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        env = submission_environment(os.environ if environ is None else environ, secrets)
        super().__init__(env, cluster, uid)

    def find(self, sought: Sequence[Sought]) -> list[JobInfo]:
        """What is known about each job: one squeue for all, then sacct for those that are over.

        Without accounting, sacct simply adds nothing. A job that nobody knows is GONE.

        Raises:
            SlurmUnreachable: squeue does not answer, or not so that it can be read, and nothing can
                be said.
        """
        if not sought:
            return []
        listing = self.squeue()
        by_comment: dict[str, list[JobInfo]] = {}
        for queued in listing.jobs.values():
            by_comment.setdefault(queued.comment, []).append(queued)
        candidates = ((one, in_queue(one, by_comment.get(one.token, []))) for one in sought)
        found = {one: job for one, job in candidates if job is not None}
        # squeue shows ended jobs for a few minutes, but not how they ended; scontrol does.
        shown = self.show_jobs([job.job_id for job in found.values() if job.state in ENDED])
        for one, job in found.items():
            told = shown.get(job.job_id)
            found[one] = told if told is not None and told.comment == one.token else job
        accounted = self._accounted([one for one in sought if one not in found])
        if listing.unreadable is not None and len(found) + len(accounted) < len(sought):
            line = listing.unreadable[:80]
            raise SlurmUnreachable(f"squeue's answer cannot be read in full; a line is {line!r}")
        return [found.get(one) or accounted.get(one) or gone(one) for one in sought]

    def describe(self, user: str) -> Cluster:
        """How the cluster is set up, and what accounting lets `user` do.

        Raises:
            SiteError: scontrol does not say.
        """
        show = ["scontrol", *self._there, "--all", "--oneliner", "show"]
        return Cluster(
            config=parse_config(self.output([*show, "config"])),
            partitions=parse_partitions(self.output([*show, "partition"])),
            nodes=parse_nodes(self.output([*show, "node"])),
            **self._rights(user),
        )

    def _rights(self, user: str) -> dict[str, Any]:
        ask = ["sacctmgr", "--noheader", "--parsable2", "show"]
        rights = ["assoc", f"user={user}", "format=account,partition,qos"]
        try:
            found = parse_associations(self.output([*ask, *rights]))
            default = self.output([*ask, "user", user, "format=defaultaccount"]).strip()
        except SiteError:
            return {}
        return {"associations": found, "default_account": default or None}

    def _accounted(self, sought: Sequence[Sought]) -> dict[Sought, JobInfo]:
        """What sacct knows, asked once by number and once for jobs of which no number is known."""
        numbered = [one for one in sought if one.job_id is not None]
        nameless = [one for one in sought if one.job_id is None]
        found: dict[Sought, JobInfo] = {}
        for group in (numbered, nameless):
            if group:
                ids = None if group is nameless else [one.job_id or "" for one in group]
                jobs = self.sacct(ids, min(one.since for one in group)).values()
                found |= {one: job for one in group if (job := in_accounting(one, jobs))}
        return found
