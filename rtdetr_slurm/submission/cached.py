"""Which entries of the cache runs that have not ended depend on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rtdetr_slurm.contract import RESULTS_DIR, RUN_JSON, SPEC_YAML, STAGED_JSON
from rtdetr_slurm.records import read_file
from rtdetr_slurm.runs.run import run_ids
from rtdetr_slurm.submission.survey import survey_runs


def entries_in_use(run_root: Path, cache: Path) -> dict[str, str]:
    """Key of each entry that some file of such a run names → the run's id.

    Raises:
        RequestError, SiteError: the runs cannot be listed, or one of them cannot be read.
    """
    found = survey_runs([run_root / run_id for run_id in run_ids(run_root)], complete=False)
    unended = [folder for folder, report in found.reports.items() if not report.ended]
    pattern = re.compile(re.escape(f"{cache}/".encode()) + rb"([0-9a-f]{40})\b")
    in_use = {}
    for folder in (*unended, *found.unreadable):
        for path in _files(folder):
            for key in pattern.findall(read_file(path)):
                in_use[key.decode()] = folder.name
    return in_use


def _files(folder: Path) -> Iterator[Path]:
    paths = (folder / RUN_JSON, folder / SPEC_YAML, *folder.glob(f"{RESULTS_DIR}/*/{STAGED_JSON}"))
    return (path for path in paths if path.is_file())
