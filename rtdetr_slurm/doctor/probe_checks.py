"""What the records of a probe job mean. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rtdetr_slurm import __version__
from rtdetr_slurm.doctor.finding import Finding, failure, not_checked, ok, warning
from rtdetr_slurm.doctor.login_checks import judge_s3
from rtdetr_slurm.doctor.node_checks import check_nodes
from rtdetr_slurm.doctor.probe import Probe
from rtdetr_slurm.launch.reach import s3_endpoint
from rtdetr_slurm.runs.probe import Trial
from rtdetr_slurm.site.profile import TENSORRT_ROLE, TRAIN_ROLE

_SLOW_S, _SKEWED_S = 10.0, 30.0


def check_probe(probe: Probe, environ: Mapping[str, str]) -> Iterator[Finding]:
    """One line for each thing that the job has found out, or why it has found out nothing."""
    where = probe.plan.where
    if probe.blocked:
        yield not_checked("probe.job", f"no job was sent: {probe.blocked}", where)
        return
    yield _queue(probe)
    if probe.hello is None:
        return
    if probe.queued is not None:
        yield _run_root(probe)
        yield _clock(probe)
        yield _options(probe)
    if probe.nodes:
        yield from check_nodes(probe.nodes, probe)
        endpoint = s3_endpoint(probe.site.env, environ)
        if endpoint is not None:
            problems = [node["s3_problem"] for node in probe.nodes if node["s3_problem"]]
            yield judge_s3(endpoint, problems[0] if problems else None, where)
    if probe.end is not None:
        yield from _container(probe, probe.end["trials"], probe.end["problem"])


# --- the job ---------------------------------------------------------------------------------
def _queue(probe: Probe) -> Finding:
    check, where, job = "probe.job", probe.plan.where, probe.job
    unit = "processes" if probe.site.accelerator == "cpu" else "GPUs"
    what = f"{probe.plan.nodes} × {probe.plan.gpus} {unit}" if probe.plan.gpus else "1 node"
    if probe.refused:
        said, _, advice = probe.refused.partition("; ")
        remedy = (
            advice or "correct the profile: partition, account, qos, time, gpu, image, run_root"
        )
        return failure(check, said, remedy, where)
    job_name = f"job {probe.queued.job_id}" if probe.queued is not None else "the examination"
    if probe.gave_up:
        reason = f" ({job.reason})" if job is not None and job.reason else ""
        expected = job.expected_start if job is not None else None
        start = f", expected to start {expected}" if expected else ""
        return warning(
            check,
            f"{job_name} ({what}) still waits{reason}{start}; it was cancelled",
            "try again with a longer --wait, or with --partition for one that has room",
            where,
        )
    if probe.trace:
        remedy = "set run_root in the profile to a folder that all nodes see and may write to"
        if "Python" in probe.trace.partition(",")[0]:
            remedy = "install rtdetr-slurm with a Python on a file system that every node sees"
        return failure(check, f"{job_name} left nothing: {probe.trace}", remedy, where)
    if probe.end is None:
        return failure(
            check,
            f"{job_name} ended early: {probe.evidence or 'nothing is known'}",
            "correct what the line names",
            where,
        )
    if probe.queued is None:
        return ok(check, "the examination of this machine is complete", where)
    hosts = ", ".join(node["host"] for node in probe.nodes)
    after = f" after {probe.started_after_s:.0f} s" if probe.started_after_s is not None else ""
    return ok(check, f"{job_name} ({what}) ran{after} on {hosts}", where)


def _run_root(probe: Probe) -> Finding:
    check, where = "probe.run_root", probe.plan.where
    there, back = _ways(probe)
    if there is None:
        return failure(
            check,
            "the job did not see a file that was written here while it ran",
            "set run_root to a file system that nodes and login node share; administrators: an "
            "attribute cache (actimeo) of more than a minute is too long",
            where,
        )
    both = there + back  # in the sum the difference of the clocks is gone
    said = f"a file from here is seen on the node, and one from there here, in {both:.1f} s"
    if both > _SLOW_S:
        return warning(
            check, said, "nothing breaks; `status` lags. Administrators: a shorter actimeo", where
        )
    return ok(check, said, where)


def _clock(probe: Probe) -> Finding:
    """How much the node's clock can be ahead lies between what the two ways seem to take."""
    check, where = "probe.clock", probe.plan.where
    there, back = _ways(probe)
    if there is None:
        return not_checked(check, "nothing came back to compare with", where)
    least, most = -back, there
    if least > _SKEWED_S or most < -_SKEWED_S:
        by = min(abs(least), abs(most))
        return warning(
            check,
            f"the clocks of node and login node differ by at least {by:.0f} s",
            "administrators: NTP on all nodes; munge refuses more than five minutes",
            where,
        )
    by = max(abs(least), abs(most))
    return ok(check, f"the clocks of node and login node differ by at most {by:.1f} s", where)


def _ways(probe: Probe) -> tuple[float | None, float]:
    there = probe.end["seen_after_s"] if probe.end is not None else None
    return there, probe.seen_after_s or 0.0


def _options(probe: Probe) -> Finding:
    check, where, hello = "probe.options", probe.plan.where, probe.hello
    assert hello is not None
    if hello["comment"] != probe.token:
        return failure(
            check,
            f"the job's comment is {hello['comment'] or 'empty'}, not the one it was sent with",
            "administrators: the job_submit plugin must leave comments alone; jobs are known by "
            "them",
            where,
        )
    if probe.site.requeue and hello["requeue"] is False:
        return failure(
            check,
            "the job may not go back to the queue (Requeue=0), though it asks for that",
            "set requeue: false in the profile; administrators: the job_submit plugin must leave "
            "it alone",
            where,
        )
    kept = "may go back to the queue" if hello["requeue"] else "stays down when it is interrupted"
    return ok(check, f"the job {kept}, and keeps its comment", where)


# --- the container, and the ranks in it ------------------------------------------------------
def _container(probe: Probe, trials: Sequence[Trial], problem: str) -> Iterator[Finding]:
    where = probe.plan.where
    if problem:
        yield failure("probe.step", problem, "correct what the line names", where)
        return
    if not trials:
        why = "not entered: the image has no part for probes (`rtdetr probe`)"
        if any(node["problems"] for node in probe.nodes):
            why = "not entered, for what the lines above say"
        yield not_checked("container", why, where)
        return
    yield _entered(probe, trials)
    for nodes, check in ((1, "allreduce.one_node"), (2, "allreduce.two_nodes")):
        tried = [trial for trial in trials if trial["nodes"] == nodes and trial["met"]]
        if tried and nodes * max(1, probe.plan.gpus) > 1:
            yield from _all_reduce(check, tried, where, trials)
        elif probe.plan.role == TRAIN_ROLE and _entered_at_last(trials):
            why = "one GPU per node is all there is" if nodes == 1 else "one node is all there is"
            yield not_checked(check, why, where)


def _entered(probe: Probe, trials: Sequence[Trial]) -> Finding:
    check, where = "container", probe.plan.where
    done = next((trial["reduced"] for trial in trials if trial["reduced"]), None)
    missed = [trial["evidence"] for trial in trials if not trial["met"]]
    if not _entered_at_last(trials):
        return failure(check, missed[-1], "correct what the line names", where)
    if missed:
        return warning(
            check,
            f"entered in {len(trials) - len(missed)} of {len(trials)} attempts; else: {missed[0]}",
            "a run is queued again when this happens; where it is frequent, correct what the line "
            "names",
            where,
        )
    if done is None:
        return ok(check, "rtdetr starts in it", where)
    devices = ", ".join(dict.fromkeys(done["devices"]))
    said = f"rtdetr {done['version']}, torch {done['torch']}, {done['backend']}, on {devices}"
    if done["version"] != __version__:
        return warning(
            check, f"{said}; here is {__version__}", "build the image anew from this version", where
        )
    if probe.plan.role == TENSORRT_ROLE and "tensorrt" in done:
        if not done["tensorrt"]:
            return warning(
                check,
                f"{said}; neither tensorrt nor tensorrt_rtx is in it",
                "before deploying build an image with image build --role tensorrt, and set it as "
                "roles.tensorrt.image",
                where,
            )
        said = f"{said}; {', '.join(done['tensorrt'])}"
    return ok(check, said, where)


def _entered_at_last(trials: Sequence[Trial]) -> bool:
    """Whether the last attempt got into the image; one that did not is made twice."""
    return trials[-1]["met"]


def _all_reduce(
    check: str, tried: Sequence[Trial], where: str, trials: Sequence[Trial]
) -> Iterator[Finding]:
    last = tried[-1]
    done = last["reduced"]
    names = " ".join(f"{name}={value}" for name, value in last["settings"].items())
    if done is None:
        also = [t["settings"] for t in tried[1:]]
        more = f" (nor with {', or '.join(map(_shown, also))})" if also else ""
        yield failure(
            check,
            f"{last['evidence']}{more}",
            "set network_interface in the profile to the nodes' own network; ask the "
            "administrator which ports between nodes are open, and for NCCL's settings",
            where,
        )
        return
    said = f"{done['ranks']} ranks met in {done['join_s']:.0f} s, bus bandwidth "
    said += f"{done['bus_gb_s'] or 0:.2f} GB/s, {done['latency_us'] or 0:.0f} µs for a small one"
    if names:
        why = next(trial["evidence"] for trial in trials if trial["evidence"])
        yield warning(
            check,
            f"{said}, but only with {names} (else: {why})",
            f"set {names} under env in your profile; `doctor --keep` does it",
            where,
        )
    else:
        yield ok(check, said, where)


def _shown(settings: object) -> str:
    pairs = dict(settings) if isinstance(settings, dict) else {}
    return " ".join(f"{name}={value}" for name, value in pairs.items()) or "the profile's own"


def kept_settings(probes: Sequence[Probe]) -> dict[str, str]:
    """What the all-reduces that worked needed besides the profile."""
    trials = [t for p in probes if p.end is not None for t in p.end["trials"]]
    working = [trial for trial in trials if trial["reduced"] is not None]
    return {name: value for trial in working for name, value in trial["settings"].items()}
