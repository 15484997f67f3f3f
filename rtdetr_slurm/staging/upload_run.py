"""The stage that puts a copy of a run elsewhere once all others have ended, however they have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.contract import EVENTS_DIR, MOVED_JSON, RESULTS_DIR, RUN_JSON, SPEC_YAML
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict
from rtdetr_slurm.plan.staging import Upload
from rtdetr_slurm.runs.moved import Moved
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.staging.progress import Ticker
from rtdetr_slurm.staging.transfer import TransferRun

_THREADS = 4
_OUTSIDE = "outside"
"""In the copy: results that were not in the run folder."""


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    """Its path in the copy."""
    size: int


class UploadRun(TransferRun):
    """One start of the stage."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest, upload: Upload) -> None:
        super().__init__(run, allocation, stop, upload.python_path)
        self.upload = upload

    def transfer(self) -> Verdict:
        from rtdetr_slurm.storage.upload import put_file  # needs what is installed

        place = f"{self.upload.to.rstrip('/')}/{self.run.id}"
        moved = self.attempt.results.path / MOVED_JSON
        moved.write_text(Moved(folders_of(self.run)).text())
        # What says that it is a run, and where it was, comes last.
        files = [*_files(self.run), _File(moved, MOVED_JSON, moved.stat().st_size)]
        files.sort(key=lambda one: one.name in (MOVED_JSON, RUN_JSON))
        ticker = Ticker(place, sum(one.size for one in files), self.tell, self.stopped)

        def put(one: _File) -> None:
            ticker.check()
            put_file(one.path, f"{place}/{one.name}", self.upload.store, on_progress=ticker.came)
            ticker.add(files=1)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(put, files[:-2]))
        for one in files[-2:]:
            put(one)
        ticker.at_end()
        return Verdict(Kind.SUCCESS, f"{len(files)} files are at {place}")


def folders_of(run: Run) -> dict[str, str]:
    """Where the folders of a run are in its copy: itself, and results that are not in it."""
    folders = {str(run.path): "."}
    for stage in run.plan.stages:
        own = [stage.results_dir, *([] if stage.search is None else [stage.search.folder])]
        for folder in own:
            if not Path(folder).is_relative_to(run.path):
                folders.setdefault(folder, f"{_OUTSIDE}/{len(folders)}")
    return folders


def _files(run: Run) -> Iterator[_File]:
    """The record without its secrets, and all results; links are left out, for what they lead to
    is there as well."""
    for name in (RUN_JSON, SPEC_YAML):
        yield _File(run.path / name, name, (run.path / name).stat().st_size)
    for place in (EVENTS_DIR, RESULTS_DIR):
        yield from _below(run.path / place, place)
    for folder, place in folders_of(run).items():
        if place != ".":
            yield from _below(Path(folder), place)


def _below(folder: Path, place: str) -> Iterator[_File]:
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(at, name)
            if path.is_file() and not path.is_symlink() and not name.startswith("."):
                inside = path.relative_to(folder)
                yield _File(path, f"{place}/{inside}", path.stat().st_size)
