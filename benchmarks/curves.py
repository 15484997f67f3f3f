"""Learning curves for benchmarks/sweep.py: short real trainings with drawn hyper-parameters.

    python benchmarks/curves.py benchmarks/curves.csv --draws 96

fine-tunes a small detector on generated images once for each draw, one after another, and appends
one line per epoch: the draw's number, its hyper-parameters, the epoch, val_mAP, and the seconds of
an epoch. All begin with the same weights, of a training on other images whose classes have other
ids; --weights keeps them, so that several processes, each with its --first and a table of its own,
record parts of one table. Draws that the table has are left out. A minute per draw on one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from splits import source

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.resolved_spec import spec_text

EPOCHS = 27
BEFORE_EPOCHS = 15
"""Of the training that all begin with."""
BEFORE = {
    "train.optim.lr": 5e-4,
    "train.optim.lr_backbone": 5e-4,
    "train.optim.weight_decay": 1e-4,
    "dataset.batch_size": 8,
}
FIELDS = {
    "train.optim.lr": (1e-5, 1e-2),
    "train.optim.lr_backbone": (1e-6, 1e-2),
    "train.optim.weight_decay": (1e-6, 1e-1),
}
"""Searched on a log scale."""
BEYOND_FROM, BEYOND = 100, (1e-2, 1.0)
"""The first draw, and the range of each of the fields, of what nobody would try who knows training:
TAO's own ranges end at 1."""
BATCH_SIZES = (4, 8, 16)
COLUMNS = ("draw", *FIELDS, "dataset.batch_size", "epoch", "val_mAP", "seconds")


def draw(number: int) -> dict[str, Any]:
    """The hyper-parameters of a draw, by its number alone."""
    chance = random.Random(number)
    ranges = FIELDS if number < BEYOND_FROM else dict.fromkeys(FIELDS, BEYOND)
    values: dict[str, Any] = {
        name: float(f"{low * (high / low) ** chance.random():.4g}")
        for name, (low, high) in ranges.items()
    }
    return {**values, "dataset.batch_size": chance.choice(BATCH_SIZES)}


def spec_of(
    values: dict[str, Any], data: Path, results: Path, epochs: int, weights: Path | None
) -> dict[str, Any]:
    return {
        "results_dir": str(results),
        "dataset": {
            "num_classes": 4,
            "eval_class_ids": [1, 2, 3],
            "train_data_sources": [source(data / "train")],
            "val_data_sources": source(data / "val"),
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
            "num_epochs": epochs,
            "pretrained_model_path": "" if weights is None else str(weights),
            "validation_interval": 1,
            "checkpoint_interval": epochs,
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


def train(
    values: dict[str, Any], data: Path, folder: Path, epochs: int, weights: Path | None = None
) -> list[tuple[int, float, float]]:
    """Epoch, val_mAP and seconds, of one training."""
    folder.mkdir()
    spec = spec_of(values, data, folder / "results", epochs, weights)
    (folder / "spec.yaml").write_text(spec_text(spec))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rtdetr")), "train", "-e", "spec.yaml"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    [status] = folder.glob("results/**/status.json")
    found, at = {}, []
    for line in map(json.loads, status.read_text().splitlines()):
        if "val_mAP" in line.get("kpi", {}) and line.get("epoch") is not None:
            found[line["epoch"]] = line["kpi"]["val_mAP"]
            at.append(datetime.fromisoformat(line["timestamp"]))
    if len(found) < epochs:
        # A training that diverges is a result as well: nothing more is learned from there on.
        print(f"{values}: ended after {len(found)} epochs: {done.stderr.splitlines()[-1:]}")
    seconds = (at[-1] - at[0]).total_seconds() / (len(at) - 1) if len(at) > 1 else 0.0
    return [(epoch, found.get(epoch, 0.0), round(seconds, 3)) for epoch in range(epochs)]


def first_weights(work: Path) -> Path:
    """What all trainings begin with."""
    data, folder = work / "before", work / "first"
    write_sample(data, train=256, val=32, size=64, seed=1)
    for path in data.glob("*/annotations.json"):
        content = json.loads(path.read_text())
        for one in content["annotations"]:
            one["category_id"] = one["category_id"] % 3 + 1
        path.write_text(json.dumps(content))
    scores = train(BEFORE, data, folder, BEFORE_EPOCHS)
    print(f"before: {max(score for _, score, _ in scores):.4f}", flush=True)
    [weights] = folder.glob(f"results/**/model_epoch_{BEFORE_EPOCHS - 1:03d}.pth")
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of a draw")
    parser.add_argument("--draws", type=int, default=96, metavar="N", help="how many")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="made where there is none")
    args = parser.parse_args()
    known: set[int] = set()
    if args.table.exists():
        with args.table.open() as stream:
            known = {int(row["draw"]) for row in csv.DictReader(stream)}
    with tempfile.TemporaryDirectory() as folder, args.table.open("a", newline="") as stream:
        table, work = csv.writer(stream, lineterminator="\n"), Path(folder)
        if not known:
            table.writerow(COLUMNS)
        data = work / "data"
        write_sample(data, train=48, val=48, size=64)
        weights = args.weights or work / "first.pth"
        if not weights.exists():
            shutil.copyfile(first_weights(work), weights)
        for number in range(args.first, args.first + args.draws):
            if number in known:
                continue
            values = draw(number)
            rows = train(values, data, work / str(number), EPOCHS, weights)
            shutil.rmtree(work / str(number))
            for epoch, score, seconds in rows:
                table.writerow((number, *values.values(), epoch, f"{score:.5f}", seconds))
            stream.flush()
            print(f"{number}: best {max(score for _, score, _ in rows):.4f}  {values}", flush=True)


if __name__ == "__main__":
    main()
