"""The run folder: made once, written by few, read by all. Standard library only."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import (
    EVENTS_DIR,
    JOBS_DIR,
    RESULTS_DIR,
    RUN_JSON,
    RUN_VERSION,
    SPEC_YAML,
    STATUS_JSON,
)
from rtdetr_slurm.errors import NewerVersion, RequestError, SiteError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import Plan, StageTask
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.runs.events import Event, read_events, record_event

_RUN_ID = re.compile(r"[a-z_]+-\d{8}-\d{6}-[0-9a-f]{4}")


def new_run_id(action: str, now: datetime | None = None) -> str:
    """`<action>-<UTC yyyymmdd-hhmmss>-<4 hex>`."""
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{action}-{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Run:
    """One run folder on disk.

    Attributes:
        path: absolute path of the folder; its name is the run id.
        manifest: the content of run.json.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def plan(self) -> Plan:
        return Plan.from_json(self.manifest["plan"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """The frozen spec, resolved but for the inputs of its stages."""
        spec: Mapping[str, Any] = self.manifest["spec"]["resolved"]
        return spec

    def job_dir(self, name: str) -> Path:
        """The folder of a stage (`train`: script and logs) or of an array's task (`train.4`)."""
        return self.path / JOBS_DIR / name

    def task_spec(self, task: StageTask) -> Path:
        """The spec that a task runs with, its inputs filled in."""
        return self.job_dir(task.name) / SPEC_YAML

    def node_dir(self, task: StageTask, rank: int) -> Path:
        """Where the node wrapper of one node keeps its private spec and its error record."""
        return self.job_dir(task.name) / f"node-{rank}"

    def log_path(self, stage: str, job_id: str) -> Path:
        """The log of one job of a stage, or of one task of its array (submitit's naming)."""
        return self.job_dir(stage) / f"{job_id}_0_log.out"

    def events(self) -> list[Event]:
        return read_events(self.path / EVENTS_DIR)

    def record(self, event: str, **data: Any) -> None:
        """Append one event to this process's own file."""
        record_event(self.path / EVENTS_DIR, event, **data)


def status_path(task: StageTask) -> Path:
    return task.results_dir / STATUS_JSON


def create_run(path: Path, manifest: Mapping[str, Any], spec: Mapping[str, Any]) -> Run:
    """Make the run folder with run.json and spec.yaml, which are never written again.

    Args:
        manifest: all of run.json but for what is known here; `spec` in it says where it came from.
        spec: resolved, as plain data.

    Raises:
        SiteError: the folder cannot be made there.
    """
    text = spec_text(spec)
    origin = {**manifest["spec"], "sha256": hashlib.sha256(text.encode()).hexdigest()}
    complete = {
        "schema_version": RUN_VERSION,
        "run_id": path.name,
        **manifest,
        "spec": {**origin, "resolved": spec},
    }
    try:
        path.mkdir(parents=True)
        for name in (EVENTS_DIR, JOBS_DIR, RESULTS_DIR):
            (path / name).mkdir()
        write_atomic(path / SPEC_YAML, text)
        write_atomic(path / RUN_JSON, json.dumps(complete, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise SiteError(
            f"cannot make the run folder {path}: {error.strerror}; "
            "run_root in the site profile must be a folder you may write to"
        ) from error
    return open_run(path)


def open_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RequestError: `path` holds no run.json that this version can read.
    """
    try:
        manifest = json.loads((path / RUN_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is not a run folder: {RUN_JSON}: {error}") from error
    check_version(path / RUN_JSON, manifest)
    return Run(path.absolute(), manifest)


def check_version(path: Path, content: Any) -> None:
    """Refuse a run.json or summary.json that this version does not read.

    Raises:
        RequestError: saying which version it has, and what to do.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version == RUN_VERSION:
        return
    if isinstance(version, int) and version > RUN_VERSION:
        raise NewerVersion(path, version, RUN_VERSION)
    raise RequestError(
        f"{path}: version {version} cannot be read any more; this rtdetr-slurm reads {RUN_VERSION}"
    )


def run_ids(root: Path) -> list[str]:
    """Ids of all runs below `root`, newest first; a folder without run.json is not (yet) a run."""
    try:
        names = [entry.name for entry in os.scandir(root) if _RUN_ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    # The id ends in date, time and chance, so sorting by those is sorting by age.
    names.sort(key=lambda name: name.split("-", 1)[1], reverse=True)
    return [name for name in names if (root / name / RUN_JSON).is_file()]


def find_run(reference: str, run_root: Callable[[], Path]) -> Path:
    """The folder of the run that `reference` means: an id, a prefix of exactly one id, or a path.

    Args:
        run_root: where runs are; not asked when `reference` is a path.

    Raises:
        RequestError: no run or several; names the nearest ids.
    """
    if os.sep in reference or (Path(reference) / RUN_JSON).is_file():
        path = Path(reference).expanduser().absolute()
        if not (path / RUN_JSON).is_file():
            raise RequestError(f"{path} is not a run folder: there is no {RUN_JSON} in it")
        return path
    root = run_root()
    ids = run_ids(root)
    matches = [i for i in ids if i == reference] or [i for i in ids if i.startswith(reference)]
    if len(matches) == 1:
        return root / matches[0]
    if matches:
        raise RequestError(f"'{reference}' fits {len(matches)} runs: {', '.join(matches[:5])}")
    near = difflib.get_close_matches(reference, ids, n=3, cutoff=0.4) or ids[:3]
    known = f"; nearest: {', '.join(near)}" if near else " (there are no runs yet)"
    raise RequestError(f"there is no run '{reference}' in {root}{known}")
