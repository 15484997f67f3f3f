"""What the set-up of Slurm means for the jobs of a site. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from rtdetr_slurm.doctor.finding import Finding, failure, ok, warning
from rtdetr_slurm.site.profile import ROLES, Role, Site
from rtdetr_slurm.slurm.configuration import Cluster

_OLDEST = (20, 11)
"""Before it, the options of our batch scripts are not all there."""
_TESTED = (22, 5)
_SHORT_KILL_WAIT_S = 10
_SHORT_MEMORY_S = 120


def check_slurm(cluster: Cluster, site: Site) -> Iterator[Finding]:
    """All that is so for the whole cluster, whatever the partition."""
    yield _version(cluster)
    yield _gpus(cluster, site)
    yield _part_limits(cluster)
    yield _arrays(cluster)
    yield _requeue(cluster, site)
    yield _preemption(cluster, site)
    yield _kill_wait(cluster, site)
    yield _accounting(cluster)
    yield from _rights(cluster, site)
    yield from _wckey(cluster, site)
    yield from _plugins(cluster)


def _version(cluster: Cluster) -> Finding:
    name, text = cluster.setting("ClusterName"), cluster.setting("SLURM_VERSION") or "unknown"
    found = f"Slurm {text}, cluster {name or 'without a name'}"
    if cluster.version < _OLDEST:
        return failure("slurm.version", found, "at least 20.11 is needed; ask for an upgrade")
    if cluster.version < _TESTED:
        return warning(
            "slurm.version", found, "this is tested with 22.05 and later; report what goes wrong"
        )
    return ok("slurm.version", found)


def _gpus(cluster: Cluster, site: Site) -> Finding:
    select = cluster.setting("SelectType").removeprefix("select/") or "unknown"
    constrained = cluster.setting("ConstrainDevices").lower()
    found = f"SelectType {select}"
    found += f", ConstrainDevices {constrained}" if constrained else ""
    roles = [site.merged_role(name) for name in ("train", "tensorrt")]
    by_node = any(role.gpu.request == "gpus-per-node" for role in roles)
    if by_node and site.accelerator == "cuda" and select not in ("cons_tres", "unknown"):
        return failure(
            "slurm.gpus", f"{found}, which knows no --gpus-per-node", "set gpu: {request: gres}"
        )
    return ok("slurm.gpus", found)


def _part_limits(cluster: Cluster) -> Finding:
    found = cluster.setting("EnforcePartLimits").upper() or "not said"
    if found in ("NO", "NOT SAID"):
        return warning(
            "slurm.part_limits",
            f"EnforcePartLimits {found}: a job that exceeds its partition's limits is accepted, "
            "and waits for ever",
            "set the partition's limits as `limits` in the profile; administrators: "
            "EnforcePartLimits=ALL",
        )
    return ok("slurm.part_limits", f"EnforcePartLimits {found}")


def _arrays(cluster: Cluster) -> Finding:
    largest, jobs = cluster.setting("MaxArraySize"), cluster.setting("MaxJobCount")
    found = f"MaxArraySize {largest or 'not said'}, MaxJobCount {jobs or 'not said'}"
    if largest == "0":
        return warning(
            "slurm.arrays", f"{found}: no job arrays", "sweeps need arrays; ask for MaxArraySize"
        )
    return ok("slurm.arrays", found)


def _requeue(cluster: Cluster, site: Site) -> Finding:
    asked = cluster.setting("JobRequeue")
    found = f"JobRequeue {asked or 'not said'}"
    if not site.requeue:
        return ok("slurm.requeue", f"{found}; the profile has requeue: false, so none goes back")
    if asked == "0":
        found += ": only jobs that ask for it go back to the queue, as ours do"
    return ok("slurm.requeue", found)


def _preemption(cluster: Cluster, site: Site) -> Finding:
    kind = cluster.setting("PreemptType").removeprefix("preempt/") or "none"
    if kind == "none":
        return ok("slurm.preemption", "no job is preempted (PreemptType preempt/none)")
    partitions = [p for p in map(cluster.partition, partitions_of(site)) if p is not None]
    modes = {p.preempt_mode.upper() for p in partitions} or {
        cluster.setting("PreemptMode").upper() or "OFF"
    }
    found = f"PreemptType {kind}, PreemptMode {', '.join(sorted(modes))}"
    if modes == {"OFF"} and kind == "partition_prio":
        return ok("slurm.preemption", f"{found}: no job of these partitions is preempted")
    if any("CANCEL" in mode for mode in modes):
        return warning(
            "slurm.preemption",
            f"{found}: a preempted job is cancelled and does not go back to the queue",
            "save often (train.checkpoint_interval); administrators: PreemptMode=REQUEUE",
        )
    warned = "send_user_signal" in cluster.words("PreemptParameters") or (
        "preempt_send_user_signal" in cluster.words("SlurmctldParameters")
    )
    if not warned:
        return warning(
            "slurm.preemption",
            f"{found}, without the signal that asks a job to save: it has only KillWait for that",
            "administrators: PreemptParameters=send_user_signal (older Slurms: "
            "SlurmctldParameters=preempt_send_user_signal)",
        )
    short = [p for p in partitions if p.grace_s < site.signal_lead_s]
    if short and kind == "partition_prio":
        names = ", ".join(f"{p.name} {p.grace_s} s" for p in short)
        return warning(
            "slurm.preemption",
            f"{found}, the signal is sent, but GraceTime is shorter than signal_lead_s "
            f"({site.signal_lead_s} s): {names}",
            "lower signal_lead_s to the GraceTime, if a step and a checkpoint fit in; "
            "administrators: raise GraceTime",
        )
    return ok("slurm.preemption", f"{found}, jobs are asked to save first")


def _kill_wait(cluster: Cluster, site: Site) -> Finding:
    seconds, kept = _seconds(cluster, "KillWait"), _seconds(cluster, "MinJobAge")
    found = f"KillWait {_said(seconds)}, MinJobAge {_said(kept)}, jobs are asked to save "
    found += f"{site.signal_lead_s} s before their end"
    if seconds is not None and seconds < _SHORT_KILL_WAIT_S:
        return warning(
            "slurm.times",
            f"{found}: little time to end a cancelled job in good order",
            "administrators: KillWait=30, Slurm's default",
        )
    if kept is not None and kept < _SHORT_MEMORY_S and not _accounted(cluster):
        return warning(
            "slurm.times",
            f"{found}: Slurm forgets ended jobs soon, and there is no accounting",
            "administrators: MinJobAge=300, Slurm's default",
        )
    return ok("slurm.times", found)


def _accounting(cluster: Cluster) -> Finding:
    kind = cluster.setting("AccountingStorageType").removeprefix("accounting_storage/") or "none"
    if not _accounted(cluster):
        return warning(
            "slurm.accounting",
            "no accounting: how a job ended is known for MinJobAge after its end",
            "nothing to do: `status` once a day writes down what Slurm still knows",
        )
    if cluster.associations is None:
        return warning(
            "slurm.accounting",
            f"{kind}, but sacctmgr does not answer",
            "ask the administrator whether slurmdbd runs, and whether users may ask it",
        )
    kept = "kept" if "job_comment" in cluster.words("AccountingStoreFlags") else "not kept"
    return ok("slurm.accounting", f"{kind}; comments of jobs are {kept} in it")


def _rights(cluster: Cluster, site: Site) -> Iterator[Finding]:
    """Account and qos of each role, where accounting says what this user has."""
    associations = cluster.associations
    if associations is None:
        return
    accounts = {one.account for one in associations}
    allowed_qos = set(chain.from_iterable(one.qos for one in associations))
    enforced = cluster.words("AccountingStorageEnforce")
    for check, key, given, allowed, strict in (
        ("slurm.account", "account", _given(site, "account"), accounts, "associations"),
        ("slurm.qos", "qos", _given(site, "qos"), allowed_qos, "qos"),
    ):
        known = ", ".join(sorted(allowed)) or "none"
        wrong = sorted(given - allowed)
        if not wrong:
            default = f", the default is {cluster.default_account}" if key == "account" else ""
            said = ", ".join(sorted(given)) or f"none named{default}"
            yield ok(check, f"{said} (yours: {known})")
        else:
            kind = failure if {strict, "limits", "safe"} & enforced else warning
            yield kind(
                check,
                f"{key} {', '.join(wrong)} is none of yours",
                f"set {key} in the profile to one of: {known}",
            )


def _wckey(cluster: Cluster, site: Site) -> Iterator[Finding]:
    if cluster.setting("TrackWCKey").lower() not in ("yes", "1"):
        return
    if site.wckey is None and "wckeys" in cluster.words("AccountingStorageEnforce"):
        yield failure(
            "slurm.wckey", "every job needs a wckey here", "set wckey in the profile to yours"
        )
    else:
        yield ok("slurm.wckey", f"wckeys are tracked; jobs have {site.wckey or 'your default one'}")


def _plugins(cluster: Cluster) -> Iterator[Finding]:
    if plugins := cluster.setting("JobSubmitPlugins"):
        yield ok(
            "slurm.job_submit",
            f"jobs pass the site's own rules ({plugins}); the probe says whether they stay as sent",
        )


def partitions_of(site: Site) -> list[str | None]:
    """The partitions that jobs of the site's roles go to, each once; None is the default."""
    roles = [site.merged_role(name) for name in ROLES]
    named = [name for role in roles for name in partition_names(role)]
    return list(dict.fromkeys(named))


def partition_names(role: Role) -> list[str | None]:
    """Of several, Slurm takes the one that has room first."""
    return [*role.partition.split(",")] if role.partition else [None]


def _given(site: Site, key: str) -> set[str]:
    roles = [site.merged_role(name) for name in ROLES]
    named = [getattr(role, key) or "" for role in roles]
    return {name for text in named for name in text.split(",") if name}


def _accounted(cluster: Cluster) -> bool:
    return cluster.setting("AccountingStorageType").endswith("/slurmdbd")


def _seconds(cluster: Cluster, name: str) -> int | None:
    number = cluster.setting(name).split(" ")[0]
    return int(number) if number.isdigit() else None


def _said(seconds: int | None) -> str:
    return "not said" if seconds is None else f"{seconds} s"
