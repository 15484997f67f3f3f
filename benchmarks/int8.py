"""INT8 under a limit on the drop, beside what ONNX Runtime and modelopt make by default.

    python benchmarks/int8.py --onnx FILE --data FOLDER [--limit POINTS …] [--images N]

FOLDER has `train`, which calibrates, `val`, on which layers are chosen, and `test`, each with
`images` and `annotations.json`. FILE is what `rtdetr export` has made. ONNX Runtime computes every
graph on the CPU: its mAP on val and test, the share of its multiply-adds that are of two numbers
that were codes of 8 bits, and the seconds that it took to make.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor

from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.deploy.precision import typed
from rtdetr_slurm.deploy.precision.calibration import Calibration, CalibrationRecord
from rtdetr_slurm.deploy.precision.int8 import int8_share
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader
from rtdetr_slurm.engine.quantization.libraries import quiet
from rtdetr_slurm.engine.quantization.measure import sensitivities
from rtdetr_slurm.engine.quantization.onnx_file import opened
from rtdetr_slurm.spec.gen_trt_engine import TensorRtConfig
from rtdetr_slurm.vision.assessment import assess
from rtdetr_slurm.vision.onnx_metadata import INPUT
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.preprocess import Resize, to_unit_range
from rtdetr_slurm.vision.samples import Batch, EvaluationSet
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect
from rtdetr_slurm.vision.table import open_table

CPU = torch.device("cpu")


class Case:
    """A detector and its data."""

    def __init__(self, onnx_file: Path, data: Path, images: int) -> None:
        self.path, self.images = onnx_file, images
        self.model = onnx.load(onnx_file)
        self.detector = open_onnx(onnx_file)
        self.record = CalibrationRecord("")
        self.train, self.val, self.test = (
            self.open(data / name) for name in ("train", "val", "test")
        )

    def open(self, folder: Path) -> EvaluationData:
        source = Source(folder / "images", read_annotations(folder / "annotations.json"))
        table = open_table([source], self.detector.num_classes)
        size, select = self.detector.size, self.detector.metadata.num_select
        return EvaluationData(table, Resize(size), select)

    def load(self, data: EvaluationData) -> Iterator[Batch]:
        samples = EvaluationSet(data.table, data.resize)
        yield from evaluation_loader(samples, 8, 0, 1, workers=1, pin_memory=False)

    def batches(self, count: int) -> Iterator[Tensor]:
        few = replace(self.train, table=self.train.table.spread(count))
        yield from (to_unit_range(batch.pixels) for batch in self.load(few))

    def pixels(self) -> NDArray[np.float32]:
        return torch.cat([*self.batches(self.images)]).numpy()

    def score(self, predict: Predict, data: EvaluationData) -> float:
        rows = [one.rows for one in detect(predict, self.load(data), data, CPU)]
        return assess(data.table, np.concatenate(rows), None).metrics.summary["mAP"]

    def keep(self, record: CalibrationRecord) -> None:
        self.record = record

    def calibration(self, limit: float | None) -> Calibration:
        return Calibration(
            record=self.record,
            images=self.images,
            batches=self.batches,
            compare=lambda reference, images, names, alone: sensitivities(
                reference(images), images, names, alone, lambda: False
            ),
            score=(lambda predict: self.score(predict, self.val)) if limit is not None else None,
            limit=limit or 0.0,
            save=self.keep,
            say=lambda line: print(f"    {line}", flush=True) if limit is not None else None,
        )


def ours(
    case: Case, data_type: str, limit: float | None = None, layers: tuple[str, ...] = ()
) -> ModelProto:
    config = TensorRtConfig.model_validate({"data_type": data_type, "layers_precision": [*layers]})
    return typed(case.model, config, lambda: case.calibration(limit)).model


def by_onnx_runtime(case: Case) -> ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(np.split(case.pixels(), case.images))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: image}

    with silent(), tempfile.TemporaryDirectory() as folder:
        ready, made = Path(folder, "ready.onnx"), Path(folder, "made.onnx")
        quant_pre_process(str(case.path), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(made), Reader())
        return onnx.load(made)


def by_modelopt(case: Case) -> ModelProto:
    with silent(), tempfile.TemporaryDirectory() as folder:
        from modelopt.onnx.quantization import quantize

        made = Path(folder, "made.onnx")
        quantize(
            str(case.path),
            calibration_data={INPUT: case.pixels()},
            calibration_eps=["cpu"],
            output_path=str(made),
            log_level="ERROR",
        )
        return onnx.load(made)


@contextmanager
def silent() -> Iterator[None]:
    with quiet(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def variants(limits: Sequence[float]) -> dict[str, Callable[[Case], ModelProto]]:
    """Name to what makes it."""
    return {
        "FP32": lambda case: case.model,
        "FP16": lambda case: ours(case, "FP16"),
        "ONNX Runtime, by default": by_onnx_runtime,
        "modelopt, by default": by_modelopt,
        "INT8, every layer": lambda case: ours(case, "INT8", layers=("*:int8",)),
        "INT8, nothing scored": lambda case: ours(case, "INT8"),
        **{
            f"INT8, {limit:g} points at most": partial(ours, data_type="INT8", limit=limit)
            for limit in limits
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=float, nargs="*", default=[1.5], help="points of mAP (1.5)")
    parser.add_argument("--images", type=int, default=64, help="that calibrate (64)")
    options = parser.parse_args()
    case = Case(options.onnx, options.data, options.images)
    for name, make in variants(options.limit).items():
        began = time.monotonic()
        made = make(case)
        seconds = time.monotonic() - began
        onnx.helper.set_model_props(made, case.detector.metadata.properties())
        detector = opened(made)
        val, test = (case.score(detector, data) for data in (case.val, case.test))
        print(
            f"{name:26} {int8_share(made):6.1%} in INT8  mAP {val:.4f} (val) {test:.4f} (test)"
            f"  {seconds:5.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
