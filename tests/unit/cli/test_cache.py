"""`rtdetr-slurm cache …`: what is in the cache, whether it is whole, and removing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import IMAGES, tar_of
from launch_support import local_stage, make_run

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.staging.claims import Claim
from rtdetr_slurm.staging.entries import Entry, all_keys
from rtdetr_slurm.staging.fetch import fetch


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site.yaml"
    site.write_text(f"scheduler: local\nrun_root: {tmp_path}/runs\ncache_root: {tmp_path}/cache\n")
    monkeypatch.setenv("RTDETR_SLURM_SITE", str(site))
    (tmp_path / "runs").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def entry(cache: Path) -> Entry:
    path = cache.parent / "images.tar"
    path.write_bytes(tar_of(IMAGES))
    return fetch(StagedObject(str(path), "archive"), cache, Store(), tell=lambda _: None)


def test_what_is_there(entry: Entry, cache: Path, capsys: Any) -> None:
    claim = Claim(cache / ("0" * 40), 1)
    assert main(["cache", "list"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()[1:]] == sorted(
        [[entry.key[:12], "complete"], ["000000000000", "under"]]
    )
    assert entry.uri in out
    assert "2 entries, 25.2 kB" in err
    claim.leave()
    assert main(["cache", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["entries"]
    assert {one["state"] for one in found} == {"complete", "unfinished"}


def test_an_empty_cache(cache: Path, capsys: Any) -> None:
    for verb in ("list", "prune", "verify"):
        assert main(["cache", verb]) == 0


def test_what_is_damaged_is_told_and_removed(entry: Entry, cache: Path, capsys: Any) -> None:
    assert main(["cache", "verify"]) == 0
    image = entry.path / "images/images/003.jpg"
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    (entry.path / "images/images/004.jpg").unlink()
    assert main(["cache", "verify", entry.key[:8]]) == 1
    out = capsys.readouterr().out
    assert "images/images/003.jpg: another content" in out
    assert "images/images/004.jpg: No such file" in out
    assert main(["cache", "verify", "--remove"]) == 1
    assert [*cache.iterdir()] == []


def test_what_nobody_wants_is_removed(entry: Entry, cache: Path, capsys: Any) -> None:
    assert main(["cache", "prune"]) == 0
    Claim(cache / ("0" * 40), 1).leave()
    assert main(["cache", "prune"]) == 0
    assert main(["cache", "prune", "--dry-run", "--unused", "0"]) == 0
    assert len([*all_keys(cache)]) == 2, "its job may come back"
    assert main(["cache", "prune", "--unused", "0"]) == 0
    assert "25.2 kB freed" in capsys.readouterr().err
    assert [*cache.iterdir()] == []


def test_what_is_at_work_is_kept(cache: Path) -> None:
    claim = Claim(cache / ("0" * 40), 1)
    assert main(["cache", "prune", "--unused", "0"]) == 0
    assert main(["cache", "prune", "0000"]) == 1
    assert len([*all_keys(cache)]) == 1
    claim.leave()


def test_what_a_run_needs_is_kept(entry: Entry, cache: Path, capsys: Any) -> None:
    run = make_run(cache.parent / "runs", local_stage(cache.parent / "results"))
    staged = run.path / "results/stage/staged.json"
    staged.parent.mkdir(parents=True)
    staged.write_text(json.dumps({"path": f"{entry.path}/images"}))
    assert main(["cache", "prune", "--unused", "0"]) == 0
    assert main(["cache", "prune", entry.key]) == 1
    assert f"is kept: run {run.path.name} needs it" in capsys.readouterr().err
    assert [*all_keys(cache)] == [entry.key]


def test_a_key_that_means_nothing(entry: Entry, capsys: Any) -> None:
    assert main(["cache", "prune", "zzz"]) == 2
    assert "'zzz': there is no such entry" in capsys.readouterr().err


def test_a_damaged_record_hides_nothing(entry: Entry, cache: Path, capsys: Any) -> None:
    (cache / entry.key / "entry.json").write_text('{"uri": 3}')
    assert main(["cache", "list"]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert main(["cache", "verify", "--remove"]) == 1
    assert [*all_keys(cache)] == []
