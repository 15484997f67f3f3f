"""How runs are shown: a row of the table for each, and a page about one. Pure: reports → text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from rtdetr_slurm.cli.results import result_lines
from rtdetr_slurm.runs.efficiency import advice
from rtdetr_slurm.runs.live import Live
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.runs.usage import Usage

if TYPE_CHECKING:
    from rich.text import Text

COLOURS = {
    StageState.SUCCESS: "green",
    StageState.RUNNING: "cyan",
    StageState.FAILED: "red",
    StageState.CANCELLED: "yellow",
    StageState.SKIPPED: "yellow",
    StageState.UNKNOWN: "magenta",
    StageState.QUEUED: "blue",
}
_HEADINGS = (
    *("RUN", "NAME", "STATE", "STAGE", "JOB", "EPOCH", "ETA", "METRIC", "GPU-H", "STEPS"),
    "REASON",
)
_LONGEST_REASON = 60


def run_table(runs: Mapping[str, RunReport | None]) -> Text:
    """A row for each run; None is one that cannot be read."""
    from rtdetr_slurm.cli.table import table

    rows, styles = [], []
    for run_id, report in runs.items():
        rows.append([run_id, *(["", "unreadable"] if report is None else _cells(report))])
        styles.append("red" if report is None else COLOURS[report.state])
    return table(_HEADINGS, rows, styles, coloured="STATE")


def _cells(report: RunReport) -> list[str]:
    stage = stage_of_interest(report)
    hours = sum(one.usage.gpu_hours for one in report.stages)
    return [
        report.name or "",
        report.state.value,
        stage.name,
        stage.job_id or "",
        shown_epoch(stage),
        (shown_eta(stage) or "") if stage.state is StageState.RUNNING else "",
        _metric(stage),
        f"{hours:.1f}" if hours else "",
        "" if stage.usage.share is None else f"{stage.usage.share:.0%}",
        _reason(stage),
    ]


def stage_of_interest(report: RunReport) -> StageReport:
    """The first stage that makes the run's state what it is; of a run that went well, the last."""
    if report.state is StageState.SUCCESS:
        return report.stages[-1]
    return next(stage for stage in report.stages if stage.state is report.state)


def shown_epoch(stage: StageReport) -> str:
    """Epochs done and in all, `3/12`; while it runs, the one that it works on."""
    live = stage.live
    if live is not None and live.epoch is not None and live.epochs:
        return f"{live.epoch + 1}/{live.epochs}"
    return stage.progress.shown_epoch


def shown_eta(stage: StageReport) -> str | None:
    """Time to the end of a training, where it is known."""
    live = stage.live
    if live is not None and live.eta_s is not None:
        return shown_time(live.eta_s)
    return stage.progress.eta


def _metric(stage: StageReport) -> str:
    shown = stage.progress.shown_metrics
    return f"{shown[0][0]} {shown[0][1]:.4f}" if shown else ""


def _reason(stage: StageReport) -> str:
    if stage.failure is not None:
        text = f"{stage.failure.failure_class.value}: {stage.failure.evidence}"
    else:
        text = stage.detail
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def run_page(report: RunReport) -> list[str]:
    """Everything about a run, line by line."""
    return [f"{name:<12} {value}".rstrip() for name, value in page_facts(report)]


def page_facts(report: RunReport) -> list[tuple[str, str]]:
    """The page as names and values; where both are empty, so is the line."""
    facts = [("run", report.run_id), ("state", report.state.value)]
    facts += [("name", report.name)] if report.name else []
    facts += [("folder", report.run_dir), ("submitted", f"{report.created} by {report.user}")]
    if len(report.stages) > 1:
        facts.append(("stages", chain(report)))
    for array, stages in _by_array(report):
        if array:
            facts += [("", ""), *((stage.name, _task_words(stage)) for stage in stages)]
        told = [stage for stage in stages if not array or stage.failure is not None]
        for stage in told:
            facts += [("", ""), *_stage_facts(stage)]
    return facts


def chain(report: RunReport) -> str:
    """The stages in their order: `train success → evaluate queued`; of an array how many of its
    tasks are in which state: `train 3 running, 1 success → …`."""
    parts = []
    for array, stages in _by_array(report):
        if array:
            counts = Counter(stage.state.value for stage in stages)
            states = ", ".join(f"{number} {state}" for state, number in counts.items())
            parts.append(f"{array} {states}")
        else:
            parts += [f"{stage.name} {stage.state.value}" for stage in stages]
    return " → ".join(parts)


def _by_array(report: RunReport) -> Iterator[tuple[str, list[StageReport]]]:
    """The stages, with the tasks of an array together under its name; else the name is empty."""
    for array, stages in groupby(report.stages, lambda stage: _array_of(stage.name)):
        yield array, [*stages]


def _array_of(name: str) -> str:
    stage, _, index = name.rpartition(".")
    return stage if index.isdecimal() else ""


def _task_words(stage: StageReport) -> str:
    """A task of an array in one line."""
    parts = [stage.state.value]
    parts += [f"job {stage.job_id}"] if stage.job_id else []
    parts += [stage.job.nodes] if stage.job is not None and stage.job.nodes else []
    parts += [stage.detail] if stage.detail else []
    parts += [f"epoch {epoch}"] if (epoch := shown_epoch(stage)) else []
    parts += [shown_live(stage.live)] if stage.live is not None else []
    return ", ".join(parts)


def _stage_facts(stage: StageReport) -> Iterator[tuple[str, str]]:
    job, progress = stage.job, stage.progress
    yield "stage", stage.name
    yield "state", stage.state.value + (f" ({stage.detail})" if stage.detail else "")
    if stage.job_id:
        slurm = f", {job.state} says {job.source}" if job and not job.gone else ""
        yield "job", stage.job_id + slurm
    if job and job.nodes:
        yield "nodes", job.nodes
    if job and job.expected_start and stage.state is StageState.QUEUED:
        yield "start", f"expected {job.expected_start}"
    if stage.restarts:
        yield "restarts", str(stage.restarts)
    eta = None if stage.state.ended else shown_eta(stage)
    if epoch := shown_epoch(stage):
        yield "epoch", epoch + (f", ETA {eta}" if eta else "")
    if stage.live is not None:
        yield "now", shown_live(stage.live)
    for name, value in progress.shown_metrics:
        yield name, f"{value:.4f}"
    yield from _usage_facts(stage.usage, ended=stage.state.ended)
    if stage.failure is not None:
        yield "failure", stage.failure.failure_class.value
        yield "evidence", stage.failure.evidence
        yield "what to do", stage.failure.advice
    yield from result_lines(stage)
    yield "results", stage.results_dir
    if stage.log:
        yield "log", stage.log


def shown_live(live: Live) -> str:
    """What rank 0 does: `stepping, step 7/50, loss 3.214, 41.0 images/s, best val_mAP 0.2100`."""
    parts = [live.phase]
    parts += [f"step {live.step}/{live.steps}"] if live.steps else []
    parts += [f"loss {live.loss:.3f}"] if live.loss is not None else []
    if live.images_per_second is not None:
        parts.append(f"{live.images_per_second:.1f} images/s")
    parts += [f"best val_mAP {live.best:.4f}"] if live.best is not None else []
    if live.age_s > _OLD_S:
        parts.append(f"as of {shown_time(live.age_s)} ago")
    return ", ".join(parts)


_OLD_S = 60.0
"""Rank 0 tells of itself every few seconds; after this it is worth a word."""


def _usage_facts(usage: Usage, *, ended: bool) -> Iterator[tuple[str, str]]:
    if usage.queued_s >= 1:
        yield "queued", shown_time(usage.queued_s)
    if not usage.starts:
        return
    if usage.gpus:
        gpus = f"{usage.gpus} GPU{'s' * (usage.gpus > 1)} for {shown_time(usage.allocated_s)}"
        yield "GPU hours", f"{usage.gpu_hours:.2f} ({gpus})"
    else:
        yield "allocated", f"{shown_time(usage.allocated_s)}, on CPUs"
    if usage.share is not None:
        loader = f", waiting for data {shown_time(usage.loader_wait_s)}"
        yield "in steps", f"{usage.share:.0%} of that time{loader}"
    if ended and (told := advice(usage)):
        yield "advice", told


def shown_time(seconds: float) -> str:
    """`1:02:03`, with days in front where there are any: `2-01:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{minutes:02d}:{rest:02d}"
    return f"{days}-{hours:02d}:{clock}" if days else f"{hours}:{clock}"
