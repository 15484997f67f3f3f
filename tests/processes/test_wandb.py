"""Trainings and Weights & Biases, with its real package: offline, and without a server.

What was logged is read back from the file that `wandb sync` sends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_support import tiny_spec
from spec_files import write
from wandb.proto.wandb_internal_pb2 import Record

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.engine.process.rendezvous import free_port
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.yaml_source import to_yaml

KEY = "0123456789abcdef" * 2 + "01234567"
SECRET = "not for others"
BLOCK, HEADER = 32768, 7
"""Of the log format of LevelDB."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder, train=8, val=2, size=64)
    return folder


def train(
    folder: Path, data: Path, environ: Mapping[str, str], *overrides: str, epochs: int = 1
) -> str:
    """Run `rtdetr train` in a folder to its end; what it has printed."""
    spec = write(folder, to_yaml(tiny_spec(data, folder / "results")))
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"RTDETR_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HOME": str(folder), **environ}
    program = [sys.executable, "-m", "rtdetr_slurm.engine.process.entry", "train", "-e", str(spec)]
    small = (
        f"train.num_epochs={epochs}",
        "train.checkpoint_interval=1",
        "dataset.val_data_sources=null",
    )
    done = subprocess.run(
        [*program, *small, *overrides],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def records(path: Path) -> Iterator[Record]:
    """What an offline run's file holds, after its own header."""
    content = path.read_bytes()
    at, pieces = HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        pieces += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last of several pieces
            yield Record.FromString(pieces)
            pieces = b""


def offline_runs(results: Path) -> list[list[Record]]:
    """Of each start of a training, in order."""
    files = sorted(results.glob("wandb/offline-run-*/run-*.wandb"))
    return [list(records(path)) for path in files]


def history(run: list[Record]) -> list[dict[str, Any]]:
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in one.item}
        for one in (record.history for record in run if record.HasField("history"))
    ]


def test_a_training_and_its_continuation(tmp_path: Path, data: Path) -> None:
    asked = (
        "wandb={project: birds, entity: us, group: g, name: first, tags: [a, b], reinit: true}",
    )
    offline = {"WANDB_MODE": "offline", "RTDETR_ENCRYPTION_KEY": SECRET}
    said = train(tmp_path, data, offline, *asked)
    folder = tmp_path / "results" / "train"
    run_id = json.loads((folder / "wandb.json").read_text())["run_id"]
    assert f"Weights & Biases: run {run_id}, offline; later: wandb sync {folder}" in said

    [first] = offline_runs(folder)
    [run] = [record.run for record in first if record.HasField("run")]
    assert (run.run_id, run.project, run.entity) == (run_id, "birds", "us")
    assert (run.run_group, run.display_name, [*run.tags]) == ("g", "first", ["a", "b"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["model"]["backbone"] == "resnet_18"
    assert "encryption_key" not in config
    logged = history(first)
    epochs = [one for one in logged if "epoch/train_loss" in one]
    [status] = [line for line in read_status(folder / "status.json") if "epoch" in line]
    assert [one["step"] for one in epochs] == [status["step"]] == [2]
    assert epochs[0]["epoch/train_loss"] == pytest.approx(status["kpi"]["train_loss"])
    for path in folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()

    train(tmp_path, data, {**offline, "RTDETR_RESUME": "1"}, *asked, epochs=2)
    _, second = offline_runs(folder)
    [run] = [record.run for record in second if record.HasField("run")]
    assert run.run_id == run_id
    assert [one["step"] for one in history(second) if "epoch/train_loss" in one] == [4]


def test_code_and_tensorboards_file(tmp_path: Path, data: Path) -> None:
    """Scalars are then taken from TensorBoard's file, and not logged twice."""
    train(
        tmp_path,
        data,
        {"WANDB_MODE": "offline"},
        "wandb={run_id: mine, save_code: true, sync_tensorboard: true}",
    )
    [run] = offline_runs(tmp_path / "results" / "train")
    assert [record.run.run_id for record in run if record.HasField("run")] == ["mine"]
    [code] = [record.artifact for record in run if record.HasField("artifact")]
    assert code.type == "code"
    assert "engine/training/wandb_run.py" in {entry.path for entry in code.manifest.contents}
    losses = [one for one in history(run) if "epoch/train_loss" in one]
    assert [one["global_step"] for one in losses] == [2]


def test_a_server_that_is_not_there(tmp_path: Path, data: Path) -> None:
    """The training is as any other, and what it has logged can be sent later."""
    environ = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    said = train(tmp_path, data, environ)
    assert said.count("warning: Weights & Biases: ") == 1
    assert "it is written for `wandb sync`" in said
    [run] = offline_runs(tmp_path / "results" / "train")
    assert [one["step"] for one in history(run) if "epoch/train_loss" in one] == [2]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_without_a_key_nothing_is_imported(tmp_path: Path, data: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise AssertionError('it is imported')\n")
    said = train(tmp_path, data, {"PYTHONPATH": str(tmp_path)})
    assert said.count("nothing is sent to Weights & Biases: there is no key for api.wandb.ai") == 1
    assert not (tmp_path / "results" / "train" / "wandb.json").exists()
