"""Who hears of a run: Slurm's mail, and the site's own command."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from .harness import slurm
from .harness.cli import Cli, held_queue, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def test_a_chain_that_fails_is_heard_of(
    cli: Cli, cluster: slurm.Slurm, site: Path, dataset: Dataset, tmp_path: Path
) -> None:
    hook, heard = tmp_path / "hook", tmp_path / "heard"
    hook.write_text(f'#!/bin/sh\n{{ cat; echo "$@"; }} >> "{heard}"\n')
    hook.chmod(0o755)
    profile = yaml.safe_load(site.read_text()) | {"notify_command": [str(hook), "--to", "x y"]}
    own = write_spec(tmp_path / "site.yaml", profile)
    cli = replace(cli, env={**cli.env, "RTDETR_SLURM_SITE": str(own)})
    spec = train_spec(dataset)
    gone = tmp_path / "val.json"
    gone.write_bytes(dataset.annotations("val").read_bytes())
    spec["dataset"]["val_data_sources"]["json_file"] = str(gone)
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    path = write_spec(tmp_path / "train.yaml", spec)

    def submit(notify: str) -> dict[str, Any]:
        words = ("--then", "evaluate", f"job.notify={notify}", "--again")
        return cli.json("submit", path, *words)

    with held_queue(cluster):
        by_mail, by_command = submit("ann@example.org"), submit("command")
        gone.unlink()
    for run in (by_mail, by_command):
        assert "failed" in cli("logs", "--follow", run["run_dir"], code=1).stdout

    lines = heard.read_text().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    assert lines[1] == "--to x y started"
    assert [(one["event"], one["state"]) for one in said] == [
        ("started", "running"),
        ("failed", "failed"),
        ("ended", "failed"),
    ]
    assert {one["run_id"] for one in said} == {by_command["run_id"]}
    assert "val.json" in said[1]["reason"]
    train, evaluate = (stage["job_id"] for stage in by_mail["stages"])
    assert mails(cluster, train, 2) == ["Began", "Failed"]
    assert mails(cluster, evaluate, 1) == ["Ended"]
    # Whatever starts of this job had come after the first, Slurm would have been silent about.
    assert "MailType=FAIL" in cluster.command("scontrol", "show", "job", train)


def mails(cluster: slurm.Slurm, job: str, count: int) -> list[str]:
    """What the mails about a job say, in order; waits for so many."""
    deadline = time.monotonic() + 20
    while True:
        log = (cluster.state / "mail.log").read_text().splitlines()
        mine = [line for line in log if f"Job_id={job} " in line]
        if len(mine) >= count or time.monotonic() > deadline:
            assert all(line.endswith(" ann@example.org") for line in mine)
            return [line.split("Name=")[1].split()[1].rstrip(",") for line in mine]
        time.sleep(0.3)
