"""What is learned, epoch by epoch: the published R18 configuration trained from random weights.

    python benchmarks/accuracy.py DATA_DIR [--variants default deim] [--seeds N] [--epochs E]
                                  [--size PIXELS] [--table FILE]

DATA_DIR has `train` and `val`, each with `images` (or `images.tar.gz`) and `annotations.json`.
Variants are trained in turns, seed by seed, on the CPU, in this process, at equal epochs:

    default         the recipe `rtdetr`
    fan-out-init    the same from other random weights: normal ones by fan-out (He et al. 2015) for
                    the backbone, Xavier's for the decoder's projections and feed-forward layers
    rtdetrv2, deim  these recipes

What is printed is the val_mAP after each epoch, of each seed, and its mean and standard deviation.
With --table every training that has ended is appended to that CSV file, and those that it has are
not repeated, so that what was broken off goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from splits import opened, train_and_val
from torch import nn

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.results import create_results_folder
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.engine.training.objective import (
    BuildObjective,
    DetectionObjective,
    detection_objective,
)
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

KEY = ("variant", "seed", "epochs", "size")
VALUES = ("epoch", "val_mAP", "val_mAP50", "train_loss", "val_loss")
VARIANTS = ("default", "fan-out-init", "rtdetrv2", "deim")
Row = dict[str, Any]


def spec_of(
    data: Path, results: Path, variant: str, seed: int, epochs: int, size: int
) -> dict[str, Any]:
    recipe = {"engine": {"recipe": variant}} if variant in ("rtdetrv2", "deim") else {}
    return recipe | {
        "results_dir": str(results),
        "model": {"backbone": "resnet_18_vd", "expansion": 0.5, "dec_layers": 3},
        "dataset": {
            **train_and_val(data),
            "batch_size": 4,
            "workers": 1,
            "augmentation": {
                "train_spatial_size": [size, size],
                "eval_spatial_size": [size, size],
                "multi_scales": [],
                "distortion_prob": 0.5,
                "iou_crop_prob": 0.8,
            },
        },
        "train": {
            "num_epochs": epochs,
            "checkpoint_interval": epochs,
            "seed": seed,
            "activation_checkpoint": False,
            "enable_ema": True,
            "ema": {"decay": 0.9999},
            "optim": {"lr": 1e-4, "lr_backbone": 1e-4},
        },
    }


def by_fan_out(
    session: Session, detector: RTDETR, criterion: Criterion, classes: Mapping[int, str]
) -> DetectionObjective:
    """The objective of `train`, of a detector that begins with other weights."""
    for module in detector.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    projections = [one.conv for one in detector.decoder.input_proj]
    layers = detector.decoder.decoder.layers
    for module in (
        *projections,
        *(one for layer in layers for one in (layer.linear1, layer.linear2)),
    ):
        nn.init.xavier_uniform_(module.weight)
    return detection_objective(session, detector, criterion, classes)


def trained(data: Path, folder: Path, variant: str, seed: int, epochs: int, size: int) -> list[Row]:
    """A row for each epoch of a training."""
    path = folder / "spec.yaml"
    path.write_text(json.dumps(spec_of(data, folder, variant, seed, epochs, size)))
    loaded = load_spec(path, action="train")
    results = folder / "train"
    create_results_folder(results)
    context = Context(0, 1, 0, 1, torch.device("cpu"))
    session = Session("train", loaded.experiment, loaded.resolved(), context, results, StopFlag())
    objective: BuildObjective = by_fan_out if variant == "fan-out-init" else detection_objective
    with (folder / "log").open("w") as log, contextlib.redirect_stdout(log):
        train(session, objective)
    key = dict(zip(KEY, (variant, seed, epochs, size), strict=True))
    reported = [line for line in read_status(results / "status.json") if "val_mAP" in kpi(line)]
    return [
        {**key, "epoch": epoch} | {name: round(kpi(line)[name], 5) for name in VALUES[1:]}
        for epoch, line in enumerate(reported, start=1)
    ]


def kpi(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The KPIs of a line of status.json; none where it has none."""
    return line.get("kpi") or {}


def recorded(table: Path | None) -> list[Row]:
    """What a table has."""
    if table is None or not table.exists():
        return []
    with table.open() as stream:
        return list(csv.DictReader(stream))


def append(table: Path, rows: list[Row]) -> None:
    """All rows of a training at once, so that a table never has a part of one."""
    new = not table.exists()
    with table.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, (*KEY, *VALUES), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def key_of(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def shown(rows: list[Row], variant: str) -> Iterator[str]:
    """The table of a variant: a line for each epoch, a column for each seed."""
    seeds = sorted({int(row["seed"]) for row in rows})
    scores = {(int(row["epoch"]), int(row["seed"])): float(row["val_mAP"]) for row in rows}
    yield f"{variant:<14}" + "".join(f"  seed {seed}" for seed in seeds) + "    mean  deviation"
    for epoch in sorted({epoch for epoch, _ in scores}):
        found = [scores[epoch, seed] for seed in seeds]
        deviation = statistics.stdev(found) if len(found) > 1 else 0.0
        columns = "".join(f"{score:8.4f}" for score in found)
        yield f"epoch {epoch:>3}     {columns}{statistics.mean(found):8.4f}{deviation:11.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["default", "deim"])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="0..N-1")
    parser.add_argument("--epochs", type=int, default=24, metavar="E")
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS")
    parser.add_argument("--table", type=Path, metavar="FILE", help="CSV file to go on with")
    args = parser.parse_args()
    rows = recorded(args.table)
    with tempfile.TemporaryDirectory() as work:
        data = opened(args.data, Path(work))
        for seed in range(args.seeds):
            for variant in args.variants:
                key = (variant, seed, args.epochs, args.size)
                if tuple(map(str, key)) in map(key_of, rows):
                    continue
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    found = trained(data, Path(folder), *key)
                print(f"{variant}, seed {seed}: {found[-1]['val_mAP']:.4f}", flush=True)
                rows += found
                if args.table is not None:
                    append(args.table, found)
    for variant in args.variants:
        wanted = [
            (variant, str(seed), str(args.epochs), str(args.size)) for seed in range(args.seeds)
        ]
        print("\n".join(shown([row for row in rows if key_of(row) in wanted], variant)))


if __name__ == "__main__":
    main()
