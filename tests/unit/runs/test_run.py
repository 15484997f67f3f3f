"""The run folder: made once, found again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from launch_support import STAGE, make_run

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.runs.run import Run, find_run, new_run_id, open_run, run_ids


def test_run_ids_tell_action_and_time() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert re.fullmatch(r"train-20260102-030405-[0-9a-f]{4}", new_run_id("train", moment))
    assert new_run_id("train", moment) != new_run_id("train", moment)


def test_a_run_reads_back_as_it_was_made(tmp_path: Path) -> None:
    run = make_run(tmp_path, STAGE)
    again = open_run(run.path)
    assert again == run
    assert again.plan.stages == (replace(STAGE, results_dir=f"{run.path}/results/train"),)
    assert again.spec == {"train": {}}
    assert (run.path / "spec.yaml").read_text() == "train: {}\n"
    assert again.manifest.schema_version == 2
    assert again.manifest.run_id == run.id
    assert re.fullmatch(r"[0-9a-f]{64}", again.manifest.spec.sha256)
    assert {p.name for p in run.path.iterdir()} == {
        *("run.json", "spec.yaml", "events", "jobs", "results"),
    }


def test_a_run_folder_is_made_only_once(tmp_path: Path) -> None:
    make_run(tmp_path, STAGE)
    with pytest.raises(SiteError, match="cannot make the run folder"):
        make_run(tmp_path, STAGE)


def test_an_unusable_run_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SiteError, match="run_root in the site profile"):
        make_run(tmp_path / "file", STAGE)


def many_runs(root: Path) -> list[Run]:
    ids = (
        "train-20260101-000000-aaaa",
        "evaluate-20260102-000000-bbbb",
        "train-20260103-000000-cccc",
    )
    return [make_run(root, STAGE, run_id=run_id) for run_id in ids]


def test_runs_are_listed_newest_first_and_nothing_else_is(tmp_path: Path) -> None:
    runs = many_runs(tmp_path)
    (tmp_path / "train-20260104-000000-dddd").mkdir()
    (tmp_path / "notes").mkdir()
    assert run_ids(tmp_path) == [run.id for run in reversed(runs)]
    assert run_ids(tmp_path / "none") == []


def test_a_run_is_found_by_id_beginning_or_path(tmp_path: Path) -> None:
    first, second, _ = many_runs(tmp_path)
    assert find_run(first.id, lambda: tmp_path) == first.path
    assert find_run("eval", lambda: tmp_path) == second.path
    assert find_run(str(first.path), lambda: pytest.fail("not needed")) == first.path


def test_what_is_said_when_no_run_or_several_fit(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there are no runs yet"):
        find_run("train", lambda: tmp_path)
    many_runs(tmp_path)
    with pytest.raises(RequestError, match="fits 2 runs: train-20260103-000000-cccc, train-2026"):
        find_run("train", lambda: tmp_path)
    with pytest.raises(RequestError, match="nearest: evaluate-20260102-000000-bbbb"):
        find_run("evaluate-20260102-000000-bbba", lambda: tmp_path)
    with pytest.raises(RequestError, match="is not a run folder"):
        find_run(str(tmp_path), lambda: tmp_path)
    for number in range(6):
        (tmp_path / f"export-20260102-000000-{number:04x}").mkdir()
        (tmp_path / f"export-20260102-000000-{number:04x}" / "run.json").touch()
    with pytest.raises(RequestError, match=r"fits 6 runs: export-.*-0001, …$"):
        find_run("export", lambda: tmp_path)


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, STAGE)
    manifest = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(RequestError, match=r"version 99 is newer than version 2.*use the newer"):
        open_run(run.path)
    (run.path / "run.json").write_text(json.dumps(manifest | {"schema_version": 1}))
    with pytest.raises(RequestError, match="version 1 cannot be read any more"):
        open_run(run.path)
    for text in ("[]", "null", "{"):
        (run.path / "run.json").write_text(text)
        with pytest.raises(RequestError, match=r"run\.json"):
            open_run(run.path)
