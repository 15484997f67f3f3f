"""What keeps a calibration, and what is refused of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rtdetr_slurm.deploy.precision.calibration import CalibrationRecord, read_calibration
from rtdetr_slurm.errors import RequestError

DIGEST = "ab" * 32
RECORD = CalibrationRecord(DIGEST, 8, {"inputs": 1.0}, {"backbone.conv1": 0.25})


def test_it_is_of_one_model(tmp_path: Path) -> None:
    path = tmp_path / "rtdetr.cal"
    path.write_text(json.dumps(asdict(RECORD)))
    assert read_calibration(path, DIGEST) == RECORD
    with pytest.raises(RequestError, match=r"another model: .* abababababab….*; remove it, or let"):
        read_calibration(path, "cd" * 32)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "TRT-101200-EntropyCalibration2\ninputs: 3c010a14\n",
            "TensorRT's own files are of no use",
        ),
        (json.dumps(asdict(RECORD) | {"schema_version": 99}), "version 99 is newer"),
        (json.dumps(asdict(RECORD) | {"ranges": {"x": -1.0}}), "found -1.0 for x"),
        ("[]", "rtdetr.cal"),
    ],
)
def test_what_is_no_calibration(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rtdetr.cal"
    path.write_text(text)
    with pytest.raises(RequestError, match=problem):
        read_calibration(path, DIGEST)
