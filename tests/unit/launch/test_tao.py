"""What stands between TAO's entry point and the GPUs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import STAGE, make_run, write_checkpoint

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch import tao
from rtdetr_slurm.launch.rendezvous import Layout
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.runs.checkpoints import verify_checkpoint

INSIDE = {
    "WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "20007",
    "NUM_GPU_PER_NODE": "2",
    "CUDA_VISIBLE_DEVICES": "2,3",
    "RTDETR_CLAIM": "r:train",
    "HTTPS_PROXY": "p",
}
CPU = replace(STAGE, launch=replace(STAGE.launch, accelerator="cpu", engine="tao"))
ALONE = replace(CPU, resources=replace(CPU.resources, nodes=1))
TWO_NODES = "--nnodes=2 --nproc-per-node=2 --node-rank=1 --master-addr=10.0.0.1"


class Image:
    """A node's folder as the image sees it, and the image's own programs."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.own = root / "node-1", root / "bin"
        monkeypatch.setattr(tao, "TAO_FOLDER", str(self.folder))
        self.folder.mkdir()
        self.own.mkdir()
        for name in ("torchrun", "python"):
            self.program(name, 'echo "$CUDA_VISIBLE_DEVICES $*"')

    def program(self, name: str, script: str) -> None:
        (self.own / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.own / name).chmod(0o755)

    def run(self, stage: Stage, layout: Layout, *words: str) -> tuple[int, str]:
        """What TAO's entry point starts, with the devices that it takes for right."""
        inside = tao.enclosed(self.folder, stage, layout, INSIDE)
        path = f"{inside['PREPEND_PATH']}:{self.own}:{os.environ['PATH']}"
        env = {**inside, "PATH": path, "CUDA_VISIBLE_DEVICES": "0,1"}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    def error(self) -> Any:
        return json.loads((self.folder / "error.json").read_text())


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    return Image(tmp_path, monkeypatch)


def test_the_right_topology_gets_the_devices_of_the_allocation(image: Image) -> None:
    words = ["torchrun", *TWO_NODES.split(), "--master-port=20007", "train.py", "a b"]
    said = f"2,3 {TWO_NODES} --master-port=20007 train.py a b"
    assert image.run(CPU, Layout(1, 2), *words) == (0, said)
    assert (image.folder / tao.STARTED_FILE).exists()


@pytest.mark.parametrize(
    "flags",
    [
        "--nnodes=1 --nproc-per-node=8",
        f"{TWO_NODES.replace('rank=1', 'rank=0')} --master-port=20007",
        f"{TWO_NODES} --master-port=29500",
    ],
)
def test_another_topology_does_not_begin(image: Image, flags: str) -> None:
    code, said = image.run(CPU, Layout(1, 2), "torchrun", *flags.split(), "train.py")
    assert (code, said) == (3, "")
    assert image.error()["failure_class"] == "infra"
    assert "TAO has fallen back to another topology" in image.error()["reason"]
    assert not (image.folder / tao.STARTED_FILE).exists()


def test_one_node_has_a_port_of_its_own_and_hears_nothing_of_several(image: Image) -> None:
    alone = "--nnodes=1 --nproc_per_node=2"
    code, said = image.run(ALONE, Layout(0, 1), "torchrun", *alone.split(), "train.py")
    assert (code, said) == (0, f"2,3 --master-port=20007 {alone} train.py")
    told = tao.enclosed(image.folder, ALONE, Layout(0, 1), INSIDE)
    assert {*told} == {"CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "TELEMETRY_OPT_OUT", "PREPEND_PATH"}
    several = tao.enclosed(image.folder, CPU, Layout(1, 2), INSIDE)
    assert (several["WORLD_SIZE"], several["NODE_RANK"]) == ("2", "1")
    assert "RTDETR_CLAIM" not in several


def test_deployment_gets_its_gpu_back(image: Image) -> None:
    stage = replace(ALONE, action="gen_trt_engine")
    words = ["bash", "-c", " CUDA_VISIBLE_DEVICES=0 python build.py"]
    assert image.run(stage, Layout(0, 1), *words) == (0, "2,3 build.py")


def test_gpus_that_cuda_does_not_see_are_no_gpus(image: Image) -> None:
    stage = replace(ALONE, launch=replace(ALONE.launch, accelerator="cuda"))
    words = ["torchrun", "--nnodes=1", "--nproc-per-node=2"]
    image.program("python3", "echo 1")
    assert image.run(stage, Layout(0, 1), *words) == (3, "")
    assert "does not see the 2 GPUs of this node's allocation" in image.error()["reason"]
    image.program("python3", "echo 2")
    assert image.run(stage, Layout(0, 1), *words)[0] == 0


def test_work_that_began_past_our_program_is_found_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, CPU)
    task = StageTask(run.plan.stage("train"))
    for rank in (0, 1):
        run.node_dir(task, rank).mkdir(parents=True)
    (run.node_dir(task, 0) / tao.STARTED_FILE).touch()
    assert "on node 1 its work began past the program" in str(tao.unguarded(run, task))
    (run.node_dir(task, 1) / tao.STARTED_FILE).touch()
    assert tao.unguarded(run, task) is None


def test_the_port_must_be_free_in_taos_way() -> None:
    """A socket that only holds it is in its way."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        inside = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with pytest.raises(SiteError, match="TAO would go on with this node alone"):
            tao.check_master(inside, Layout(0, 2))
        tao.check_master(inside, Layout(1, 2))
        tao.check_master(inside, Layout(0, 1))
    tao.check_master(inside, Layout(0, 2))
    with pytest.raises(SiteError, match=r"no IPv4 address, only fe80::1"):
        tao.check_master({**inside, "MASTER_ADDR": "fe80::1"}, Layout(1, 2))


def test_its_spec_has_what_all_versions_know() -> None:
    spec = {
        "model": {"precise_msda": False, "act": "silu", "frozen_fm": None},
        "train": {"checkpointer": {"enable_topk": False}, "num_epochs": 3},
        "dataset": {"val_data_sources": None, "train_data_sources": [{"image_dir": "/i"}]},
        "wandb": None,
        "engine": {"recipe": "rtdetr"},
    }
    assert tao.tao_spec(spec) == {
        "model": {"act": "silu"},
        "train": {"num_epochs": 3},
        "dataset": {"train_data_sources": [{"image_dir": "/i"}]},
    }
    chosen = {"model": {"precise_msda": True}, "train": {"checkpointer": {"enable_topk": True}}}
    assert tao.tao_spec(chosen) == chosen


def test_it_goes_on_from_the_furthest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    for epoch in range(3):
        write_checkpoint(tmp_path / f"model_epoch_{epoch:03d}.pth")
    (tmp_path / "model_epoch_003.pth").write_bytes(b"torn")
    write_checkpoint(tmp_path / "model_epoch_001-EMA.pth")

    def found(spec: dict[str, Any]) -> str | None:
        point = tao.tao_resume_point(tmp_path, spec, verify_checkpoint)
        return point and point.path.name

    assert found({}) == "model_epoch_002.pth"
    assert found({"train": {"enable_ema": True}}) == "model_epoch_001.pth"


def test_a_training_that_has_not_come_to_its_end_is_no_success(tmp_path: Path) -> None:
    spec = {"train": {"num_epochs": 3}}
    assert tao.unfinished(tmp_path, spec) is None, "that there is none is told by others"
    write_checkpoint(tmp_path / "model_epoch_001.pth")
    assert "checkpoint is model_epoch_001.pth, of 3 epochs" in str(tao.unfinished(tmp_path, spec))
    write_checkpoint(tmp_path / "model_epoch_002.pth")
    assert tao.unfinished(tmp_path, spec) is None


def test_a_link_to_a_torn_checkpoint_is_not_followed(tmp_path: Path) -> None:
    torn = tmp_path / "model_epoch_000.pth"
    torn.write_bytes(b"torn")
    link = tmp_path / "rtdetr_model_latest.pth"
    link.symlink_to(torn.name)
    assert tao.going_on(tmp_path, {}, verify_checkpoint) == []
    assert not link.is_symlink()
    write_checkpoint(torn)
    [told] = tao.going_on(tmp_path, {}, verify_checkpoint)
    assert (told.field, told.value) == ("train.resume_training_checkpoint_path", str(torn))
