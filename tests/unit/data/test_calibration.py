"""Images to calibrate INT8 on: where they come from, and that they suffice."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_support import written

from rtdetr_slurm.data.calibration import calibration_sources
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import ExperimentConfig


def asked(folders: list[Path], batches: int, data_type: str = "INT8") -> ExperimentConfig:
    calibration = {"cal_image_dir": [*map(str, folders)], "cal_batches": batches}
    tensorrt = {"data_type": data_type, "calibration": calibration | {"cal_batch_size": 2}}
    return ExperimentConfig.model_validate({"gen_trt_engine": {"tensorrt": tensorrt}})


def test_enough_images_or_none_at_all(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "one/sub/b.png", "two/c.jpg", "two/notes.txt", "two/d.JPG"):
        written(tmp_path / name, "")
    folders = [tmp_path / "one", tmp_path / "two"]
    sources, _ = calibration_sources(asked(folders, 2), [])
    assert [source.annotations.num_images for source in sources] == [2, 2]
    assert calibration_sources(asked([], 1), sources)[0] == sources
    assert calibration_sources(asked([], 9), []) == ([], [])  # the ONNX file may be quantized
    assert calibration_sources(asked(folders, 9, "FP16"), sources) == ([], [])
    with pytest.raises(RequestError, match=r"2 x cal_batches 3 = 6 images .*/one, .*/two have 4"):
        calibration_sources(asked(folders, 3), [])
    with pytest.raises(RequestError, match=r"elsewhere \(.*cal_image_dir\) does not exist"):
        calibration_sources(asked([tmp_path / "elsewhere"], 1), [])
