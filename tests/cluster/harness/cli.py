"""What the end-to-end tests do: run `rtdetr-slurm` as a user, and wait for what becomes of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from rtdetr_slurm.runs.events import read_events
from rtdetr_slurm.submission.survey import survey_run

from . import slurm
from .data import Dataset
from .slurm_conf import TRAIN

JOB_LIMIT_S = 300


@dataclass(frozen=True)
class Cli:
    """`rtdetr-slurm` as a user of the test cluster runs it."""

    env: Mapping[str, str]
    folder: Path

    def __call__(self, *args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command, which must exit with `code`."""
        done = subprocess.run(
            ["rtdetr-slurm", *map(str, args)],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=JOB_LIMIT_S,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def on_a_terminal(self, *args: str | Path) -> str:
        """Run a command on a terminal of its own; returns all that it draws there."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["rtdetr-slurm", *map(str, args)],
            env={**self.env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"},
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            drawn = b""
            with suppress(OSError):  # the end of a terminal is an error
                while piece := os.read(ours, 65536):
                    drawn += piece
        os.close(ours)
        text = drawn.decode()
        assert process.returncode == 0, text
        return text

    def json(self, *args: str | Path, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(*args, "--json", code=code).stdout)
        return document

    def report(self, folder: str | Path) -> dict[str, Any]:
        """What `status FOLDER --json` says, without a process of its own: for who waits."""
        with mock.patch.dict(os.environ, self.env, clear=True):
            document: dict[str, Any] = survey_run(Path(folder))[0].to_json()
        return document


@dataclass(frozen=True)
class Submitted:
    """A run that has been submitted."""

    cli: Cli
    folder: Path
    job: str
    action: str

    def wait(self, until: Callable[[dict[str, Any]], bool], seconds: float = JOB_LIMIT_S) -> None:
        """Wait for a state of the run's only stage, as `status --json` shows it."""
        deadline = time.monotonic() + seconds
        while not until(stage := self.stage()):
            assert time.monotonic() < deadline, f"{stage}\n{self.log()}"
            assert stage["state"] not in ("failed", "cancelled"), f"{stage}\n{self.log()}"
            time.sleep(1)

    def wait_for_end(self) -> dict[str, Any]:
        """Wait until the run's only stage has ended, however it did; returns it."""
        deadline = time.monotonic() + JOB_LIMIT_S
        while (stage := self.stage())["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, f"{stage}\n{self.log()}"
            time.sleep(1)
        return stage

    def stage(self) -> dict[str, Any]:
        stages: list[dict[str, Any]] = self.cli.report(self.folder)["stages"]
        return stages[0]

    def log(self) -> str:
        """What its jobs have written so far."""
        files = sorted((self.folder / "jobs" / self.action).glob("*_log.out"))
        return "".join(path.read_text(errors="replace") for path in files)

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.action

    def status_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.results / "status.json").open()]

    def events(self) -> list[str]:
        return [event["event"] for event in read_events(self.folder / "events")]


def train_spec(dataset: Dataset, **train: Any) -> dict[str, Any]:
    """A training that takes seconds: a real RT-DETR, only small, on real images; without the later
    stages of its backbone, which are most of it."""
    return {
        "model": {
            "backbone": "resnet_18_vd",
            "return_interm_indices": [0, 1],
            "feat_strides": [4, 8],
            "num_feature_levels": 2,
            "use_encoder_idx": [1],
            "hidden_dim": 64,
            "feat_channels": [64, 64],
            "dim_feedforward": 128,
            "expansion": 0.5,
            "dec_layers": 1,
            "num_queries": 30,
            "num_select": 30,
            "dn_number": 20,
        },
        "dataset": {
            "num_classes": dataset.num_classes,
            "batch_size": 4,
            "workers": 1,
            "train_data_sources": [
                {
                    "image_dir": str(dataset.images("train")),
                    "json_file": str(dataset.annotations("train")),
                }
            ],
            "val_data_sources": {
                "image_dir": str(dataset.images("val")),
                "json_file": str(dataset.annotations("val")),
            },
            "augmentation": {
                "train_spatial_size": [64, 64],
                "eval_spatial_size": [64, 64],
                "multi_scales": [],
            },
        },
        "train": {"num_epochs": 2, "num_gpus": 1, "gpu_ids": [0], **train},
        "automl_policy": "off",
    }


def write_spec(path: Path, spec: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(spec), sort_keys=False))
    return path


def submit(cli: Cli, spec: Path, *overrides: str) -> Submitted:
    document = cli.json("submit", spec, *overrides)
    [stage] = document["stages"]
    return Submitted(cli, Path(document["run_dir"]), stage["job_id"], stage["name"])


@contextmanager
def held_queue(cluster: slurm.Slurm, partition: str = TRAIN) -> Iterator[None]:
    """Jobs that are submitted now wait until the end of this block."""
    cluster.command("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
    try:
        yield
    finally:
        cluster.command("scontrol", "update", f"PartitionName={partition}", "State=UP")
