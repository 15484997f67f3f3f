"""What a teacher is worth: one small student, trained alone and with a teacher, at equal epochs.

    python benchmarks/distill.py --data FOLDER [--epochs N] [--teacher-epochs N] [--seeds 0 1 2]
                                 [--teacher FILE] [--work FOLDER]

FOLDER has `train` and `val`, each with `images` (or `images.tar.gz`) and `annotations.json`. Trains
a teacher on it, then with each seed the student alone, and with the teacher bound to it, all on the
CPU from random weights at 96 x 96 pixels, and prints the val_mAP and val_mAP50 of the last epoch
of each, their means and differences, and the seconds that a training took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from splits import opened, train_and_val

SIZE = 96
SMALL = {
    "return_interm_indices": [0, 1],
    "num_feature_levels": 2,
    "feat_strides": [4, 8],
    "use_encoder_idx": [1],
    "num_queries": 100,
    "num_select": 100,
    "dn_number": 20,
    "expansion": 0.5,
}
TEACHER = SMALL | {
    "backbone": "resnet_34",
    "hidden_dim": 96,
    "feat_channels": [96] * 2,
    "dim_feedforward": 256,
    "dec_layers": 3,
}
STUDENT = SMALL | {
    "backbone": "resnet_18",
    "hidden_dim": 32,
    "feat_channels": [32] * 2,
    "dim_feedforward": 64,
    "dec_layers": 2,
}
BINDINGS = [
    {"student_module_name": "srcs", "teacher_module_name": "srcs", "criterion": "IOU"},
    {"student_module_name": "dsrcs", "teacher_module_name": "dsrcs", "criterion": "L2"},
]


def spec(
    data: Path, results: Path, epochs: int, model: dict[str, Any], seed: int
) -> dict[str, Any]:
    return {
        "results_dir": str(results),
        "model": model,
        "dataset": {
            **train_and_val(data),
            "batch_size": 8,
            "workers": 1,
            "augmentation": {
                "train_spatial_size": [SIZE, SIZE],
                "eval_spatial_size": [SIZE, SIZE],
                "multi_scales": [],
                "iou_crop_prob": 0.3,
            },
        },
        "train": {
            "num_epochs": epochs,
            "validation_interval": epochs,
            "checkpoint_interval": epochs,
            "seed": seed,
            "enable_ema": True,
            "ema": {"decay": 0.99},
            "optim": {"lr": 5e-4, "lr_backbone": 5e-4, "warmup_steps": 50},
        },
    }


def run(action: str, content: dict[str, Any], path: Path) -> tuple[dict[str, float], Path, float]:
    """Run an action in a process of its own: its last KPIs, its checkpoint, the seconds it took."""
    path.write_text(json.dumps(content))
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("rtdetr")), action, "-e", str(path)]
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        environment = os.environ | {"RTDETR_ACCELERATOR": "cpu"}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    results = Path(content["results_dir"]) / action
    lines = (results / "status.json").read_text().splitlines()
    kpis = [
        json.loads(line)["kpi"] for line in lines if "val_mAP" in json.loads(line).get("kpi", {})
    ]
    return kpis[-1], max(results.glob("model_epoch_*.pth")), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher", type=Path, help="a checkpoint instead of a training")
    parser.add_argument("--work", type=Path, help="keep what is trained in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        data = opened(args.data.absolute(), work)
        print(f"{'':<14}  seed  val_mAP  val_mAP50  seconds", flush=True)
        teacher = args.teacher
        if teacher is None:
            content = spec(data, work / "teacher", args.teacher_epochs, TEACHER, 0)
            kpi, teacher, seconds = run("train", content, work / "teacher.json")
            show("teacher", 0, kpi, seconds)
        scores: dict[str, list[float]] = {"alone": [], "with teacher": []}
        for seed in args.seeds:
            for name in scores:
                results = work / f"{name.replace(' ', '-')}-{seed}"
                content = spec(data, results, args.epochs, STUDENT, seed)
                action = "train"
                if name != "alone":
                    action = "distill"
                    content["distill"] = {
                        "pretrained_teacher_model_path": str(teacher.absolute()),
                        "bindings": BINDINGS,
                    }
                kpi, _, seconds = run(action, content, results.with_suffix(".json"))
                show(name, seed, kpi, seconds)
                scores[name].append(kpi["val_mAP"])
        alone, taught = scores.values()
        gains = [b - a for a, b in zip(alone, taught, strict=True)]
        print(
            f"mean val_mAP: alone {statistics.mean(alone):.4f}, with teacher "
            f"{statistics.mean(taught):.4f}; gain {statistics.mean(gains):+.4f} "
            f"({', '.join(f'{gain:+.4f}' for gain in gains)})"
        )


def show(name: str, seed: int, kpi: dict[str, float], seconds: float) -> None:
    row = f"{kpi['val_mAP']:7.4f}  {kpi['val_mAP50']:9.4f}  {seconds:7.0f}"
    print(f"{name:<14}  {seed:4}  {row}", flush=True)


if __name__ == "__main__":
    main()
