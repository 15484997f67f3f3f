"""The whole examination of a site: facts are gathered here, and judged by the checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rtdetr_slurm.devices import nvidia_devices
from rtdetr_slurm.doctor.finding import Finding, Outcome
from rtdetr_slurm.doctor.partition_checks import check_partition
from rtdetr_slurm.doctor.probe import Probe, probes
from rtdetr_slurm.doctor.probe_checks import check_probe, kept_settings
from rtdetr_slurm.doctor.probe_plan import ProbePlan, plan_probes
from rtdetr_slurm.doctor.probe_watch import run_here, wait
from rtdetr_slurm.doctor.slurm_checks import check_slurm, partition_names
from rtdetr_slurm.runs.processes import user_name
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.site.profile import ROLES, Site
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.configuration import Cluster

WHERE_SLURM_ANSWERS = "run this on a login node of the cluster, with its Slurm commands on PATH"


def ask_slurm() -> Cluster:
    """How the cluster is set up.

    Raises:
        SiteError: Slurm does not say.
    """
    return SlurmClient().describe(user_name())


def examine_slurm(found: FoundSite, cluster: Cluster, partition: str | None) -> Iterator[Finding]:
    """What Slurm's set-up means for this site's jobs.

    Args:
        partition: the only one that is asked about; None: those of the site's roles.
    """
    site = found.site
    yield from check_slurm(cluster, site)
    seen: set[str | None] = set()
    for role_name in ROLES:
        role = site.merged_role(role_name)
        for name in partition_names(role) if partition is None else [partition]:
            if name not in seen:
                seen.add(name)
                yield check_partition(cluster, name, role, site)


@dataclass(frozen=True)
class Examined:
    """What probe jobs have found out.

    Attributes:
        settings: environment variables, besides those of the profile, that the all-reduces needed.
    """

    findings: list[Finding]
    settings: dict[str, str]


def examine_by_job(
    found: FoundSite,
    cluster: Cluster,
    partition: str | None,
    patience_s: float,
    known: Sequence[Finding],
    on_note: Callable[[str], None],
) -> Examined:
    """A probe for each partition and image of the site's roles; none is left behind.

    Args:
        known: what the login node has found out; a job that fails for the same is not sent.

    Raises:
        SlurmUnreachable: Slurm gives no answer.
    """
    plans = plan_probes(found.site, cluster, partition)
    with probes(found.site, plans, found.run_root, partial(obstacle, found.site, known)) as sent:
        wait(sent, patience_s, on_note)
        return _examined(sent)


def examine_here(found: FoundSite, known: Sequence[Finding]) -> Examined:
    """The same for site `local`: on this machine, without a queue."""
    gpus = len(nvidia_devices()) if found.site.accelerator != "cpu" else 0
    plan = ProbePlan("here", "train", None, 1, min(gpus, 2) or 2, enters=True)
    with probes(found.site, [plan], found.run_root, partial(obstacle, found.site, known)) as sent:
        for probe in sent:
            if not probe.over:
                run_here(probe)
        return _examined(sent)


def _examined(sent: Sequence[Probe]) -> Examined:
    findings = [finding for probe in sent for finding in check_probe(probe, os.environ)]
    return Examined(findings, kept_settings(sent))


def obstacle(site: Site, known: Sequence[Finding], plan: ProbePlan) -> str:
    """What keeps a probe from being of use, by what is known already; empty: nothing."""
    failures = [finding for finding in known if finding.outcome is Outcome.FAILURE]
    role = site.merged_role(plan.role)
    names = {*(plan.partition or plan.where).split(",")}
    if names <= {one.where for one in failures if one.id == "slurm.partition"}:
        return "the partition takes none"
    if any(one.id == "site.run_root" for one in failures):
        return "there is no run root"
    image = None if role.image is None else role.image.path
    if any(one.id == "site.image" and (image is None or image in one.found) for one in failures):
        return "there is no image"
    return ""
