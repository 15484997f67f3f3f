"""Telling the site's command about a run: its first start, a failure, the end of the chain.

Mail is Slurm's own (plan.notify). Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rtdetr_slurm.contract import EVENTS_DIR
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.events import Event, record_once
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.summary import RunReport

TIME_LIMIT_S = 10.0
"""A GPU may be waiting."""
_LONGEST = 1000

Occasion = Literal["started", "failed", "ended"]


def tell_start(run: Run, job_id: str) -> None:
    """Of the run's first start; later ones say nothing.

    Raises:
        SiteError: the command could not be run, or failed.
        OSError: the record cannot be written.
    """
    if run.plan.notify_command and _first(run, "started", since=_told_of_its_end):
        _call(run, "started", {"state": "running", "job_id": job_id})


def tell_end(run: Run, task: StageTask, job_id: str, failure: Failure | None) -> None:
    """Of a task that has just been recorded as ended: of its failure, and of the end of the chain
    where it was the last. As `tell_start`.

    Args:
        failure: None where it succeeded or was cancelled.
    """
    if not run.plan.notify_command:
        return
    if failure is not None:
        facts = {"state": "failed", "stage": task.name, "job_id": job_id}
        more = {"failure_class": failure.failure_class.value, "reason": failure.evidence}
        _call(run, "failed", {**facts, **more})
    report = report_run(run, {}, run.events())
    if report.ended and _first(run, "ended", since=_is_sent_again):
        _call(run, "ended", {"state": report.state.value, "stages": _stages(report)})


def _first(run: Run, occasion: Occasion, since: Callable[[Event], bool]) -> bool:
    """Whether nobody has been told of it since the latest of certain events.

    They must not come between two that would tell the same: the stages of a chain are still being
    sent while the first one starts, so that they are counts for nothing.
    """
    number = sum(since(event) for event in run.events())
    return record_once(run.path / EVENTS_DIR, f"told-{occasion}-{number}", "told", reason=occasion)


def _told_of_its_end(event: Event) -> bool:
    return event["event"] == "told" and event.get("reason") == "ended"


def _is_sent_again(event: Event) -> bool:
    return event["event"] == "resumed"


def _stages(report: RunReport) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "state": one.state.value, "metrics": dict(one.progress.metrics)}
        for one in report.stages
    ]


def _call(run: Run, occasion: Occasion, facts: Mapping[str, Any]) -> None:
    manifest = run.manifest
    common = {
        "event": occasion,
        "run_id": run.id,
        "run_dir": str(run.path),
        "name": manifest.name,
        "action": manifest.action,
        "user": manifest.user,
        "site": manifest.site.get("name"),
    }
    message = {name: _clean(value) for name, value in {**common, **facts}.items()}
    argv = [*run.plan.notify_command, occasion]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        told.write(json.dumps(message).encode() + b"\n")
        told.seek(0)
        try:
            process = subprocess.Popen(
                argv, stdin=told, stdout=said, stderr=said, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise SiteError(f"notify_command {argv[0]} cannot be started: {error}") from error
        try:
            code = process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise SiteError(
                f"notify_command {argv[0]} took longer than {TIME_LIMIT_S:g} s and was killed"
            ) from None
        if code != 0:
            said.seek(0)
            words = said.read(_LONGEST).decode(errors="replace").split("\n")[0]
            raise SiteError(f"notify_command {argv[0]} ended with {code}: {_clean(words)}")


def _clean(value: Any) -> Any:
    """Text that may reach a terminal or a message: one line, of printable characters."""
    if not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() else " " for c in value)[:_LONGEST]
