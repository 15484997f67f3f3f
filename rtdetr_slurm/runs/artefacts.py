"""What an action leaves: the proof of its success, and the files a user wants at the end.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import Action, EngineName, get_action
from rtdetr_slurm.contract import (
    ANNOTATED_IMAGE,
    ENGINE_RECORD_SUFFIX,
    EXPORT_JSON,
    ONNX_SUFFIX,
    QUANTIZED_PATTERN,
    REPORT_HTML,
)
from rtdetr_slurm.encryption import damage, is_encrypted
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import BadRecord, exists, open_file, read_json
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.checkpoints import (
    Verify,
    best_checkpoint,
    best_first,
    last_checkpoint,
    list_checkpoints,
    verify_checkpoint,
)
from rtdetr_slurm.runs.events import Event, RecordedCheckpoint

DRY_RUN_FIELD = "train.is_dry_run"
_PARSED_BYTES = 16 * 1024 * 1024
"""Of a larger JSON file, the predictions of very many images, only the two ends are looked at."""


def artefact_problem(
    action: Action,
    results_dir: Path,
    spec: Mapping[str, Any],
    verify: Verify = verify_checkpoint,
    engine: EngineName = "rtdetr",
    kpis: Collection[str] = (),
) -> str | None:
    """None when what proves the action's success is there and whole, else what is wrong with it.

    Args:
        spec: the resolved spec that the action ran with.
        verify: of a checkpoint.
        kpis: names of the numbers that this start has written to status.json.
    """
    artefact = action.proof(engine)
    if artefact.kind == "checkpoint":
        if value_at(spec, DRY_RUN_FIELD):
            return None  # it leaves none, and its last line of status.json is all its proof
        checkpoints = list_checkpoints(results_dir)
        if not checkpoints:
            return f"there is no {artefact.name} in {results_dir}"
        return verify(checkpoints[-1].path)
    if artefact.kind == "file":
        return file_problem(results_dir / artefact.name)
    if artefact.kind == "kpi":
        return None if artefact.name in kpis else f"status.json has no {artefact.name}"
    if artefact.kind == "files":
        found = (path for glob in artefact.name.split() for path in sorted(results_dir.glob(glob)))
        first = next(found, None)
        return file_problem(first) if first else f"there is no {artefact.name} in {results_dir}"
    path = made_file(action, results_dir, spec)
    return file_problem(path) if path else f"the spec has no {artefact.name}"


def made_file(action: Action, results_dir: Path, spec: Mapping[str, Any]) -> Path | None:
    """The file that an action makes where its spec says; None for one that makes no such file."""
    artefact = action.artefact
    if action.leaves == "quantized":
        return results_dir / quantized_name(str(value_at(spec, "quantize.backend")))
    named = value_at(spec, artefact.name) if artefact.kind == "field" else None
    if named:
        return Path(named)
    return results_dir / artefact.default if artefact.default else None


def engine_record(engine: Path) -> Path:
    """Where the record of an engine is: beside it."""
    return Path(f"{engine}{ENGINE_RECORD_SUFFIX}")


def made_files(action: Action, results_dir: Path, spec: Mapping[str, Any]) -> dict[str, str]:
    """The file that an action has made and its records: path to digest."""
    made = made_file(action, results_dir, spec)
    files = [] if made is None else [made, engine_record(made)]
    files += [results_dir / EXPORT_JSON]
    return {str(path): sha256_of(path) for path in files if path.is_file()}


def quantized_name(backend: str) -> str:
    """The file that a backend of `quantize` leaves, as TAO calls it."""
    name = QUANTIZED_PATTERN.format(backend=backend)
    return name if name.endswith(ONNX_SUFFIX) else f"{name}.pth"


def file_problem(path: Path) -> str | None:
    """None when `path` is a file with something in it, else what is wrong."""
    try:
        if path.suffix == ".json" and path.stat().st_size > _PARSED_BYTES:
            return None if _is_closed(path) else f"{path} was cut off"
        if path.suffix == ".json":
            read_json(path)
        elif not path.stat().st_size:
            return f"{path} is empty"
        elif is_encrypted(path):
            return damage(path)
    except BadRecord as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error}"
    return None


def _is_closed(path: Path) -> bool:
    with open_file(path) as stream:
        first = stream.read(1)
        stream.seek(-16, os.SEEK_END)
        last = stream.read().rstrip()[-1:]
    return first + last in (b"[]", b"{}")


@dataclass(frozen=True)
class Results:
    """The files a user wants at the end; each None where there is none."""

    best: Path | None = None
    best_metric: float | None = None
    last: Path | None = None
    picture: Path | None = None
    report: Path | None = None


def verified_checkpoints(
    results_dir: Path, verify: Verify = verify_checkpoint
) -> dict[str, RecordedCheckpoint]:
    """The best and the last whole checkpoint with their digests, as an event records them.

    Reads the files from end to end, so it is done once, when a stage ends.
    """
    found = {
        "best": best_checkpoint(results_dir, verify),
        "last": last_checkpoint(results_dir, verify),
    }
    digest = cache(sha256_of)
    return {
        name: {
            "file": file.path.name,
            "epoch": file.epoch,
            "metric": file.metric,
            "sha256": digest(file.path),
        }
        for name, file in found.items()
        if file is not None
    }


def results_of(task: StageTask, end: Event | None, made_in: Path | None = None) -> Results:
    """What a task has left so far; of an ended one, what its stage run has verified.

    Only looks at names: a checkpoint of a stage that still runs is listed unread.

    Args:
        made_in: the folder of the checkpoints of `end`; None: the task's own.
    """
    folder = task.results_dir
    picture, report = (
        path if exists(path) else None for path in (folder / ANNOTATED_IMAGE, folder / REPORT_HTML)
    )
    if not get_action(task.stage.action).trains:
        return Results(picture=picture, report=report)
    if end is not None:
        recorded, made_in = end.get("checkpoints", {}), made_in or folder
        best, last = recorded.get("best"), recorded.get("last")
        return Results(
            best=made_in / best["file"] if best else None,
            best_metric=best["metric"] if best else None,
            last=made_in / last["file"] if last else None,
            picture=picture,
            report=report,
        )
    listed = list_checkpoints(folder)
    top = next(iter(best_first(listed)), None)
    return Results(
        best=top.path if top else None,
        best_metric=top.metric if top else None,
        last=listed[-1].path if listed else None,
        picture=picture,
        report=report,
    )
