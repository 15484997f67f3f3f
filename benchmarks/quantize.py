"""What 8 bits cost: mAP of a checkpoint before and after, by backend, with and without the layers
that are left out by default.

    python benchmarks/quantize.py --checkpoint FILE --data FOLDER [--work FOLDER] [--only WORD …]

FOLDER has `train`, which calibrates, and `val`, which is scored, each with `images` and
`annotations.json`. Trains nothing. Runs `rtdetr quantize` once for each line of the table, on the
CPU at the size that the checkpoint was trained for, and `rtdetr export` once for those on ONNX.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from splits import source

from rtdetr_slurm.runs.checkpoint_record import read_weights_record

SENSITIVE = ("decoder.*", "encoder.encoder.*")
ALL = ("*", *SENSITIVE)
TORCHAO, PYTORCH, ONNX = "torchao", "modelopt.pytorch", "modelopt.onnx"
VARIANTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (TORCHAO, "int8", "minmax", ("*",)),
    (TORCHAO, "int8", "minmax", ALL),
    (TORCHAO, "fp8_e4m3fn", "minmax", ALL),
    (TORCHAO, "fp8_e5m2", "minmax", ALL),
    (PYTORCH, "int8", "max", ("*",)),
    (PYTORCH, "int8", "entropy", ("*",)),
    (PYTORCH, "int8", "max", ("*", "encoder.encoder.*")),
    (PYTORCH, "int8", "max", ("*", "decoder.*")),
    (PYTORCH, "int8", "max", ALL),
    (PYTORCH, "fp8_e4m3fn", "max", ("*",)),
    (PYTORCH, "fp8_e4m3fn", "max", ALL),
    (ONNX, "int8", "max", ("*",)),
    (ONNX, "int8", "max", ALL),
    (ONNX, "fp8_e4m3fn", "max", ("*",)),
)
"""Backend, number format, algorithm, and the patterns of the layers."""


def base(checkpoint: Path, data: Path, results: Path) -> dict[str, Any]:
    """What every run has: the detector and the size that the checkpoint says, and the data."""
    spec = read_weights_record(checkpoint).spec
    if spec is None:
        sys.exit(f"{checkpoint} is no checkpoint of a training of this program")
    return {
        "results_dir": str(results),
        "model": dict(spec["model"]) | {"pretrained_backbone_path": ""},
        "dataset": {
            "num_classes": spec["dataset"]["num_classes"],
            "augmentation": {
                "eval_spatial_size": spec["dataset"]["augmentation"]["eval_spatial_size"]
            },
            "quant_calibration_data_sources": source(data / "train"),
            "val_data_sources": source(data / "val"),
            "batch_size": 8,
            "workers": 1,
        },
    }


def run(action: str, spec: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(spec))
    command = [str(Path(sys.executable).with_name("rtdetr")), action, "-e", str(path)]
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        environment = os.environ | {"RTDETR_ACCELERATOR": "cpu"}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def quantized(spec: dict[str, Any], model: Path, variant: Any, name: str) -> dict[str, Any]:
    """quantize.json of a variant."""
    backend, number, algorithm, patterns = variant
    tensor = {"dtype": number}
    static = backend != TORCHAO
    layers = [
        {"module_name": one, "weights": tensor, "activations": tensor if static else None}
        for one in patterns
    ]
    results = Path(spec["results_dir"], name)
    results.mkdir(parents=True, exist_ok=True)
    section = {
        "model_path": str(model),
        "backend": backend,
        "mode": "static_ptq" if static else "weight_only_ptq",
        "algorithm": algorithm,
        "layers": layers,
        "device": "cpu",
        "results_dir": str(results),
    }
    run("quantize", spec | {"quantize": section}, results / "spec.json")
    found: dict[str, Any] = json.loads((results / "quantize.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="backends to run")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="quantize-"))
    work.mkdir(parents=True, exist_ok=True)
    spec = base(options.checkpoint, options.data, work)
    chosen = [one for one in VARIANTS if not options.only or one[0] in options.only]
    onnx = work / "plain.onnx"
    if any(one[0] == ONNX for one in chosen) and not onnx.exists():
        height, width = spec["dataset"]["augmentation"]["eval_spatial_size"]
        size = {"input_height": height, "input_width": width}
        section = {"checkpoint": str(options.checkpoint), "onnx_file": str(onnx), "on_cpu": True}
        run("export", spec | {"export": section | size}, work / "export.json")

    print(
        f"{'backend':17} {'format':11} {'algorithm':10} {'layers':30}{'work':>6}  "
        f"{'mAP before > after':17}  {'mAP50':15}  {'s':>6}"
    )
    for number, variant in enumerate(chosen):
        backend, form, algorithm, patterns = variant
        began = time.monotonic()
        model = onnx if backend == ONNX else options.checkpoint
        told = quantized(spec, model, variant, f"{number:02}")
        before, after = told["accuracy"]["before"], told["accuracy"]["after"]
        print(
            f"{backend:17} {form:11} {algorithm:10} {' '.join(patterns):30}"
            f"{told['work']['share']:6.1%}  {before['mAP']:.4f} > {after['mAP']:.4f}"
            f"  {before['mAP50']:.4f} > {after['mAP50']:.4f}  {time.monotonic() - began:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
