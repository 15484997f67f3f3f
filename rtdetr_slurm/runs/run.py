"""The run folder: made once, written by few, read by all. Standard library only."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import (
    CONTROLLER_ZIP,
    EVENTS_DIR,
    JOBS_DIR,
    RESULTS_DIR,
    RUN_JSON,
    RUN_VERSION,
    SPEC_YAML,
    STATUS_JSON,
)
from rtdetr_slurm.errors import NewerVersion, RequestError, SiteError
from rtdetr_slurm.files import PRIVATE_DIR, PRIVATE_FILE, write_atomic
from rtdetr_slurm.places import expanded
from rtdetr_slurm.plan.model import Plan, Stage, StageTask
from rtdetr_slurm.records import BadRecord, Prose, checked, exists, names_in, read_json
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.runs.events import Event, read_events, record_event
from rtdetr_slurm.runs.images import FileRecord, ImageRecord
from rtdetr_slurm.runs.moved import where_it_is

_RUN_ID = re.compile(r"[a-z_]+-\d{8}-\d{6}-[0-9a-f]{4}")


def new_run_id(action: str, now: datetime | None = None) -> str:
    """`<action>-<UTC yyyymmdd-hhmmss>-<4 hex>`."""
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{action}-{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class FrozenSpec:
    """The spec of a run, and where it came from.

    Attributes:
        sha256: of spec.yaml.
        resolved: all of it but the inputs of its stages.
    """

    source: str
    overrides: tuple[str, ...]
    sha256: str
    resolved: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """run.json: what was decided when a run was submitted.

    Attributes:
        name: of the job in the queue, where the user gave one.
        created: ISO 8601 in UTC.
        parent: the run that this one continues, as the user wrote it.
        images: by path.
        models: weights of the site profile that its training starts from, by their name there.
        files: what its spec names to be read, of annotations, weights and the like, by path.
        classes: id to name, of what it trains on, or of the run that it continues.
        site, site_sources: the merged profile and its files, for people.
        launch_version: of the run's own launch code.
    """

    name: str | None
    action: str
    created: str
    user: str
    parent: str | None
    package_version: str
    spec: FrozenSpec
    images: Mapping[str, ImageRecord]
    site: Mapping[str, Any]
    site_sources: tuple[str, ...]
    plan: Plan
    run_id: str
    launch_version: int = 1
    models: Mapping[str, FileRecord] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    classes: Mapping[str, Prose] = field(default_factory=dict)
    schema_version: int = RUN_VERSION

    def __post_init__(self) -> None:
        for number in self.classes:
            if not number.isdecimal():
                raise RequestError(f"classes: {number!r} is no class id")
        for stage in self.plan.stages:
            if stage.container is not None and stage.container.image.path not in self.images:
                raise RequestError(f"images: there is no record of {stage.container.image.path}")


def freeze_spec(source: str, overrides: Sequence[str], resolved: Mapping[str, Any]) -> FrozenSpec:
    """The record of a resolved spec, plain data, that was written in `source`.

    Raises:
        RequestError: a path in it has a name in another encoding than UTF-8, as YAML is.
    """
    try:
        text = spec_text(resolved).encode()
    except UnicodeEncodeError as error:
        line = error.object[: error.end].rpartition("\n")[2]
        raise RequestError(f"the spec names a path that is not UTF-8: {line.strip()}…") from None
    return FrozenSpec(source, tuple(overrides), hashlib.sha256(text).hexdigest(), resolved)


@dataclass(frozen=True)
class Run:
    """One run folder on disk.

    Attributes:
        path: absolute path of the folder; its name is the run id.
        owner: user id of whose it is.
    """

    path: Path
    manifest: Manifest
    owner: int

    @property
    def is_own(self) -> bool:
        """Whether it is this user's."""
        return self.owner == os.geteuid()

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def plan(self) -> Plan:
        return self.manifest.plan

    @property
    def spec(self) -> Mapping[str, Any]:
        """The frozen spec, resolved but for the inputs of its stages."""
        return self.manifest.spec.resolved

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


def stage_command(run_dir: Path, stage: Stage, first: int = 0) -> list[str]:
    """What runs a stage, or a task of its array, inside its job: the run's own launch code.

    Args:
        first: number of the job's first start.
    """
    installed = stage.search is not None or not stage.runs_action
    controller = python_archive(run_dir / JOBS_DIR / CONTROLLER_ZIP, installed=installed)
    return [*controller, "stage", str(run_dir), stage.name, *([str(first)] if first else [])]


def python_archive(path: Path, *, installed: bool = False) -> list[str]:
    """This Python on an archive of code, isolated from the environment.

    Args:
        installed: whether it sees what is installed for all; else the standard library alone.
    """
    return [sys.executable, "-I", *([] if installed else ["-S"]), "-u", str(path)]


def status_path(task: StageTask) -> Path:
    return task.results_dir / STATUS_JSON


def create_run(path: Path, manifest: Manifest) -> Run:
    """Make the run folder with run.json and spec.yaml, which are never written again.

    Raises:
        SiteError: the folder cannot be made there; nothing of it is left.
    """
    try:
        path.parent.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIR)
    except OSError as error:
        raise _cannot_make(path, error) from error
    try:
        (path / JOBS_DIR).mkdir(mode=PRIVATE_DIR)
        for name in (EVENTS_DIR, RESULTS_DIR):
            (path / name).mkdir()
        write_atomic(path / SPEC_YAML, spec_text(manifest.spec.resolved), mode=PRIVATE_FILE)
        text = json.dumps(asdict(manifest), indent=2, allow_nan=False)
        write_atomic(path / RUN_JSON, text + "\n", mode=PRIVATE_FILE)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise _cannot_make(path, error) from error
    return open_run(path)


def _cannot_make(path: Path, error: OSError) -> SiteError:
    return SiteError(
        f"cannot make the run folder {path}: {error.strerror}; run_root in the site profile must "
        "be a folder that you may write to, with space left"
    )


def open_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RequestError: `path` holds no run.json that this version can read.
    """
    try:
        content = read_json(path / RUN_JSON)
        owner = path.stat().st_uid
    except FileNotFoundError:
        raise RequestError(f"{path} is not a run folder: there is no {RUN_JSON} in it") from None
    check_version(path / RUN_JSON, content)
    content = where_it_is(content, path)
    return Run(path.absolute(), checked(Manifest, content, path / RUN_JSON), owner)


def check_version(path: Path, content: Any) -> None:
    """Refuse a run.json or summary.json that this version does not read.

    Raises:
        RequestError: saying which version it has, and what to do.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version == RUN_VERSION:
        return
    if version is None:
        raise BadRecord(path, "this is no object with a schema_version")
    if isinstance(version, int) and version > RUN_VERSION:
        raise NewerVersion(path, version, RUN_VERSION)
    raise BadRecord(
        path, f"version {version!r} cannot be read any more; this rtdetr-slurm reads {RUN_VERSION}"
    )


def run_ids(root: Path) -> list[str]:
    """Ids of all runs below `root`, newest first; a folder without run.json is not (yet) a run.

    One that this user may not look into counts: whoever opens it hears why it cannot be read.

    Raises:
        BadRecord: `root` cannot be read.
    """
    names = [name for name in names_in(root) if _RUN_ID.fullmatch(name)]
    # The id ends in date, time and chance, so sorting by those is sorting by age.
    names.sort(key=lambda name: name.split("-", 1)[1], reverse=True)
    return [name for name in names if _is_run(root / name)]


def _is_run(folder: Path) -> bool:
    try:
        return exists(folder / RUN_JSON)
    except BadRecord:
        return True


def find_run(reference: str, run_root: Callable[[], Path]) -> Path:
    """The folder of the run that `reference` means: an id, a prefix of exactly one id, or a path.

    Args:
        run_root: where runs are; not asked when `reference` is a path.

    Raises:
        RequestError: no run or several; names the nearest ids.
    """
    if os.sep in reference or _is_run(Path(reference)):
        path = expanded(reference).absolute()
        if not _is_run(path):
            raise RequestError(f"{path} is not a run folder: there is no {RUN_JSON} in it")
        return path
    root = run_root()
    ids = run_ids(root)
    matches = [i for i in ids if i == reference] or [i for i in ids if i.startswith(reference)]
    if len(matches) == 1:
        return root / matches[0]
    if matches:
        more = ", …" if len(matches) > 5 else ""
        found = ", ".join(matches[:5])
        raise RequestError(f"'{reference}' fits {len(matches)} runs: {found}{more}")
    near = difflib.get_close_matches(reference, ids, n=3, cutoff=0.4) or ids[:3]
    known = f"; nearest: {', '.join(near)}" if near else " (there are no runs yet)"
    raise RequestError(f"there is no run '{reference}' in {root}{known}")
