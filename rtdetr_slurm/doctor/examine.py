"""The whole examination of a site: facts are gathered here, and judged by the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rtdetr_slurm.devices import nvidia_devices
from rtdetr_slurm.doctor.finding import Finding
from rtdetr_slurm.doctor.login_checks import check_login
from rtdetr_slurm.doctor.probe import Probe, probes, run_here, wait
from rtdetr_slurm.doctor.probe_checks import check_probe
from rtdetr_slurm.doctor.probe_plan import ProbePlan, plan_probes
from rtdetr_slurm.doctor.slurm_checks import check_partition, check_slurm, partition_names
from rtdetr_slurm.runs.processes import user_name
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.site.profile import ROLES
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.configuration import Cluster


def ask_slurm() -> Cluster:
    """How the cluster is set up.

    Raises:
        SiteError: Slurm does not say.
    """
    return SlurmClient().describe(user_name())


def examine_login(
    found: FoundSite, environ: Mapping[str, str], on_note: Callable[[str], None]
) -> Iterator[Finding]:
    """What can be known without a job, and without Slurm."""
    yield from check_login(found, environ, on_note)


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


def examine_by_job(
    found: FoundSite,
    cluster: Cluster,
    partition: str | None,
    patience_s: float,
    environ: Mapping[str, str],
    on_note: Callable[[str], None],
) -> Iterator[tuple[Probe, list[Finding]]]:
    """What probe jobs find out; one for each partition and image of the site's roles.

    Raises:
        SlurmUnreachable: Slurm gives no answer.
    """
    plans = plan_probes(found.site, cluster, partition)
    with probes(found.site, plans, found.run_root) as sent:
        wait(sent, patience_s, on_note)
        for probe in sent:
            yield probe, list(check_probe(probe, environ))


def examine_here(
    found: FoundSite, environ: Mapping[str, str]
) -> Iterator[tuple[Probe, list[Finding]]]:
    """The same for site `local`: on this machine, without a queue."""
    gpus = len(nvidia_devices()) if found.site.accelerator != "cpu" else 0
    plan = ProbePlan("here", "train", None, 1, min(gpus, 2) or 2, enters=True)
    with probes(found.site, [plan], found.run_root) as sent:
        for probe in sent:
            if not probe.over:
                run_here(probe)
            yield probe, list(check_probe(probe, environ))
