"""What a model file has come from, link by link, by the digests that the records have: an engine,
its ONNX file, the checkpoint, and of the runs that made them specs, images and data. Standard
library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, TypeVar

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import (
    CLAIM_JSON,
    EVENTS_DIR,
    EXPORT_JSON,
    ONNX_SUFFIX,
    RUN_JSON,
    SPEC_YAML,
)
from rtdetr_slurm.errors import RequestError, explained
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.records import checked, exists, read_json
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.runs.artefacts import engine_record, made_file
from rtdetr_slurm.runs.claim import read_claim
from rtdetr_slurm.runs.events import Event, read_events
from rtdetr_slurm.runs.images import FileRecord
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.trials import folder_of

T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """A file that something has come from, as a record has it.

    Attributes:
        what: it is, in words.
        sha256: None of a record that cannot be read.
        record: where `sha256` stands.
        problem: what is wrong with it now; None: it is as recorded.
    """

    what: str
    path: Path
    sha256: str | None
    record: Path
    problem: str | None = None


@dataclass(frozen=True)
class Lineage:
    """What was found.

    Attributes:
        unknown: what no record says, and why.
    """

    links: tuple[Link, ...]
    unknown: tuple[str, ...]

    @property
    def broken(self) -> list[Link]:
        return [link for link in self.links if link.problem is not None]


class _Engine(TypedDict):
    """What the record beside an engine says of where it has come from."""

    engine_sha256: str
    onnx: str
    onnx_sha256: str
    build_log: str
    build_log_sha256: str
    source_onnx: str
    source_onnx_sha256: str
    checkpoint_sha256: str


class _Exported(TypedDict):
    """What export.json says of it."""

    onnx_file: str
    onnx_sha256: str
    files: Mapping[str, str]
    checkpoint: str
    checkpoint_sha256: str


def lineage_of(path: Path) -> Lineage:
    """Follow the records from an engine, an ONNX file or a checkpoint to what is known of its
    making, and compare every file on the way with its digest.

    Raises:
        RequestError: there is no such file.
    """
    path = path.absolute()
    if not path.is_file():
        raise RequestError(f"{path} is no file")
    walk = _Walk()
    if exists(engine_record(path)):
        walk.engine(path)
    elif path.suffix == ONNX_SUFFIX:
        walk.onnx(path)
    else:
        walk.checkpoint(path)
    return Lineage(tuple(dict.fromkeys(walk.links)), tuple(dict.fromkeys(walk.unknown)))


def sources_of(path: Path) -> Iterator[Path]:
    """The files that what deploys a model compares it with, by the records beside them: the ONNX
    file of an engine, and the checkpoint.

    Raises:
        BadRecord: one of the records cannot be read.
    """
    if exists(engine_record(path)):
        path = Path(_read_engine(path)["source_onnx"])
        yield path
    record = path.parent / EXPORT_JSON
    if exists(record):
        yield Path(_read_export(record)["checkpoint"])


@dataclass
class _Walk:
    links: list[Link] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    runs: dict[Path, Run | None] = field(default_factory=dict)
    digests: dict[Path, str | OSError] = field(default_factory=dict)

    def link(self, what: str, path: Path, sha256: str, record: Path) -> None:
        """Compare a file with a digest."""
        if path not in self.digests:
            self.digests[path] = _digest(path)
        found, problem = self.digests[path], None
        if isinstance(found, OSError):
            problem = f"{path}: {found.strerror}"
        elif found != sha256:
            problem = f"{path} has the SHA-256 {found[:12]}…, and {record} has {sha256[:12]}…"
        self.links.append(Link(what, path, sha256, record, problem))

    def read(self, reader: Callable[[Path], T], path: Path, record: Path) -> T | None:
        """What a record says; one that cannot be read is a broken link."""
        try:
            return reader(path)
        except (RequestError, OSError) as error:
            self.links.append(Link("record", record, None, record, str(explained(error))))
            return None

    # --- from file to file -----------------------------------------------------------------
    def engine(self, path: Path) -> None:
        record = engine_record(path)
        self.run_of(path)
        told = self.read(_read_engine, path, record)
        if told is None:
            return
        self.link("engine", path, told["engine_sha256"], record)
        self.link("network", path.parent / told["onnx"], told["onnx_sha256"], record)
        log = path.parent / told["build_log"]
        self.link("build log", log, told["build_log_sha256"], record)
        source = Path(told["source_onnx"])
        self.link("ONNX file", source, told["source_onnx_sha256"], record)
        self.onnx(source, told["checkpoint_sha256"], record)

    def onnx(self, path: Path, checkpoint_sha256: str = "", said: Path | None = None) -> None:
        """
        Args:
            checkpoint_sha256: of the checkpoint, as the record `said` has it; empty: it has none.
        """
        run = self.run_of(path)
        record = path.parent / EXPORT_JSON
        if not exists(record) and run is not None:
            record = _export_record(run, path) or record
        if not exists(record):
            self.unknown.append(f"what {path} was exported from: there is no {record}")
            return
        told = self.read(_read_export, record, record)
        if told is None:
            return
        if Path(told["onnx_file"]).name != path.name:
            self.unknown.append(f"what {path} was exported from: {record} is about another file")
            return
        for name, sha256 in told["files"].items():
            what = "ONNX file" if name == path.name else "file of the export"
            self.link(what, path.parent / name, sha256, record)
        checkpoint = Path(told["checkpoint"])
        self.link("checkpoint", checkpoint, told["checkpoint_sha256"], record)
        if checkpoint_sha256 and said is not None:
            self.link("checkpoint", checkpoint, checkpoint_sha256, said)
        self.checkpoint(checkpoint)

    def checkpoint(self, path: Path) -> None:
        run = self.run_of(path)
        if run is None:
            return
        recorded = [
            one["sha256"]
            for event in self.read(read_events, run.path / EVENTS_DIR, run.path / EVENTS_DIR) or ()
            for one in (event.get("checkpoints") or {}).values()
            if isinstance(one, dict) and _is_about(run, event, one["file"], path)
        ]
        for sha256 in recorded:
            self.link("checkpoint", path, sha256, run.path / EVENTS_DIR)

    # --- runs ------------------------------------------------------------------------------
    def run_of(self, path: Path) -> Run | None:
        """Look at the run that a file's folder belongs to; None where nobody knows it."""
        claim = self.read(read_claim, path.parent, path.parent / CLAIM_JSON)
        if claim is None or claim.run_dir is None:
            self.unknown.append(f"which run has made {path}: its folder has no claim of one")
            return None
        folder = Path(claim.run_dir)
        if folder not in self.runs:
            self.runs[folder] = run = self.read(open_run, folder, folder / RUN_JSON)
            if run is not None:
                self.run(run)
        return self.runs[folder]

    def run(self, run: Run) -> None:
        """Spec, images, weights and data of a run, and what its stages have taken and left."""
        manifest, record = run.manifest, run.path / RUN_JSON
        self.link("spec", run.path / SPEC_YAML, manifest.spec.sha256, record)
        text = spec_text(manifest.spec.resolved).encode()
        if hashlib.sha256(text).hexdigest() != manifest.spec.sha256:
            problem = f"the spec in it is not the one of which {record} has the digest"
            self.links.append(Link("record", record, manifest.spec.sha256, record, problem))
        for what, files in (
            ("image", manifest.images.values()),
            ("weights", manifest.models.values()),
            ("data", manifest.files.values()),
        ):
            for one in files:
                self.recorded(what, one, record)
        events = run.path / EVENTS_DIR
        for event in self.read(read_events, events, events) or ():
            if sha256 := event.get("manifest_sha256"):
                self.link("record", record, sha256, events)
            for taken in event.get("inputs", ()):
                if sha256 := taken.get("sha256"):
                    self.link("input", Path(taken["value"]), sha256, events)
            for name, sha256 in event.get("made", {}).items():
                self.link("result", Path(name), sha256, events)

    def recorded(self, what: str, one: FileRecord, record: Path) -> None:
        if one.sha256 is None:
            self.unknown.append(f"whether {one.path} is as it was: a folder has no digest")
        else:
            self.link(what, Path(one.path), one.sha256, record)


def _is_about(run: Run, event: Event, name: str, path: Path) -> bool:
    """Whether a checkpoint of an event is the file `path`: every trial of a search has its own."""
    stages = {stage.name for stage in run.plan.stages}
    if name != path.name or (event.get("search") or event.get("stage")) not in stages:
        return False
    return os.path.realpath(folder_of(run.plan, event)) == os.path.realpath(path.parent)


def _read_engine(path: Path) -> _Engine:
    record = engine_record(path)
    return checked(_Engine, read_json(record), record)


def _read_export(record: Path) -> _Exported:
    return checked(_Exported, read_json(record), record)


def _export_record(run: Run, onnx: Path) -> Path | None:
    """export.json of the stage that was told to write an ONNX file elsewhere."""
    for stage in run.plan.stages:
        action, folder = get_action(stage.action), Path(stage.results_dir)
        if action.leaves == "onnx" and made_file(action, folder, run.spec) == onnx:
            return folder / EXPORT_JSON
    return None


def _digest(path: Path) -> str | OSError:
    """A file's digest, or why it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            return OSError(errno.EINVAL, "it is no regular file")
        return sha256_of(path)
    except OSError as error:
        return error
