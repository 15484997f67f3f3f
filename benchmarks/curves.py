"""Learning curves for benchmarks/sweep.py: short real trainings with drawn hyper-parameters.

    python benchmarks/curves.py 96 benchmarks/curves.csv

trains a small detector on generated images once for each draw, one after another, and appends one
line per epoch: the draw's number, its hyper-parameters, the epoch, val_mAP, and the seconds of an
epoch. A table that was begun is gone on with. About a minute per draw on one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.resolved_spec import spec_text

EPOCHS = 27
FIELDS = {
    "train.optim.lr": (1e-5, 1e-2),
    "train.optim.lr_backbone": (1e-6, 1e-2),
    "train.optim.weight_decay": (1e-6, 1e-1),
}
"""Searched on a log scale."""
BATCH_SIZES = (4, 8, 16)
COLUMNS = ("draw", *FIELDS, "dataset.batch_size", "epoch", "val_mAP", "seconds")


def draw(number: int) -> dict[str, Any]:
    """The hyper-parameters of a draw, by its number alone."""
    chance = random.Random(number)
    values: dict[str, Any] = {
        name: float(f"{low * (high / low) ** chance.random():.4g}")
        for name, (low, high) in FIELDS.items()
    }
    return {**values, "dataset.batch_size": chance.choice(BATCH_SIZES)}


def spec_of(values: dict[str, Any], data: Path, results: Path) -> dict[str, Any]:
    def source(split: str) -> dict[str, str]:
        return {
            "image_dir": str(data / split / "images"),
            "json_file": str(data / split / "annotations.json"),
        }

    return {
        "results_dir": str(results),
        "dataset": {
            "num_classes": 4,
            "eval_class_ids": [1, 2, 3],
            "train_data_sources": [source("train")],
            "val_data_sources": source("val"),
            "batch_size": values["dataset.batch_size"],
            "workers": 1,
            "augmentation": {
                "train_spatial_size": [64, 64],
                "eval_spatial_size": [64, 64],
                "multi_scales": [],
                "distortion_prob": 0.0,
                "iou_crop_prob": 0.0,
            },
        },
        "model": {
            "backbone": "resnet_18",
            "hidden_dim": 64,
            "feat_channels": [64, 64, 64],
            "dim_feedforward": 128,
            "nheads": 4,
            "dec_layers": 2,
            "num_queries": 12,
            "num_select": 12,
            "dn_number": 10,
        },
        "train": {
            "num_epochs": EPOCHS,
            "validation_interval": 1,
            "checkpoint_interval": EPOCHS,
            "clip_grad_norm": 1.0,
            "seed": 1,
            "cudnn": {"deterministic": False},
            "optim": {
                "lr": values["train.optim.lr"],
                "lr_backbone": values["train.optim.lr_backbone"],
                "weight_decay": values["train.optim.weight_decay"],
                "lr_steps": [1000],
                "warmup_steps": 20,
            },
        },
    }


def curve(values: dict[str, Any], data: Path, folder: Path) -> list[tuple[int, float, float]]:
    """Epoch, val_mAP and seconds, of one training."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec_text(spec_of(values, data, folder / "results")))
    began = time.monotonic()
    done = subprocess.run(
        ["rtdetr", "train", "-e", "spec.yaml"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    seconds = (time.monotonic() - began) / EPOCHS
    [status] = folder.glob("results/**/status.json")
    found = {}
    for line in map(json.loads, status.read_text().splitlines()):
        if "val_mAP" in line.get("kpi", {}) and line.get("epoch") is not None:
            found[line["epoch"]] = line["kpi"]["val_mAP"]
    if len(found) < EPOCHS:
        # A training that diverges is a result as well: nothing more is learned from there on.
        print(f"{values}: ended after {len(found)} epochs: {done.stderr.splitlines()[-1:]}")
    return [(epoch, found.get(epoch, 0.0), round(seconds, 3)) for epoch in range(EPOCHS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draws", type=int)
    parser.add_argument("table", type=Path)
    args = parser.parse_args()
    begun = 0
    if args.table.exists():
        with args.table.open() as stream:
            begun = len({row["draw"] for row in csv.DictReader(stream)})
    with tempfile.TemporaryDirectory() as work, args.table.open("a", newline="") as stream:
        table = csv.writer(stream)
        if not begun:
            table.writerow(COLUMNS)
        data = Path(work) / "data"
        write_sample(data, train=64, val=32, size=64)
        for number in range(begun, args.draws):
            values = draw(number)
            rows = curve(values, data, Path(work) / str(number))
            for epoch, score, seconds in rows:
                table.writerow((number, *values.values(), epoch, f"{score:.5f}", seconds))
            stream.flush()
            print(f"{number}: best {max(score for _, score, _ in rows):.4f}  {values}", flush=True)


if __name__ == "__main__":
    main()
