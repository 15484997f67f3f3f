"""mAP of a checkpoint and of its ONNX file through ONNX Runtime, on every image of a set.

    python benchmarks/onnx_parity.py --data FOLDER [--checkpoint FILE --spec FILE] [--epochs N]
                                     [--height PIXELS --width PIXELS] [--split test] [--work FOLDER]

FOLDER has `train`, `val` and `test`, each with `images` (or `images.tar.gz`) and
`annotations.json`. Without a checkpoint a small detector is trained on it first, on the CPU. Prints
both numbers, their difference in points, and the largest difference of any score or coordinate.
Ends with 1 where the two differ by more than 0.1 points.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch

from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader
from rtdetr_slurm.engine.evaluation import predictor
from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.runs.checkpoints import list_checkpoints
from rtdetr_slurm.spec import ExperimentConfig, load_spec
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import compare
from rtdetr_slurm.vision.samples import EvaluationSet
from rtdetr_slurm.vision.scoring import evaluation_data
from rtdetr_slurm.vision.table import open_table

SIZE = 192
MODEL = {
    "backbone": "resnet_18",
    "return_interm_indices": [1, 2, 3],
    "hidden_dim": 64,
    "feat_channels": [64] * 3,
    "dim_feedforward": 128,
    "dec_layers": 2,
    "num_queries": 100,
    "num_select": 100,
    "dn_number": 50,
    "expansion": 0.5,
}


def main() -> int:
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        sources = {split: opened(args.data, split, work) for split in ("train", "val", "test")}
        spec = args.spec or write_spec(work, sources, args.epochs)
        checkpoint = args.checkpoint or trained(spec, work)
        size = (args.height, args.width)
        rtdetr("export", spec, f"results_dir={work}", f"export.checkpoint={checkpoint}",
               f"export.input_height={size[0]}", f"export.input_width={size[1]}",
               "export.on_cpu=true")  # fmt: skip
        experiment = load_spec(spec, [f"export.checkpoint={checkpoint}"], "export").experiment
        return report(
            experiment, checkpoint, work / "export/rtdetr.onnx", sources[args.split], size
        )


def report(
    experiment: ExperimentConfig,
    checkpoint: Path,
    onnx_file: Path,
    source: dict[str, str],
    size: tuple[int, int],
) -> int:
    model = build_model(experiment.model, experiment.dataset.num_classes)
    load_weights(model, checkpoint, part="detector")
    read = Source(Path(source["image_dir"]), read_annotations(Path(source["json_file"])))
    table = open_table([read], experiment.dataset.num_classes)
    data = evaluation_data(experiment, table, size=size)
    images = EvaluationSet(data.table, size)
    batches = evaluation_loader(images, 8, 0, 1, workers=0, pin_memory=False)
    found = compare(predictor(model), open_onnx(onnx_file), batches, data, torch.device("cpu"))
    print(f"images                  {found.images}")
    print(f"mAP of the checkpoint   {100 * found.map_reference:.3f}")
    print(f"mAP of the ONNX file    {100 * found.map_other:.3f}")
    print(f"difference              {found.map_difference:+.4f} points")
    print(f"largest difference      {found.max_difference:.1e} in {found.queries} detections")
    print(f"without counterpart     {found.unmatched}")
    return int(abs(found.map_difference) > 0.1)


def opened(data: Path, split: str, work: Path) -> dict[str, str]:
    """A source whose images are files."""
    images, archive = data / split / "images", data / split / "images.tar.gz"
    if archive.exists():
        images = work / "data" / split
        if not images.exists():
            with tarfile.open(archive) as content:
                content.extractall(images, filter="data")
        images = next(path.parent for path in sorted(images.rglob("*.jpg")))
    return {"image_dir": str(images), "json_file": str(data / split / "annotations.json")}


def write_spec(work: Path, sources: dict[str, dict[str, str]], epochs: int) -> Path:
    sides = {"train_spatial_size": [SIZE] * 2, "eval_spatial_size": [SIZE] * 2}
    spec: dict[str, Any] = {
        "dataset": {
            "train_data_sources": [sources["train"]],
            "val_data_sources": sources["val"],
            "test_data_sources": sources["test"],
            "num_classes": 4,
            "batch_size": 8,
            "workers": 1,
            "augmentation": {**sides, "multi_scales": []},
        },
        "model": MODEL,
        "train": {
            "num_epochs": epochs,
            "validation_interval": epochs,
            "checkpoint_interval": epochs,
            "seed": 0,
            "optim": {"lr": 5e-4, "lr_backbone": 5e-4, "warmup_steps": 50, "lr_steps": [epochs]},
        },
    }
    path = work / "spec.yaml"
    path.write_text(json.dumps(spec, indent=2))
    return path


def trained(spec: Path, work: Path) -> Path:
    rtdetr("train", spec, f"results_dir={work}")
    return list_checkpoints(work / "train")[-1].path


def rtdetr(action: str, spec: Path, *overrides: str) -> None:
    command = [sys.executable, "-m", "rtdetr_slurm.engine.process.entry", action, "-e", str(spec)]
    environment = {**os.environ, "RTDETR_ACCELERATOR": "cpu"}
    subprocess.run([*command, *overrides], check=True, env=environment)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--spec", type=Path, help="what the checkpoint was trained with")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--height", type=int, default=SIZE)
    parser.add_argument("--width", type=int, default=SIZE)
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--work", type=Path, help="folder that keeps what is made")
    args = parser.parse_args()
    if (args.checkpoint is None) != (args.spec is None):
        parser.error("--checkpoint and --spec come together")
    return args


if __name__ == "__main__":
    sys.exit(main())
