"""progress.json, as rank 0 keeps it and whoever watches reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.engine.process import telling
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.runs.claim import Start, new_claim, take
from rtdetr_slurm.runs.live import Live, read_live

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_every_start_leaves_its_times(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY_S", 60.0)
    monkeypatch.setenv("RTDETR_LAUNCHED", "1000")
    monkeypatch.setenv("RTDETR_ENTERED", "1003.5")
    session = workspace.session()
    folder = session.results_dir
    take(folder, new_claim("r:train", restart=0))
    for restart in (0, 1):
        here = replace(session, start=Start("r:train", restart), numbers={})
        with telling.telling(here):
            here.numbers.update(loss=float("nan"), best=0.5 - restart / 10, epochs=3)
            with here.phases.during(Phase.STEPPING, epoch=1, step=2, steps=4):
                pass
            here.phases.enter(Phase.STEPPING, epoch=1, step=2 + restart, steps=4)
    found = read_live(folder, "r:train")
    assert found is not None
    assert [one.restart for one in found.starts] == [0, 1]
    assert all(one.seconds["container"] == 3.5 for one in found.starts)
    assert (found.epoch, found.step, found.steps, found.epochs) == (1, 3, 4, 3)
    assert (found.phase, found.loss, found.device) == ("stepping", None, "cpu")
    assert found.age_s < 60
    assert read_live(folder, "another:train") is None


def test_who_is_superseded_tells_no_more(workspace: Workspace) -> None:
    session = replace(workspace.session(), start=Start("r:train", 0))
    take(session.results_dir, new_claim("r:train", restart=1))
    with telling.telling(session):
        pass
    assert read_live(session.results_dir, "r:train") is None


def test_a_disk_that_is_full_for_a_moment_ends_no_telling(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = telling.write_live, Event()

    def write(folder: Path, live: Live) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("no space left on device")
        real(folder, live)

    monkeypatch.setattr(telling, "write_live", write)
    monkeypatch.setattr(telling, "EVERY_S", 0.01)
    session = replace(workspace.session(), start=Start("r:train", 0))
    with telling.telling(session):
        assert failed.wait(20)
    assert read_live(session.results_dir, "r:train") is not None


@pytest.mark.parametrize(
    "content",
    ["", "\0\0", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1, "claim": 7}'],
)
def test_what_cannot_be_read_is_as_good_as_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert read_live(tmp_path, "r:train") is None
