"""What the engine's tests share: a small sample set, a small spec, a session to run one in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.engine.process.distributed import single_process
from rtdetr_slurm.engine.process.session import Session, create_results_folder, results_folder
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import LoadedSpec, load_spec

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
            "hidden_dim": 32,
            "feat_channels": [32, 32, 32],
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


class Workspace:
    """A folder with the sample set and room for results."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.results = root, root / "data", root / "results"
        write_sample(self.data, train=TRAIN_IMAGES, val=VAL_IMAGES, size=80)

    def spec_file(self, **changes: Any) -> Path:
        path = self.root / "spec.yaml"
        path.write_text(json.dumps(tiny_spec(self.data, self.results) | changes))
        return path

    def load(self, *overrides: str, action: str = "train", **changes: Any) -> LoadedSpec:
        return load_spec(self.spec_file(**changes), overrides, action=action)

    def session(
        self, *overrides: str, name: str = "train", skip_bad_images: bool = False, **changes: Any
    ) -> Session:
        """A session on one rank of its own, in this process."""
        loaded = self.load(*overrides, action=name, **changes)
        folder = results_folder(loaded.experiment, name)
        create_results_folder(folder)
        return Session(
            name=name,
            experiment=loaded.experiment,
            resolved=loaded.resolved(),
            context=single_process(),
            results_dir=folder,
            stop=StopFlag(),
            skip_bad_images=skip_bad_images,
        )

    def status(self, name: str = "train") -> list[dict[str, Any]]:
        return read_status(self.results / name / "status.json")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Emptied afterwards: checkpoints are large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Workspace(tmp_path)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    shutil.rmtree(tmp_path, ignore_errors=True)
