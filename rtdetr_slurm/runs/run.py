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
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import (
    EVENT_VERSION,
    EVENTS_JSONL,
    JOBS_DIR,
    RESULTS_DIR,
    RUN_JSON,
    RUN_VERSION,
    SPEC_YAML,
    STATUS_JSON,
)
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.files import append_json_line, read_json_lines, write_atomic
from rtdetr_slurm.plan.model import Plan, Stage

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

    @property
    def plan(self) -> Plan:
        return Plan.from_json(self.manifest["plan"])

    @property
    def jobs_dir(self) -> Path:
        return self.path / JOBS_DIR

    @property
    def spec(self) -> Path:
        return self.path / SPEC_YAML

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.plan.stages if stage.name == name)

    def node_dir(self, stage: str, rank: int) -> Path:
        """Where the node wrapper of one node keeps its private spec and its error record."""
        return self.jobs_dir / stage / f"node-{rank}"

    def events(self) -> list[dict[str, Any]]:
        return read_json_lines(self.path / EVENTS_JSONL)

    def record(self, event: str, **data: Any) -> None:
        """Append one event."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = {"schema_version": EVENT_VERSION, "timestamp": now, "event": event, **data}
        append_json_line(self.path / EVENTS_JSONL, entry)

    def log_path(self, job_id: str) -> Path:
        """The log of one job (submitit's naming for task 0)."""
        return self.jobs_dir / f"{job_id}_0_log.out"


def status_path(stage: Stage) -> Path:
    return Path(stage.results_dir) / STATUS_JSON


def create_run(path: Path, manifest: Mapping[str, Any], spec_text: str) -> Run:
    """Make the run folder with run.json and spec.yaml, which are never written again.

    Raises:
        SiteError: the folder cannot be made there.
    """
    digest = hashlib.sha256(spec_text.encode()).hexdigest()
    complete = {
        "schema_version": RUN_VERSION,
        "run_id": path.name,
        **manifest,
        "spec": {**manifest["spec"], "sha256": digest},
    }
    try:
        path.mkdir(parents=True)
        (path / JOBS_DIR).mkdir()
        (path / RESULTS_DIR).mkdir()
        write_atomic(path / SPEC_YAML, spec_text)
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
    if manifest.get("schema_version") != RUN_VERSION:
        raise RequestError(
            f"{path / RUN_JSON}: schema_version {manifest.get('schema_version')} is not "
            f"{RUN_VERSION}, the one this version of rtdetr-slurm reads"
        )
    return Run(path.absolute(), manifest)


def run_ids(root: Path) -> list[str]:
    """Ids of all runs below `root`, newest first; a folder without run.json is not (yet) a run."""
    try:
        names = [entry.name for entry in os.scandir(root) if _RUN_ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    # The id ends in date, time and chance, so sorting by those is sorting by age.
    names.sort(key=lambda name: name.split("-", 1)[1], reverse=True)
    return [name for name in names if (root / name / RUN_JSON).is_file()]


def find_run(reference: str, run_root: Callable[[], Path]) -> Run:
    """The run that `reference` means: an id, a prefix of exactly one id, or a path.

    Args:
        run_root: where runs are; not asked when `reference` is a path.

    Raises:
        RequestError: no run or several; names the nearest ids.
    """
    if os.sep in reference or (Path(reference) / RUN_JSON).is_file():
        return open_run(Path(reference).expanduser())
    root = run_root()
    ids = run_ids(root)
    matches = [i for i in ids if i == reference] or [i for i in ids if i.startswith(reference)]
    if len(matches) == 1:
        return open_run(root / matches[0])
    if matches:
        raise RequestError(f"'{reference}' fits {len(matches)} runs: {', '.join(matches[:5])}")
    near = difflib.get_close_matches(reference, ids, n=3, cutoff=0.4) or ids[:3]
    known = f"; nearest: {', '.join(near)}" if near else " (there are no runs yet)"
    raise RequestError(f"there is no run '{reference}' in {root}{known}")
