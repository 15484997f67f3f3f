"""`resume` of a real training that was cancelled, and of the evaluation behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import slurm
from .harness.cli import Cli, Submitted, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def test_a_cancelled_chain_is_resumed(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    spec = train_spec(dataset, num_epochs=6)
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    path = write_spec(cli.folder / "train.yaml", spec)
    made = cli.json("submit", path, "--then", "evaluate")
    folder = Path(made["run_dir"])
    run = Submitted(cli, folder, made["stages"][0]["job_id"], "train")
    assert f"run {folder.name} does exactly this already" in (
        cli("submit", path, "--then", "evaluate", code=2).stderr
    )
    run.wait(lambda stage: (run.results / "model_epoch_000.pth").exists())
    cli("cancel", folder)
    assert cli("logs", folder, "--follow", code=1)
    assert cli.json("status", folder)["state"] == "cancelled"
    cli("resume", folder)
    assert "nothing is missing" in cli("resume", folder).stderr
    cli("logs", folder, "--follow")
    report = cli.json("status", folder)
    assert report["state"] == "success"
    assert report["stages"][0]["restarts"] == 1
    epochs = [line["epoch"] for line in run.status_lines() if "kpi" in line and "epoch" in line]
    assert epochs == sorted(set(epochs)) == [0, 1, 2, 3, 4, 5], "none is trained twice"
    assert run.events().count("submitting") == 4
