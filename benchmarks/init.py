"""What the spec of `rtdetr-slurm init` is worth: beside the default spec, at equal training time.

    python benchmarks/init.py --data FOLDER [--epochs N] [--seeds 0 1] [--work FOLDER] [key=value …]

FOLDER has `train` and `val`, each with `images` (or `images.tar.gz`) and `annotations.json`. Trains
with each seed, on one thread of the CPU from random weights: N epochs of the spec that `init`
writes, and then of the default spec, which says only what it must (sources and num_classes), as
many epochs as take at least that CPU time. Both are told the same size and the same small model,
and `key=value` on top. Prints what else `init` says, the best val_mAP and val_mAP50 of each
training, and the CPU seconds that it took, validation included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image
from splits import opened, train_and_val

SIZE = 96
SMALL = (
    f"dataset.augmentation.train_spatial_size=[{SIZE},{SIZE}]",
    f"dataset.augmentation.eval_spatial_size=[{SIZE},{SIZE}]",
    "dataset.workers=1",
    "model.backbone=resnet_18",
    "model.return_interm_indices=[0,1]",
    "model.num_feature_levels=2",
    "model.feat_strides=[4,8]",
    "model.use_encoder_idx=[1]",
    "model.hidden_dim=64",
    "model.feat_channels=[64,64]",
    "model.dim_feedforward=128",
    "model.expansion=0.5",
    "model.dec_layers=2",
)
"""What both sides are told, so that a CPU can do it."""


class Trained(NamedTuple):
    """The best of a training, and what it took: user and system seconds of all its processes."""

    val_map: float
    val_map50: float
    epochs: int
    seconds: float


def shrunken(data: Path, folder: Path) -> Path:
    """A copy of train and val whose images, of any size, have a longer side of 2 * SIZE: to decode
    large ones would take the time that is for training."""
    for split in ("train", "val"):
        content = json.loads((data / split / "annotations.json").read_text())
        (folder / split / "images").mkdir(parents=True, exist_ok=True)
        scales = {}
        for entry in content["images"]:
            name = f"{entry['id']}.png"
            with Image.open(data / split / "images" / entry["file_name"]) as picture:
                scale = 2 * SIZE / max(picture.size)
                size = [round(side * scale) for side in picture.size]
                picture.convert("RGB").resize(size).save(folder / split / "images" / name)
            entry |= {"file_name": name, "width": size[0], "height": size[1]}
            scales[entry["id"]] = scale
        for entry in content["annotations"]:
            scale = scales[entry["image_id"]]
            entry["bbox"] = [side * scale for side in entry["bbox"]]
            entry["area"] *= scale**2
        (folder / split / "annotations.json").write_text(json.dumps(content))
    return folder


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def train(spec: Path, results: Path, overrides: list[str]) -> Trained:
    began = children_seconds()
    command = [tool("rtdetr"), "train", "-e", str(spec), f"results_dir={results}", *overrides]
    environment = os.environ | {"RTDETR_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with results.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    lines = map(json.loads, (results / "train" / "status.json").read_text().splitlines())
    kpis = [line["kpi"] for line in lines if "val_mAP" in line.get("kpi", {})]
    for checkpoint in (results / "train").glob("*.pth"):
        checkpoint.unlink()
    best = max(kpis, key=lambda kpi: kpi["val_mAP"])
    epochs = next(int(o.partition("=")[2]) for o in overrides if o.startswith("train.num_epochs="))
    return Trained(best["val_mAP"], best["val_mAP50"], epochs, children_seconds() - began)


def init_spec(data: Path, path: Path, overrides: list[str]) -> None:
    path.unlink(missing_ok=True)
    command = [tool("rtdetr-slurm"), "init", str(data), "-o", str(path), "--site", "local"]
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)


def default_spec(data: Path, path: Path) -> None:
    path.write_text(json.dumps({"dataset": train_and_val(data)}))


def leaves(node: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        inner = isinstance(value, dict) and not above.endswith("_sources.")
        found |= leaves(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return found


def show_choices(spec: Path, overrides: list[str]) -> None:
    told = {override.partition("=")[0] for override in overrides}
    for field, value in leaves(yaml.safe_load(spec.read_text())).items():
        elsewhere = field.startswith(("job.", "export.")) or "data_sources" in field
        if field not in told and not elsewhere:
            print(f"  {field}: {value}")


def show(name: str, seed: object, trained: Trained) -> None:
    print(
        f"{name:<10}{seed!s:>6}{trained.epochs:>8}{trained.seconds:>9.0f}{trained.val_map:>9.3f}"
        f"{trained.val_map50:>11.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--work", type=Path, help="keep specs and logs in this folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        data = shrunken(opened(args.data.absolute(), work), work / "small")
        both = [*SMALL, *args.overrides]
        epochs = f"train.num_epochs={args.epochs}"
        init_spec(data, work / "init.yaml", [*both, epochs])
        default_spec(data, work / "default.yaml")
        print("what init says beside that:")
        show_choices(work / "init.yaml", [*both, epochs])
        few, more = (
            train(work / "default.yaml", work / f"probe-{n}", [*both, f"train.num_epochs={n}"])
            for n in (1, 2)
        )
        per_epoch = more.seconds - few.seconds
        print(f"\n{'spec':<10}{'seed':>6}{'epochs':>8}{'CPU s':>9}{'val_mAP':>9}{'val_mAP50':>11}")
        results: dict[str, list[Trained]] = {"init": [], "default": []}
        for seed in args.seeds:
            ours = train(work / "init.yaml", work / f"init-{seed}", [epochs, f"train.seed={seed}"])
            show("init", seed, ours)
            number = math.ceil((ours.seconds - few.seconds) / per_epoch) + 1
            overrides = [*both, f"train.num_epochs={number}", f"train.seed={seed}"]
            theirs = train(work / "default.yaml", work / f"default-{seed}", overrides)
            show("default", seed, theirs)
            results["init"].append(ours)
            results["default"].append(theirs)
        for name, trained in results.items():
            columns = zip(*trained, strict=True)
            means = [statistics.mean(column) for column in columns]
            show(name, "mean", Trained(means[0], means[1], round(means[2]), means[3]))


if __name__ == "__main__":
    main()
