"""What the engine's tests share: a small sample set, a small spec, a session to run one in."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.engine.detector import new_detector
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process import loading
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.engine.process.rank import skips_bad_images
from rtdetr_slurm.engine.process.results import create_results_folder, results_folder
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import LoadedSpec, load_spec

LAUNCH = {
    "WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "NUM_GPU_PER_NODE": "4",
}
"""What a launcher sets for the second of two nodes."""
# As a rank does; else each loading process imports torch, for seconds.
loading.CONTEXT.set_forkserver_preload(loading.PRELOAD)
SIZE = 64
TRAIN_IMAGES, VAL_IMAGES = 12, 5


def tiny_spec(data: Path, results: Path) -> dict[str, Any]:
    """A spec that trains in seconds: 3 steps per epoch."""

    def source(split: str) -> dict[str, str]:
        return {
            "image_dir": str(data / split / "images"),
            "json_file": str(data / split / "annotations.json"),
        }

    return {
        "results_dir": str(results),
        "dataset": {
            "train_data_sources": [source("train")],
            "val_data_sources": source("val"),
            "test_data_sources": source("val"),
            "num_classes": 4,
            "batch_size": 4,
            "workers": 1,
            "augmentation": {
                "train_spatial_size": [SIZE, SIZE],
                "eval_spatial_size": [SIZE, SIZE],
                "multi_scales": [SIZE, 96],
            },
        },
        "model": {
            "backbone": "resnet_18",
            "return_interm_indices": [0, 1],  # the later stages, most of its weights, are not built
            "feat_strides": [4, 8],
            "num_feature_levels": 2,
            "use_encoder_idx": [1],
            "hidden_dim": 32,
            "feat_channels": [32, 32],
            "dim_feedforward": 64,
            "enc_layers": 1,
            "dec_layers": 2,
            "num_queries": 10,
            "num_select": 10,
            "dn_number": 6,
            "expansion": 0.5,
        },
        "train": {
            "num_epochs": 2,
            "checkpoint_interval": 2,
            "seed": 7,
            "optim": {"lr": 1e-3, "lr_backbone": 1e-4, "warmup_steps": 2},
        },
        "evaluate": {"checkpoint": "none.pth"},
    }


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit code and messages of a command line."""
    code = command(argv)
    return code, capsys.readouterr().err


def session_of(
    loaded: LoadedSpec, context: Context | None = None, *, skip_bad_images: bool = False
) -> Session:
    """A session of the spec's action; without a context on one rank of its own, in this process."""
    folder = results_folder(loaded.experiment, loaded.action)
    create_results_folder(folder)
    return Session(
        name=loaded.action,
        experiment=loaded.experiment,
        resolved=loaded.resolved(),
        context=context or Context(0, 1, 0, 1, torch.device("cpu")),
        results_dir=folder,
        stop=StopFlag(),
        skip_bad_images=skips_bad_images(loaded, "skip" if skip_bad_images else None),
    )


class Workspace:
    """A folder with the sample set and room for results."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.results = root, root / "data", root / "results"
        write_sample(self.data, train=TRAIN_IMAGES, val=VAL_IMAGES, size=80)

    def spec_file(self, **changes: Any) -> Path:
        path = self.root / "spec.yaml"
        text = json.dumps(tiny_spec(self.data, self.results) | changes)
        write_atomic(path, text)  # ranks write the same at the same time
        return path

    def load(self, *overrides: str, action: str = "train", **changes: Any) -> LoadedSpec:
        return load_spec(self.spec_file(**changes), overrides, action=action)

    def session(
        self, *overrides: str, name: str = "train", skip_bad_images: bool = False, **changes: Any
    ) -> Session:
        """A session on one rank of its own, in this process."""
        loaded = self.load(*overrides, action=name, **changes)
        return session_of(loaded, skip_bad_images=skip_bad_images)

    def status(self, name: str = "train") -> list[dict[str, Any]]:
        return read_status(self.results / name / "status.json")


def end_workers() -> None:
    """End the loading processes that are left; in a rank they end with it. Python would send them
    SIGTERM and wait for them, but they ignore it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the loader complains of their end
    for process in multiprocessing.active_children():
        process.kill()


@contextmanager
def open_workspace(root: Path) -> Iterator[Workspace]:
    """Emptied afterwards: checkpoints are large, and a training that was broken off may have left
    loading processes, which whoever forgets the loader would wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Workspace(root)
    end_workers()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path) as opened:
        yield opened


class StopAt(StopFlag):
    """Asks to stop at the n-th time that it is looked at."""

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left < 0


def stopping_at(session: Session, n: int) -> Session:
    return replace(session, stop=StopAt(n))


def fresh_detector(session: Session, seed: int = 0) -> RTDETR:
    """As training with this seed begins."""
    torch.manual_seed(seed)
    return new_detector(session)


def fresh_weights(workspace: Workspace) -> Path:
    """A bare state dict of a detector that has learned nothing."""
    path = workspace.root / "weights.pth"
    torch.save(fresh_detector(workspace.session()).state_dict(), path)
    return path
